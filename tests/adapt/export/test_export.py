"""The command: an avatar's frame, its controls, its pose, and the head while it speaks."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from adapt.avatar.avatar import load_avatar
from adapt.avatar.export import format_of, ply
from adapt.export import SpeakingHead, export, still_cloud
from configs import InputError
from tests.support.sounds import voice


@pytest.fixture(scope="module")
def avatar(ada):
    return ada


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A second of a synthetic voice: sounds without a voice rest the lips."""
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    soundfile.write(path, voice(1.0)[:16_000], 16_000)
    return path


@pytest.mark.parametrize("suffix", [".ply", ".glb", ".spz"])
def test_a_frame_is_written_in_every_format(suffix, avatar, tmp_path):
    done = export(avatar, tmp_path / f"head{suffix}", frame=3)
    truth = still_cloud(load_avatar(avatar, "cpu"), 3)
    assert (done["gaussians"], done["frames"], done["axes"]) == (truth.n, 1, "opengl")
    assert done["bytes"] == (tmp_path / f"head{suffix}").stat().st_size
    assert np.allclose(format_of(done["out"]).read(done["out"]).means, truth.means, atol=1e-6)
    said = format_of(done["out"]).read_record(done["out"])
    assert said["statement"].startswith("Synthetic head made with headstart")
    assert len(said["avatar_sha256"]) == 64


def test_controls_change_the_face_and_zero_does_not(avatar):
    opened = load_avatar(avatar, "cpu")
    plain, same = still_cloud(opened, 3), still_cloud(opened, 3, {"jaw": 0.0})
    # The frame's neighbours are now the frame itself, so colours may differ; the shape hardly does.
    assert np.abs(plain.means - same.means).max() < 2e-3
    opened_jaw = still_cloud(opened, 3, {"jaw": 1.0})
    assert 0.003 < np.abs(opened_jaw.means - same.means).max() < 0.05
    smile = still_cloud(opened, None, {"smile": 1.0})
    assert np.abs(smile.means - still_cloud(opened, None, {"smile": 0.0}).means).max() > 0.003


def test_angles_turn_the_head(avatar, tmp_path):
    straight = ply.read(export(avatar, tmp_path / "straight.ply")["out"])
    turned = ply.read(export(avatar, tmp_path / "turned.ply", yaw=90)["out"])
    # Positive yaw takes the nose, which looks along -z, to the picture's right, +x.
    assert np.allclose(turned.means[:, 0], -straight.means[:, 2], atol=1e-6)
    assert np.allclose(turned.means[:, 1], straight.means[:, 1], atol=1e-6)


def test_axes_are_those_asked_for(avatar, tmp_path):
    table = {}
    for axes in ("opencv", "opengl"):
        done = export(avatar, tmp_path / f"{axes}.ply", axes=axes)
        data = (tmp_path / f"{axes}.ply").read_bytes()
        end = data.index(b"end_header\n") + len(b"end_header\n")
        table[axes] = np.frombuffer(data, "<f4", offset=end).reshape(done["gaussians"], 17)[:, :3]
    assert np.array_equal(table["opengl"], table["opencv"] * [1, -1, -1])


def test_a_clip_becomes_a_folder_of_ply_files(avatar, tmp_path):
    done = export(avatar, tmp_path / "frames", as_frames=True)
    opened = load_avatar(avatar, "cpu")
    assert done["frames"] == len(opened.track["rotation"]) == len(list((tmp_path / "frames").glob("*.ply")))
    assert np.allclose(ply.read(tmp_path / "frames" / "000007.ply").means, still_cloud(opened, 7).means, atol=1e-6)


def test_a_spoken_sound_becomes_frames_whose_jaw_moves(avatar, speech, tmp_path):
    done = export(avatar, tmp_path / "frames", as_frames=True, audio=speech, blink="none")
    assert done["frames"] == 25
    clouds = [ply.read(tmp_path / "frames" / f"{i:06d}.ply") for i in range(25)]
    motion = np.stack([cloud.means for cloud in clouds]).std(0).max(1)
    assert motion.max() > 1e-3  # the jaw, metres
    assert np.median(motion) < motion.max() / 4  # the skull stays


