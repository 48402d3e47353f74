"""Recipes as an extension point: found by folder and by entry point, checked when they are imported."""

from __future__ import annotations

import ast
import re
import sys
import types
from pathlib import Path

import pytest

from adapt.avatar.avatar import load_avatar
from adapt.fit.config import RecipeConfig
from adapt.job import adapt
from adapt.recipes import recipe, recipe_names
from adapt.recipes.registry import checked
from configs import InputError
from tests.support.avatars import SIZE, make_world

ROOT = Path(__file__).resolve().parents[2]
# What another package has to write: one module and one YAML file, as docs/extending.md shows them.
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def example(name: str) -> str:
    """A file of the page."""
    found = re.search(rf"^`my_package/{re.escape(name)}`\n\n```\w+\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A package beside the tree that offers the recipe ``plain``."""
    package, info = tmp_path / "plain_recipes", tmp_path / "plain_recipes-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").touch()
    for name in ("plain.py", "plain.yaml"):
        (package / name).write_text(example(name))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plain-recipes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[headstart.recipes]\nplain = plain_recipes.plain\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe.cache_clear()
    yield
    recipe.cache_clear()
    for name in [name for name in sys.modules if name.startswith("plain_recipes")]:
        del sys.modules[name]


def test_a_recipe_of_another_package_adapts_saves_and_opens_like_ours(outside, tmp_path, monkeypatch):
    world = make_world(tmp_path, frames=40)
    monkeypatch.setattr("shards.tracking.track_frames", world.segments)
    assert recipe_names() == ["headstart", "fg3dgs", "ggtalker", "talkinggaussian", "plain"]
    assert recipe("plain").config().mouth == 2.0
    adapt(world.video, tmp_path / "ada", recipe="plain", set=["mouth=0.5"], budget="3it", prior="none", size=SIZE)
    opened = load_avatar(tmp_path / "ada", "cpu")
    assert opened.document["config"]["mouth"] == 0.5
    assert opened.render(opened.tracked_drive([0])).shape == (1, SIZE, SIZE, 3)


def test_an_avatar_of_a_recipe_that_is_gone_is_told_so(outside, tmp_path, monkeypatch):
    world = make_world(tmp_path, frames=40)
    monkeypatch.setattr("shards.tracking.track_frames", world.segments)
    adapt(world.video, tmp_path / "ada", recipe="plain", budget="1it", prior="none", size=SIZE)
    monkeypatch.undo()
    recipe.cache_clear()
    with pytest.raises(InputError, match="recipe 'plain': no such recipe"):
        load_avatar(tmp_path / "ada", "cpu")


def module(**names):
    made = types.ModuleType("somewhere.odd")
    ours = sys.modules["adapt.recipes.headstart"]
    usual = {name: getattr(ours, name) for name in ("Config", "build", "run", "shape_of", "empty")}
    for name, value in {**usual, **names}.items():
        if value is not None:
            setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"run": None}, r"recipe 'odd' \(somewhere.odd\): has no function run\(fit, context\)"),
        ({"build": lambda: None}, r"build takes 0 parameters, expected 1 \(context\)"),
        ({"empty": lambda a, b, c: None}, r"empty takes 3 parameters, expected 4"),
        ({"Config": dict}, "Config is <class 'dict'>, expected a dataclass derived from"),
        ({"Config": None}, "Config is None"),
    ],
)
def test_a_module_that_is_no_recipe_is_refused_with_a_sentence(names, says):
    recipe("headstart")
    with pytest.raises(InputError, match=says):
        checked("odd", module(**names), "odd.yaml")


def test_a_module_that_cannot_be_imported_is_named(outside, tmp_path):
    (tmp_path / "plain_recipes" / "plain.py").write_text("raise RuntimeError('not today')\n")
    with pytest.raises(InputError, match=r"recipe 'plain' \(plain_recipes.plain\): cannot be imported \(not today\)"):
        recipe("plain")


def test_a_configuration_of_an_earlier_version_takes_todays_value_for_a_new_key():
    made = recipe("headstart")
    stored = {"size": 96, "rate": 0.5}
    config = made.config(stored)
    assert (config.size, config.rate) == (96, 0.5)
    assert config.ssim == made.config().ssim
    assert isinstance(config, RecipeConfig)


def test_recipes_do_not_import_each_other():
    for path in (ROOT / "adapt" / "recipes").glob("*.py"):
        named = [
            node.module or ""
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and path.name not in ("registry.py", "__init__.py")
        ]
        assert not [name for name in named if name.startswith("adapt.recipes")], path.name
