"""The page's modules in node give Python's numbers: features, expressions, poses, Gaussians, ellipses."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from adapt.talk.blinks import Blinks
from adapt.talk.level import speech_level
from adapt.talk.poses import GeneratedPoses
from heads.raster.api import rasterization
from shards.features.logmel import logmel

pytestmark = [pytest.mark.node, pytest.mark.skipif(shutil.which("node") is None, reason="needs node")]
HERE = Path(__file__).parent


def run(script: str, page: Path, folder: Path, *arguments: str) -> Any:
    """What a script of this folder writes about the page's modules."""
    modules = folder / "modules"
    shutil.copytree(page, modules)
    (modules / "package.json").write_text('{"type": "module"}')  # node takes .js files for CommonJS otherwise
    out = folder / "out.json"
    done = subprocess.run(
        ["node", str(HERE / script), str(modules), *arguments, str(out)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def found(page, world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    soundfile.write(folder / "sound.wav", world.sound, 16_000, subtype="FLOAT")
    return run("drive.mjs", page, folder, str(folder / "sound.wav"))


def test_log_mel_rows_are_equal(found, world):
    rows = np.array(found["logmel"])
    assert rows.shape == logmel(world.sound).shape
    np.testing.assert_allclose(rows, logmel(world.sound), atol=2e-6)


def test_quiet_speech_is_raised_to_the_clip_s_level_as_in_talk(found, avatar, world):
    level = found["level"]
    assert level["own"] == pytest.approx(speech_level([world.sound]), abs=1e-3)
    assert level["clip"] == avatar.document["clip"]["level"]
    assert level["faint"] == pytest.approx(speech_level([world.sound / 20]), abs=1e-3)
    assert level["raised"] == pytest.approx(level["clip"], abs=0.1)
    assert level["kept"]
    assert level["silence"] is None


def test_expressions_are_those_of_talk(found, motions):
    expression = torch.cat([motion.drive.expression for motion in motions]).numpy()
    assert np.abs(expression).max() > 0.1
    np.testing.assert_allclose(np.array(found["expression"]), expression, atol=2e-5)


def test_the_short_regression_of_the_microphone_is_the_one_of_live(found, avatar, world):
    from adapt.drivers.base import Bounds, drive
    from adapt.drivers.low_delay import quickest
    from adapt.talk.silence import rested

    spoken = Bounds(avatar.track["expression"])(drive(quickest(avatar.driver), logmel(world.sound))["expression"])
    np.testing.assert_allclose(np.array(found["quick"]), rested(spoken, world.sound, avatar.track), atol=2e-5)


def test_vectors_are_those_of_talk(found, motions):
    vectors = torch.cat([motion.drive.vectors for motion in motions]).numpy()
    for frame in found["frames"]:
        np.testing.assert_allclose(frame["vector"], vectors[frame["number"]], atol=2e-5)


def test_gaussians_are_those_of_the_model(found, avatar, motions):
    for frame in found["frames"]:
        inputs = motions[frame["number"] // 4].drive.pick([frame["number"] % 4])
        with torch.no_grad():
            cloud, parts = avatar.model.gaussians(inputs), avatar.model.talking.corrected(inputs, 0)
        np.testing.assert_allclose(np.array(frame["centres"]).reshape(-1, 3), cloud.means[0], atol=2e-3)
        np.testing.assert_allclose(np.array(frame["colors"]).reshape(-1, 3), cloud.colors[0], atol=4e-3)
        np.testing.assert_allclose(np.array(frame["rotation"]).reshape(3, 3), parts["rotation"][0], atol=1e-5)
        np.testing.assert_allclose(frame["translation"], parts["translation"][0], atol=1e-4)


def test_ellipses_are_those_of_the_rasteriser_from_back_to_front(found, avatar, motions):
    frame = found["frames"][1]
    inputs = motions[frame["number"] // 4].drive.pick([frame["number"] % 4])
    with torch.no_grad():
        cloud, parts = avatar.model.gaussians(inputs), avatar.model.talking.corrected(inputs, 0)
        view = torch.eye(4)
        view[:3, :3], view[:3, 3] = parts["rotation"][0], parts["translation"][0]
        scene = (cloud.means[0], cloud.quats[0], cloud.scales[0], cloud.opacities[0], cloud.colors[0])
        _, _, meta = rasterization(*scene, view[None], avatar.model.intrinsics[None], avatar.size, avatar.size)
    seen = meta["radii"][0, :, 0] > 0
    order = torch.argsort(meta["depths"][0][seen], descending=True)
    ellipses = np.array(frame["ellipses"]).reshape(frame["seen"], -1)
    assert abs(frame["seen"] - int(seen.sum())) <= 2
    long, short = ellipses[:, 2:4], ellipses[:, 4:6]
    covariance = long[:, :, None] * long[:, None] + short[:, :, None] * short[:, None]
    # Sums over all of them are compared: at the picture's edge one more or less may be seen.
    a, b, c = meta["conics"][0][seen][order].unbind(-1)
    true = torch.stack([torch.stack([c, -b], -1), torch.stack([-b, a], -1)], -1) / (a * c - b * b)[:, None, None]
    np.testing.assert_allclose(covariance.mean(0), true.mean(0), rtol=5e-3, atol=0.02)
    np.testing.assert_allclose(ellipses[:, :2].mean(0), meta["means2d"][0][seen].mean(0), atol=0.05)
    third = len(order) // 3
    for part in (slice(0, third), slice(third, 2 * third)):
        np.testing.assert_allclose(ellipses[part, :2].mean(0), meta["means2d"][0][seen][order][part].mean(0), atol=0.1)


def test_generated_poses_and_blinks_are_those_of_talk(found, avatar):
    poses = GeneratedPoses(avatar.track["rotation"], avatar.track["translation"])
    for row in found["sway"]:
        true = poses.at(np.array([row["number"]]))
        np.testing.assert_allclose(np.array(row["rotation"]).reshape(3, 3), true.rotation[0], atol=1e-6)
        np.testing.assert_allclose(row["translation"], true.translation[0], atol=1e-5)
        assert row["source"] == true.source[0]
    np.testing.assert_allclose(found["blinks"], Blinks().at(np.arange(1000))[:, 0], atol=1e-6)
