import os
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest

from adapt.clip import TRACK_FIELDS, Clip, _Part
from adapt.evaluate.drives import _motion
from heads.person.inputs import TRACKED

SIDE, FRAMES = 8, 3


def segment(value: int) -> _Part:
    """Three frames in which everything is ``value``."""
    track = {name: np.full((FRAMES, 2), value, np.float32) for name in TRACK_FIELDS}
    return _Part(
        frames=np.full((FRAMES, SIDE, SIDE, 3), value, np.uint8),
        matte=np.full((FRAMES, SIDE, SIDE), value, np.uint8),
        track={**track, "intrinsics": np.eye(3), "identity": np.zeros(4)},
        audio=np.zeros(FRAMES * 640, np.float32),
        crop_box=(0, 0, SIDE, SIDE),
    )


def test_frames_of_all_segments_are_found_in_any_order():
    with Clip(SIDE) as clip:
        for value in range(4):
            clip.append(segment(value))
        assert len(clip) == 12
        assert clip.frames([10, 0, 4, 4])[:, 0, 0, 0].tolist() == [3, 0, 1, 1]
        assert clip.mattes(np.array([11]))[0, 0, 0] == pytest.approx(3 / 255)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files in /proc")
def test_a_long_clip_opens_no_more_files_than_a_short_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Clip(SIDE) as clip:
        clip.append(segment(0))
        before = len(os.listdir("/proc/self/fd"))
        for value in range(1, 100):
            clip.append(segment(value))
        assert len(os.listdir("/proc/self/fd")) == before
        assert clip.frames([298])[0, 0, 0, 0] == 99
        assert not list(tmp_path.iterdir())  # nothing that a killed process could leave behind


def test_the_background_moves_in_clips_whose_camera_does_and_tests_follow_it_where_it_stands_elsewhere():
    def track(shift: np.ndarray, quality: float) -> dict[str, np.ndarray]:
        background = np.zeros((FRAMES, 6), np.float32)
        background[:, 0] = shift
        return {"background": background, "background_quality": np.full(FRAMES, quality, np.float32)}

    avatar = SimpleNamespace(track=dict.fromkeys((*TRACKED, "background")))
    for shift, quality, moves in (
        (np.array([0, 0.1, 0.2]), 0.9, True),
        (np.array([0, 0.1, 0.2]), 0.1, False),  # people walk behind
        (np.array([0.1, 0.1, 0.1]), 0.9, False),  # stands still where the avatar's camera did not
    ):
        with Clip(SIDE) as clip:
            part = segment(0)
            part.track |= track(shift, quality)
            clip.append(part)
            assert clip.behind == (("background",) if moves else ())
            assert ("background" in clip.motion()) == moves
            np.testing.assert_array_equal(_motion(avatar, clip)["background"], clip.track["background"])
            assert "background" not in _motion(SimpleNamespace(track=dict.fromkeys(TRACKED)), clip)