def test_a_moving_pose_moves_the_head_as_a_whole(avatar, speech):
    opened = load_avatar(avatar, "cpu")
    sound = soundfile.read(speech, dtype="float32")[0]

    def clouds(pose):
        talker = SpeakingHead(opened, pose=pose, blink="none")
        return [*talker.feed(sound), *talker.finish()]

    still, moving = clouds("still"), clouds("clip")
    assert len(still) == len(moving) == 25
    spread = np.stack([cloud.means.mean(0) for cloud in moving]).std(0).max()
    assert spread > 2 * np.stack([cloud.means.mean(0) for cloud in still]).std(0).max()


def test_usd_holds_the_spoken_sound(avatar, speech, tmp_path):
    pytest.importorskip("pxr", reason="usd-core is not installed: pip install 'headstart[usd]'")
    from adapt.avatar.export import usd

    done = export(avatar, tmp_path / "head.usdz", audio=speech, blink="none")
    assert (done["format"], done["frames"]) == ("usdz", 25)
    means = np.stack([usd.read(done["out"], frame).means for frame in (0, 8, 16, 24)])
    assert means.std(0).max() > 1e-4
    assert usd.read_record(done["out"])["audio"] == "speech.wav"


def test_what_cannot_be_is_refused_before_any_work(speech, tmp_path):
    nowhere = tmp_path / "no-avatar"
    with pytest.raises(InputError, match=r"suffix '\.obj' is not an export format"):
        export(nowhere, tmp_path / "head.obj")
    with pytest.raises(InputError, match=r"single frame; --audio needs \.usdc or \.usdz, or --frames DIR"):
        export(nowhere, tmp_path / "head.glb", audio=speech)
    with pytest.raises(InputError, match="--frame and --audio contradict"):
        export(nowhere, tmp_path / "head.usdc", audio=speech, frame=3)
    with pytest.raises(InputError, match="--pose clip moves a speaking head"):
        export(nowhere, tmp_path / "head.ply", pose="clip")
    with pytest.raises(InputError, match="expected opencv or opengl"):
        export(nowhere, tmp_path / "head.ply", axes="y-up")
    assert not any(tmp_path.glob("head*"))


def test_unknown_frames_controls_and_angles_are_refused(avatar, tmp_path):
    with pytest.raises(InputError, match="frames 0 to"):
        export(avatar, tmp_path / "head.ply", frame=9999)
    with pytest.raises(InputError, match="no control 'wink'"):
        export(avatar, tmp_path / "head.ply", controls=["wink=1"])
    with pytest.raises(InputError, match="degrees from -180 to 180"):
        export(avatar, tmp_path / "head.ply", yaw=400)
    (tmp_path / "head.ply").write_text("mine")
    with pytest.raises(InputError, match="exists"):
        export(avatar, tmp_path / "head.ply")
    assert (tmp_path / "head.ply").read_text() == "mine"


def test_blendshapes_move_the_head_in_place_of_the_sound(avatar, speech):
    from adapt.drivers.arkit import NAMES, arkit_map
    from adapt.drivers.blendshapes import BlendshapeDriver, Blendshapes

    opened = load_avatar(avatar, "cpu")
    jaw = np.clip(np.sin(np.arange(25) / 3), 0, 1)
    weights = np.zeros((25, 52), np.float32)
    weights[:, NAMES.index("jawOpen")] = 0.3 * jaw
    opened.driver = BlendshapeDriver(arkit_map(opened.rig), Blendshapes(weights, (np.arange(25) + 0.5) / 25))
    talker = SpeakingHead(opened, blink="none")
    sound = soundfile.read(speech, dtype="float32")[0]
    means = np.stack([cloud.means for cloud in [*talker.feed(sound), *talker.finish()]])
    follows = np.abs(means[:, :, 1] - means[:1, :, 1])
    moving = follows.std(0) > 0.5 * follows.std(0).max()
    assert np.corrcoef(follows[:, moving].mean(1), jaw)[0, 1] > 0.95
