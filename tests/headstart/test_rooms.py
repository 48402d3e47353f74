"""The architecture: what a room may import, what the public face offers, and what --help does not load."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import headstart

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {
    "configs": set(),
    "heads": {"configs"},
    "cluster": {"configs"},
    "shards": {"configs", "heads", "cluster"},
    "pretrain": {"configs", "heads", "shards", "cluster"},
    "adapt": {"configs", "heads", "shards", "pretrain", "cluster"},
}
# Imported only where they are used, so that the command line answers at once and a worker loads what it needs.
HEAVY = {
    "ray",
    "deepspeed",
    "mlflow",
    "mediapipe",
    "av",
    "gsplat",
    "tinycudann",
    "transformers",
    "diffusers",
    "accelerate",
    "skimage",
    "smplx",
}
# The one module of ours in which a third-party engine may be touched.
HOMES = {
    "av": "shards/media/",
    "mediapipe": "shards/tracking/",
    "gsplat": "heads/",
    "tinycudann": "heads/",
    "ray": "",
    "mlflow": "cluster/",
    "deepspeed": "cluster/",
}


def _imports(path: Path) -> list[tuple[str, bool]]:
    """(top-level package, whether at module level) of every import in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name.split(".")[0], id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append((node.module.split(".")[0], id(node) in top))
    return found


def _files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_below_it(room):
    ours = set(ROOMS) | {"headstart", "tests", "benchmarks"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in _files(room)
        for name, _ in _imports(path)
        if name in ours and name != room and name not in ROOMS[room]
    ]
    assert not wrong


@pytest.mark.parametrize("room", ROOMS)
def test_heavy_packages_are_imported_where_they_are_used(room):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name} at module level"
        for path in _files(room)
        for name, at_top in _imports(path)
        if at_top and name in HEAVY
    ]
    assert not wrong


def test_each_engine_is_touched_in_its_own_room():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for room in ROOMS
        for path in _files(room)
        for name, _ in _imports(path)
        if not str(path.relative_to(ROOT)).startswith(HOMES.get(name, ""))
    ]
    # The doctor probes everything that there is.
    assert not [line for line in wrong if not line.startswith("headstart/installation.py")]


def test_the_public_names_are_as_recorded():
    recorded = json.loads((ROOT / "tests" / "headstart" / "public_api.json").read_text())
    assert sorted(headstart.__all__) == recorded


@pytest.mark.parametrize("name", sorted(headstart._PUBLIC))
def test_every_public_name_can_be_used_and_is_documented(name):
    assert getattr(headstart, name).__doc__


def test_an_unknown_public_name_says_which_exist():
    with pytest.raises(AttributeError, match="load_avatar"):
        headstart.no_such_thing  # noqa: B018


def test_help_loads_nothing_heavy():
    code = (
        "import sys, headstart\n"
        "try: headstart.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(ast.literal_eval(run.stderr.strip().splitlines()[-1]))
    assert not loaded & (HEAVY | {"torch", "numpy", "numba"} | set(ROOMS) - {"configs"})
