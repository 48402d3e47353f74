"""What type checkers, editors and Python itself know of the public names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import headstart
from headstart import _PUBLIC

ROOT = Path(headstart.__file__).parents[1]


def test_type_checkers_see_every_public_name_where_it_lives():
    tree = ast.parse(Path(headstart.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: f"{line.module}:{alias.name}"
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    assert seen == _PUBLIC


def test_every_installed_package_says_that_it_is_typed():
    assert '"*" = ["py.typed", ' in (ROOT / "pyproject.toml").read_text()
    for room in ("configs", "heads", "cluster", "shards", "pretrain", "adapt", "headstart"):
        assert (ROOT / room / "py.typed").is_file(), room


@pytest.mark.parametrize("name", ["adapt_avatar", "talk", "evaluate", "export"])
def test_a_public_function_refuses_an_argument_of_a_wrong_type(name, tmp_path):
    with pytest.raises(headstart.InputError, match=r"is 3, expected a path"):
        getattr(headstart, name)(3, 3, 3) if name == "talk" else getattr(headstart, name)(3, tmp_path / "out")
    assert getattr(headstart, name) is getattr(headstart, name)
