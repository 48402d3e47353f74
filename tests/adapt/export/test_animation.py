"""Heads that move: USD time samples and folders of PLY files, frame by frame."""

from __future__ import annotations

import json

import numpy as np
import pytest

from adapt.avatar.export import ply, usd, write_frames
from adapt.avatar.export.axes import moved
from configs import InputError
from tests.support.export_samples import make_cloud


def clouds(count: int, n: int = 500):
    """A head whose jaw drops from the third frame on: means change, colours and opacities never."""
    still = make_cloud(n)
    for frame in range(count):
        yield still.replace(means=still.means + np.float32([0, 0.001 * max(0, frame - 2), 0]))


def test_frames_become_a_folder_of_ply_files(record, tmp_path):
    folder = tmp_path / "frames"
    assert write_frames(folder, clouds(5), record, fps=30) == 5
    names = sorted(path.name for path in folder.iterdir())
    assert names == [*(f"{i:06d}.ply" for i in range(5)), "sequence.json"]
    document = json.loads((folder / "sequence.json").read_text())
    assert (document["fps"], document["frames"], document["synthetic"]) == (30, 5, True)
    for frame, cloud in enumerate(clouds(5)):
        assert np.array_equal(ply.read(folder / f"{frame:06d}.ply").means, cloud.means)


def test_a_folder_of_frames_appears_whole_or_not_at_all(record, tmp_path):
    def breaking():
        yield make_cloud(50)
        raise InputError("the sound ends here")

    with pytest.raises(InputError, match="the sound ends"):
        write_frames(tmp_path / "frames", breaking(), record)
    with pytest.raises(InputError, match="no frame"):
        write_frames(tmp_path / "frames", [], record)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "frames").mkdir()
    with pytest.raises(InputError, match="exists"):
        write_frames(tmp_path / "frames", clouds(2), record)
    assert write_frames(tmp_path / "frames", clouds(2), record, replace=True) == 2


def test_usd_time_samples_give_every_frame_back(record, tmp_path):
    pxr = pytest.importorskip("pxr", reason="usd-core is not installed: pip install 'headstart[usd]'")
    path = tmp_path / "head.usdc"
    assert usd.write_sequence(path, clouds(20), record, fps=25) == 20
    for frame, cloud in enumerate(clouds(20)):
        assert np.array_equal(usd.read(path, frame).means, cloud.means)
    stage = pxr.Usd.Stage.Open(str(path))
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode(), stage.GetTimeCodesPerSecond()) == (0, 19, 25)
    assert (pxr.UsdGeom.GetStageUpAxis(stage), pxr.UsdGeom.GetStageMetersPerUnit(stage)) == ("Y", 1.0)
    prim = stage.GetPrimAtPath("/head/gaussians")
    assert prim.GetTypeName() == "ParticleField3DGaussianSplat"
    assert prim.GetAttribute("scales").GetNumTimeSamples() == 0
    # Frames 0 to 2 are equal: two samples hold them, so that nothing moves before it should.
    assert prim.GetAttribute("positions").GetTimeSamples()[:3] == [0, 2, 3]
    assert stage.GetDefaultPrim().GetCustomData()["synthetic"] is True
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_usd_accepts_what_its_own_validators_check(record, tmp_path):
    pxr = pytest.importorskip("pxr", reason="usd-core is not installed: pip install 'headstart[usd]'")
    from pxr import UsdValidation

    for suffix in (".usdc", ".usdz"):
        path = tmp_path / f"head{suffix}"
        usd.write_sequence(path, clouds(3), record)
        validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
        errors = UsdValidation.ValidationContext(validators).Validate(pxr.Usd.Stage.Open(str(path)))
        assert [error.GetMessage() for error in errors] == []


def test_usd_refuses_frames_of_different_sizes(record, tmp_path):
    pytest.importorskip("pxr", reason="usd-core is not installed: pip install 'headstart[usd]'")
    with pytest.raises(InputError, match="frame 1 has 60 Gaussians, the first has 50"):
        usd.write_sequence(tmp_path / "head.usdz", [make_cloud(50), make_cloud(60)], record)
    with pytest.raises(InputError, match="no frame"):
        usd.write_sequence(tmp_path / "head.usdz", [], record)
    assert list(tmp_path.iterdir()) == []


def test_usd_takes_frames_one_at_a_time(record, tmp_path):
    pytest.importorskip("pxr", reason="usd-core is not installed: pip install 'headstart[usd]'")
    alive: list[int] = []

    def counted():
        import weakref

        for cloud in clouds(30):
            turned = moved(cloud, np.eye(3))
            weakref.finalize(turned.means, alive.remove, len(alive))
            alive.append(len(alive))
            yield turned
            del turned
            assert len(alive) <= 3

    assert usd.write_sequence(tmp_path / "head.usdc", counted(), record) == 30
