"""The visible label: legible on any ground, in its corner, refused when it cannot be drawn."""

from __future__ import annotations

import numpy as np
import pytest

from adapt.marking.label import CORNERS, Label
from configs import InputError


def luminance(grey: float) -> float:
    """Relative luminance of an sRGB grey level, as WCAG defines it."""
    value = grey / 255
    return value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4


@pytest.mark.parametrize("ground", [0, 60, 128, 200, 255])
def test_letters_stand_out_from_the_plate_on_any_ground(ground: int) -> None:
    frame = np.full((256, 256, 3), ground, np.uint8)
    place = Label("AI").burn(frame)[8:36, 210:250, 0]
    light, dark = luminance(place.max()), luminance(np.percentile(place, 30))
    assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize("corner", CORNERS)
def test_only_the_chosen_corner_changes(corner: str) -> None:
    frame = np.full((300, 400, 3), 90, np.uint8)
    rows, columns = np.nonzero((Label("AI", corner=corner).burn(frame) != frame).any(2))
    assert len(rows)
    assert (rows.max() < 150) == ("top" in corner)
    assert (columns.max() < 200) == ("left" in corner)


def test_the_frame_given_is_left_as_it_is_and_equal_frames_stay_equal() -> None:
    frame = np.full((128, 128, 3), 90, np.uint8)
    label = Label("AI")
    first, second = label.burn(frame), label.burn(frame)
    assert (frame == 90).all()
    assert (first == second).all()


def test_a_label_on_transparent_ground_can_be_seen() -> None:
    frame = np.zeros((128, 128, 4), np.uint8)
    assert Label("AI").burn(frame)[..., 3].max() >= 240


@pytest.mark.parametrize("size", [(24, 20), (64, 512), (512, 64)])
def test_a_long_text_stays_inside_small_frames(size: tuple[int, int]) -> None:
    frame = np.full((*size, 3), 90, np.uint8)
    burned = Label("AI-generated video of a person").burn(frame)
    assert burned.shape == frame.shape
    assert (burned != frame).any()


@pytest.mark.parametrize("text", ["", "   ", "a\nb", "x" * 41, "合成"])
def test_a_text_that_cannot_be_drawn_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--label"):
        Label(text)


def test_an_unknown_corner_is_refused() -> None:
    with pytest.raises(InputError, match="bottom right"):
        Label("AI", corner="middle")


def test_frames_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        Label("AI").burn(np.zeros((8, 8, 3), np.float32))
