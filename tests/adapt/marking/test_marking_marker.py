"""The one call that marks frames: label and watermark together, and what the statement says of them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from adapt.marking import Marker
from adapt.marking.code import key_id, watermark_key
from adapt.marking.detect import detect
from adapt.marking.marker import WITHOUT_WATERMARK
from configs import InputError

HASH = "fb49c7f7" + 56 * "0"


def picture() -> np.ndarray:
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 255, (64, 64, 3), np.uint8)).resize((384, 384))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(3)))


def test_label_and_watermark_are_laid_together(tmp_path):
    frame = picture()
    marker = Marker(HASH, label="AI")
    Image.fromarray(marker(frame)).save(tmp_path / "a.png")
    (row,) = detect([tmp_path / "a.png"])["files"]
    assert row["avatar"] == HASH[:8]
    assert np.abs(marker(frame).astype(int) - frame)[:60, -60:].max() > 40
    assert marker.fields() == {"watermark": HASH[:8], "watermark_key": key_id(watermark_key())}


def test_without_an_avatar_the_mark_says_synthetic_and_names_none(tmp_path):
    Image.fromarray(Marker("")(picture())).save(tmp_path / "a.png")
    (row,) = detect([tmp_path / "a.png"])["files"]
    assert (row["synthetic"], row["avatar"]) == (True, None)
    assert "no avatar" in row["marks"][-1]["detail"]


def test_without_watermark_and_label_a_frame_is_the_same():
    frame = picture()
    marker = Marker(HASH, watermark=False)
    assert (marker(frame) == frame).all()
    assert marker.fields() == {}
    assert "re-encoded" in WITHOUT_WATERMARK


def test_a_label_that_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match="--label"):
        Marker(HASH, label="")
