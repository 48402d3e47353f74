"""The architecture: what a room may import, circles, homes of third parties, sizes, types, and the public face."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import headstart
from tests.support import architecture
from tests.support.architecture import Import

ROOT = Path(__file__).resolve().parents[2]
ROOMS: dict[str, set[str]] = {
    "configs": set(),
    "heads": {"configs"},
    "cluster": {"configs"},
    "shards": {"configs", "heads", "cluster"},
    "pretrain": {"configs", "heads", "shards", "cluster"},
    "adapt": {"configs", "heads", "shards", "pretrain", "cluster"},
    "headstart": {"configs", "heads", "shards", "pretrain", "cluster", "adapt"},
}
# The place of ours in which a third-party engine may be touched; imported there where it is used, so that the command
# line answers at once and a worker loads what it needs.
HOMES = {
    "accelerate": "cluster.engine",
    "aiohttp": "adapt.live.server",
    "av": "shards.media",
    "c2pa": "adapt.marking.sign",
    "deepspeed": "cluster.engine.zero",
    "diffusers": "pretrain.audio_expression.diffusion",
    "flip_evaluator": "adapt.evaluate.measures.flip",
    "fsspec": "cluster.storage.remote",
    "gsplat": "heads",
    "mediapipe": "shards.tracking.models",
    "mlflow": "cluster.registry",
    "onnx": "adapt.web.onnx_graphs",
    "onnxscript": "adapt.web.onnx_graphs",
    "pxr": "adapt.avatar.export.usd",
    "ray": "cluster.launch",
    "smplx": "heads.rig.flame",
    "tinycudann": "heads.motion.encoding",
    "transformers": "shards.features",
    "webdataset": "shards.tar.tars",
}
MOST_ANY = 294
HEAVY = {*HOMES, "skimage", "uvicorn", "starlette", "fastapi"}


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return architecture.imports()


def test_a_room_imports_only_the_rooms_below_it(imports):
    ours = {*ROOMS, "tests", "benchmarks"}
    wrong = []
    for entry in imports:
        room, other = entry.importer.split(".")[0], entry.imported.split(".")[0]
        if other in ours and other != room and other not in ROOMS[room]:
            wrong.append(entry)
    assert not wrong


def test_no_modules_import_each_other_in_a_ring(imports):
    assert architecture.circles(architecture.ours(imports)) == []


def test_our_own_modules_are_never_imported_inside_a_function(imports):
    assert [entry for entry in architecture.ours(imports) if entry.inside] == []


def test_heavy_packages_are_imported_where_they_are_used(imports):
    assert [entry for entry in imports if entry.imported.split(".")[0] in HEAVY and not entry.inside] == []


@pytest.mark.parametrize("package", HOMES)
def test_each_engine_is_touched_in_its_own_place(package, imports):
    users = [entry.importer for entry in imports if entry.imported.split(".")[0] == package]
    assert users, "nothing uses it: take it out of the list"
    assert [user for user in users if not f"{user}.".startswith(f"{HOMES[package]}.")] == []


def test_folders_and_files_stay_small():
    rooms = (*ROOMS, "benchmarks")
    sizes = architecture.folder_sizes(rooms=rooms)
    del sizes["headstart/cli"]  # a file for each command
    assert {folder: count for folder, count in sizes.items() if count > architecture.MOST_FILES} == {}
    assert architecture.long_files(rooms=rooms) == {}


def test_any_stays_rare_in_annotations():
    # A real type, `object` or a protocol instead; `Any` where a third party has no types. Lower it with the count.
    assert architecture.any_annotations() <= MOST_ANY


@pytest.mark.slow
def test_the_types_of_every_room_are_right():
    run = subprocess.run([sys.executable, "-m", "mypy"], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stdout[-4000:]


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
    # Of pretrain only the names of the priors are read.
    code = (
        "import sys, headstart\n"
        "try: headstart.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(ast.literal_eval(run.stderr.strip().splitlines()[-1]))
    assert not loaded & (HEAVY | {"torch", "numpy", "numba"} | set(ROOMS) - {"configs", "headstart", "pretrain"})


def test_a_ring_of_any_length_is_found_also_through_functions():
    ring = [
        Import("a", "b", False, 1),
        Import("b", "c", True, 1),
        Import("c", "a", False, 1),
        Import("d", "a", False, 1),
    ]
    assert architecture.circles(ring) == [("a", "b", "c")]
    assert architecture.circles(ring[1:]) == []
