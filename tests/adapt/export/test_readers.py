"""Readers of other people see the same Gaussians. Needs node and a folder with the packages of ``package.json``.

npm install --prefix FOLDER tests/adapt/export && HEADSTART_NODE_READERS=FOLDER pytest -m node
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from adapt.avatar.export import Cloud, format_of, glb, ply
from adapt.avatar.export.axes import half_turn, rotation_matrices
from adapt.avatar.export.cloud import colors_of
from benchmarks import chromium
from benchmarks.outputs import readers
from heads.measures.image import psnr
from tests.support.export_samples import BOUNDS, Bounds, assert_within, covariances

pytestmark = pytest.mark.node
HERE = Path(__file__).parent
BYTE = 0.5 / 255 + 1e-6


@pytest.fixture
def packages(tmp_path) -> Path:
    """A folder with the reader script beside the installed packages; the test is skipped without them."""
    folder = os.environ.get("HEADSTART_NODE_READERS")
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if folder is None or not (Path(folder) / "node_modules").is_dir():
        pytest.skip(
            f"no readers: install the npm packages of {HERE / 'package.json'}, then HEADSTART_NODE_READERS=FOLDER"
        )
    place = tmp_path / "readers"
    place.mkdir()
    (place / "node_modules").symlink_to(Path(folder).resolve() / "node_modules")
    shutil.copy(HERE / "readers.mjs", place)
    return place


def run(*command: object) -> str:
    """What a command prints; its complaint when it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def written(cloud: Cloud, record, path: Path) -> Path:
    """The path of a file with the cloud in it."""
    format_of(path).write(path, cloud, record)
    return path


