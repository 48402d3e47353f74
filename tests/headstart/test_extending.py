"""docs/extending.md: every example written to a folder outside the tree and run there, found by its entry point."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import adapt.job
from adapt.avatar.avatar import load_avatar
from adapt.drivers.base import drive
from adapt.priors import find_priors
from configs import InputError
from heads.rig import load_rig
from tests.support.avatars import SIZE, make_world
from tests.support.person_priors import write_folder

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = {part.splitlines()[0]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}
FILE = re.compile(r"^`(my_package/[\w/.-]+)`\n\n```\w+\n(.*?)```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A folder as pip leaves it: the package's files and its entry points."""
    folder = tmp_path_factory.mktemp("site")
    for name, text in FILE.findall(PAGE):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (folder / "my_package" / "__init__.py").touch()
    info = folder / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    toml = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert toml
    points = re.sub(r'\[project\.entry-points\."([\w.]+)"\]', r"[\1]", toml[1]).replace('"', "")
    (info / "entry_points.txt").write_text(points)
    return folder


def usage(section: str) -> str:
    """The block of a section that is no file."""
    whole = SECTIONS[section]
    files = {text for _, text in FILE.findall(whole)}
    blocks = [text for text in re.findall(r"```python\n(.*?)```", whole, re.DOTALL) if text not in files]
    assert len(blocks) == 1, f"{section}: expected one block that uses the example"
    return blocks[0]


@pytest.mark.parametrize("section", SECTIONS)
def test_the_example_runs_from_outside_the_tree(section, package, tmp_path):
    assert FILE.findall(SECTIONS[section]), "a section without a file"
    path = os.pathsep.join([str(package), str(ROOT)])
    run = subprocess.run(
        [sys.executable, "-c", usage(section)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


def test_every_group_of_the_table_has_an_example():
    groups = set(re.findall(r"`(headstart\.\w+)`", PAGE.split("## ")[0]))
    assert groups == set(re.findall(r'entry-points\."(headstart\.\w+)"', PAGE))
    assert len(SECTIONS) == len(groups)


def test_adaptation_speaks_through_an_outside_prior_of_the_role_motion(package, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(package))
    torch.manual_seed(0)
    importlib.import_module("my_package.mouthing")
    model = sys.modules["my_package.mouthing"].Objective(160, load_rig().n_expression)
    write_folder(tmp_path / "prior", "mouthing", {}, model, {"name": "logmel", "size": 160, "weights": None})
    world = make_world(tmp_path, frames=132)
    monkeypatch.setattr("shards.tracking.track_frames", world.segments)
    made = adapt.job.adapt(world.video, tmp_path / "me", prior=tmp_path / "prior", size=SIZE, budget="2it")
    assert made["driver"].startswith("mouthing prior")
    record = json.loads((tmp_path / "me" / "avatar.json").read_text())["priors"]["mouthing"]
    assert record["role"] == "motion"
    driver = load_avatar(tmp_path / "me", "cpu").driver
    assert isinstance(driver.prior, sys.modules["my_package.mouthing"].Ready)
    assert len(drive(driver, np.zeros((25, 160), np.float32))["expression"]) == 25


def test_a_package_without_its_yaml_files_is_named_and_not_the_avatar(package, tmp_path):
    """As a wheel without package-data; an avatar made before said that its weights do not fit."""
    bare = shutil.copytree(package, tmp_path / "site")
    for file in ("plain.yaml", "configs/tiny.yaml"):
        (bare / "my_package" / file).unlink()
    program = (
        "from adapt.recipes import recipe\nfrom configs import InputError\nfrom my_package.eyelids import Eyelids\n"
        "for ask in (lambda: recipe('plain'), lambda: Eyelids.source(None)):\n"
        "    try:\n        ask()\n    except InputError as error:\n        print(error)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(bare), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert re.search(r"recipe 'plain' .*plain\.yaml are missing; the package that offers it must contain them", first)
    assert re.search(r"configuration 'tiny': no tiny\.yaml in .*configs \(it has none\)", second)


def test_two_priors_of_one_role_are_refused(package, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(package))
    for name in ("mouthing", "audio-expression"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "prior.json").write_text(json.dumps({"schema": 1, "prior": name}))
    with pytest.raises(InputError, match=r"a second motion \(audio-expression, mouthing\) prior"):
        find_priors(tmp_path)
