"""Draws a small visible label into frames: light letters on a dark plate, legible on any background."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from configs import InputError

CORNERS = ("top left", "top right", "bottom left", "bottom right")
# Height of the letters, and distance from the edges, in parts of the frame's shorter side.
LETTERS, MARGIN = 0.045, 0.03
SMALLEST_LETTERS = 10  # px
LONGEST_TEXT = 40  # characters
# Opacity of the plate: the letters keep a contrast of more than 4.5 to 1 on a white background too. Grey levels, 0 to 255.
PLATE_ALPHA, PLATE_GREY, LETTER_GREY = 0.78, 16, 255


class Label:
    """Draws a text into a corner of frames.

    Args:
        text: such as ``AI``; one line.
        corner: one of ``CORNERS``. The EU's Code of Practice of June 2026 suggests the top right one.

    Raises:
        InputError: no text, too long a text, characters that cannot be drawn, or an unknown corner.
    """

    def __init__(self, text: str = "AI", *, corner: str = "top right") -> None:
        text = text.strip()
        if not text or len(text) > LONGEST_TEXT or not text.isprintable():
            raise InputError(f"--label {text!r}: expected one line of 1 to {LONGEST_TEXT} printable characters")
        strange = "".join(sorted({c for c in text if not _drawable(c)}))
        if strange:
            raise InputError(f"--label {text!r}: the built-in font cannot draw {strange!r}; use Latin letters")
        if corner not in CORNERS:
            raise InputError(f"label corner {corner!r}: expected one of {', '.join(CORNERS)}")
        self.text, self.corner = text, corner

    def burn(self, frame: np.ndarray) -> np.ndarray:
        """A copy of a frame ``[H, W, 3 or 4]`` uint8 with the label, which also raises alpha where there is any."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] not in (3, 4):
            raise ValueError(f"frame is {frame.dtype} {frame.shape}, expected uint8 [H, W, 3 or 4]")
        grey, alpha = _plate(self.text, *frame.shape[:2])
        rows, columns = grey.shape
        top, left = self._place(frame.shape[0], frame.shape[1], rows, columns)
        out = frame.copy()
        place = out[top : top + rows, left : left + columns]
        weight = alpha[..., None]
        place[..., :3] = np.rint(place[..., :3] * (1 - weight) + (grey * alpha)[..., None]).astype(np.uint8)
        if frame.shape[2] == 4:
            place[..., 3] = np.maximum(place[..., 3], np.rint(255 * alpha).astype(np.uint8))
        return out

    def _place(self, height: int, width: int, rows: int, columns: int) -> tuple[int, int]:
        margin = round(MARGIN * min(height, width))
        top = margin if "top" in self.corner else height - rows - margin
        left = margin if "left" in self.corner else width - columns - margin
        return min(max(0, top), height - rows), min(max(0, left), width - columns)


def _drawable(character: str) -> bool:
    """Whether the font has a shape of its own for a character."""
    from PIL import ImageFont

    font = ImageFont.load_default(SMALLEST_LETTERS * 2)
    missing = bytes(font.getmask("\uffff"))
    return character == " " or bytes(font.getmask(character)) != missing


@lru_cache(maxsize=8)
def _plate(text: str, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey value and opacity of the label, float32 ``[h, w]``, no larger than the frame."""
    from PIL import Image, ImageDraw, ImageFont

    size = max(SMALLEST_LETTERS, round(LETTERS * min(height, width)))
    left, top, right, bottom = ImageFont.load_default(size).getbbox(text)
    pad = round(0.45 * size)
    # A long text on a small frame is set smaller, down to 6 px.
    room = (width - 2 * pad) / max(1, right - left)
    if room < 1:
        size = max(6, int(size * room))
        left, top, right, bottom = ImageFont.load_default(size).getbbox(text)
        pad = max(1, round(0.45 * size))
    columns, rows = (
        min(int(n), limit) for n, limit in ((right - left + 2 * pad, width), (bottom - top + 2 * pad, height))
    )
    letters = Image.new("L", (columns, rows), 0)
    ImageDraw.Draw(letters).text((pad - left, pad - top), text, fill=255, font=ImageFont.load_default(size))
    plate = Image.new("L", (columns, rows), 0)
    ImageDraw.Draw(plate).rounded_rectangle((0, 0, columns - 1, rows - 1), radius=pad, fill=255)
    ink = np.asarray(letters, np.float32) / 255
    alpha = np.maximum(np.asarray(plate, np.float32) / 255 * PLATE_ALPHA, ink)
    return PLATE_GREY + (LETTER_GREY - PLATE_GREY) * ink, alpha