@pytest.mark.parametrize("suffix", [".ply", ".spz", ".glb"])
def test_three_js_sees_the_same_gaussians_upright(suffix, cloud, record, packages, tmp_path):
    path = written(cloud, record, tmp_path / f"head{suffix}")
    seen = json.loads(run("node", packages / "readers.mjs", "three", path))
    truth, bounds = half_turn(cloud), BOUNDS[suffix]
    centers = np.float64(seen["centers"]).reshape(-1, 3)
    assert np.abs(centers - truth.means).max() <= bounds.position + 1e-9
    colors = np.float64(seen["colors"]).reshape(-1, 4) / 255
    assert np.abs(colors[:, :3] - truth.colors).max() <= bounds.color + BYTE
    assert np.abs(colors[:, 3] - truth.opacities).max() <= bounds.opacity + BYTE
    expected = covariances(truth)
    found = np.float64(seen["covariances"])[: 6 * cloud.n].reshape(-1, 6)
    upper = expected[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    size = truth.scales.max(1, keepdims=True).astype(float) ** 2
    # An error of a share s in scale is 2 s in covariance; one of a radians in rotation is at most 2 a.
    assert (np.abs(found - upper) / size).max() <= 2.1 * bounds.scale + 2 * np.radians(bounds.degrees) + 1e-4
    if suffix == ".glb":
        assert seen["extras"]["synthetic"] is True


def test_babylon_js_sees_the_same_positions(cloud, record, packages, tmp_path):
    path = written(cloud, record, tmp_path / "head.glb")
    seen = json.loads(run("node", packages / "readers.mjs", "babylon", path))
    assert seen["count"] == cloud.n
    positions = np.float64(seen["positions"]).reshape(-1, 4)[: cloud.n, :3]  # padded to a texture
    assert np.abs(positions - half_turn(cloud).means).max() <= 1e-6


@pytest.mark.parametrize("suffix", [".ply", ".spz"])
def test_splat_transform_sees_the_same_gaussians_in_the_same_order(suffix, cloud, record, packages, tmp_path):
    path = written(cloud, record, tmp_path / f"head{suffix}")
    table = tmp_path / "seen.csv"
    command = packages / "node_modules/@playcanvas/splat-transform/bin/cli.mjs"
    run("node", command, "-q", "--gpu", "cpu", "-w", path, table)
    names = table.open().readline().strip().split(",")
    columns = dict(zip(names, np.loadtxt(table, delimiter=",", skiprows=1).T))
    seen = Cloud.make(
        np.stack([columns[name] for name in "xyz"], 1),
        np.stack([columns[f"rot_{i}"] for i in range(4)], 1),
        np.exp(np.stack([columns[f"scale_{i}"] for i in range(3)], 1)),
        1 / (1 + np.exp(-columns["opacity"])),
        colors_of(np.stack([columns[f"f_dc_{i}"] for i in range(3)], 1)),
    )
    b = BOUNDS[suffix]
    loose = Bounds(b.position + 1e-9, b.opacity + 1e-6, b.color + 1e-6, b.scale + 1e-5, b.degrees + 0.01)
    assert_within(seen, half_turn(cloud), loose)


def test_the_library_of_the_spz_format_sees_the_same_gaussians_in_the_same_order(cloud, record, packages, tmp_path):
    path = written(cloud, record, tmp_path / "head.spz")
    seen = json.loads(run("node", packages / "readers.mjs", "niantic", path))
    assert (seen["numPoints"], seen["shDegree"], seen["antialiased"]) == (cloud.n, 0, False)
    rows = {name: np.float64(seen[name]) for name in ("positions", "scales", "rotations", "alphas", "colors")}
    found = Cloud.make(
        rows["positions"].reshape(-1, 3),
        np.roll(rows["rotations"].reshape(-1, 4), 1, axis=1),  # it keeps w last
        rows["scales"].reshape(-1, 3),
        rows["alphas"],
        rows["colors"].reshape(-1, 3),
    )
    assert_within(found, half_turn(cloud), BOUNDS[".spz"])


def test_splat_transform_writes_the_same_glb_but_for_its_half_turn(cloud, record, packages, tmp_path):
    """It takes PLY for y-down and turns it by 180° about z; every other number is ours."""
    path = written(cloud, record, tmp_path / "head.ply")
    command = packages / "node_modules/@playcanvas/splat-transform/bin/cli.mjs"
    run("node", command, "-q", "--gpu", "cpu", "-w", path, tmp_path / "theirs.glb")
    theirs, ours = half_turn(glb.read(tmp_path / "theirs.glb")), half_turn(ply.read(path))
    turn = np.diag([-1.0, -1.0, 1.0])
    assert np.abs(theirs.means - ours.means @ turn).max() <= 1e-6
    assert np.allclose(rotation_matrices(theirs.quats), turn @ rotation_matrices(ours.quats), atol=1e-5)
    assert np.allclose(theirs.scales, ours.scales, rtol=1e-5)
    assert np.allclose(theirs.opacities, ours.opacities, atol=1e-5)
    assert np.allclose(theirs.colors, ours.colors, atol=1e-5)


@pytest.mark.skipif(chromium.find_chromium() is None, reason="needs Chromium")
def test_renderers_show_a_head_upright_and_from_the_front(record, packages, tmp_path):
    """Colours tell directions apart: red grows to the picture's right, green downwards, blue away from the viewer."""
    pytest.importorskip("aiohttp")
    rng = np.random.default_rng(3)
    around = rng.normal(size=(3000, 3))
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    means, scales = around * [0.07, 0.1, 0.08], rng.uniform(0.002, 0.006, (3000, 3))
    egg = Cloud.make(means, rng.normal(size=(3000, 4)), scales, np.full(3000, 0.9), 0.5 + 0.5 * around)
    files = {suffix: written(egg, record, tmp_path / f"head{suffix}") for suffix in readers.SUFFIXES}
    seen = readers.pictures(egg, files, packages)
    ours = seen[readers.OURS]
    rows, columns = np.nonzero(ours.min(2) < 250)
    red, green, blue = ours.astype(float).transpose(2, 0, 1)
    middle = readers.SIDE // 2, (rows.min() + rows.max()) // 2
    assert blue[middle[1], middle[0]] < 60
    assert green[rows.min() + 20, middle[0]] + 100 < green[rows.max() - 20, middle[0]]
    assert red[middle[1], columns.min() + 20] + 100 < red[middle[1], columns.max() - 20]
    assert len(seen) == 8
    for name, picture in seen.items():
        assert psnr(picture / 255, ours / 255) > 25, name
