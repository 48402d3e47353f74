"""Rooms behind the talkers: painted, out of focus, still."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from shards.synthetic.identity import Identity

_BOOKS = (
    (120, 44, 40),
    (42, 66, 92),
    (206, 190, 156),
    (70, 92, 66),
    (150, 110, 60),
    (60, 50, 58),
    (180, 84, 50),
    (222, 218, 208),
)


def background(identity: Identity, size: int) -> np.ndarray:
    """``[size, size, 3]`` float32 display RGB in [0, 1]."""
    rng = np.random.default_rng([identity.seed, 0xBAC])
    base = 255 * identity.wall
    y, x = np.mgrid[0:256, 0:256] / 255.0
    fall = 1.05 - 0.35 * np.hypot(x - rng.uniform(0.2, 0.8), y - rng.uniform(0.0, 0.5))
    image = Image.fromarray(np.clip(base * fall[..., None], 0, 255).astype(np.uint8))
    painter = {"shelf": _shelf, "window": _window, "bokeh": _bokeh, "gradient": _gradient}.get(identity.background)
    if painter:
        image = painter(image, rng, base)
    image = image.resize((size, size), Image.Resampling.BICUBIC)
    grain = rng.standard_normal((size, size, 1)) * 0.006
    return np.clip(np.asarray(image, dtype=np.float32) / 255 + grain, 0, 1).astype(np.float32)


def _gradient(image: Image.Image, rng: np.random.Generator, base: np.ndarray) -> Image.Image:
    draw = ImageDraw.Draw(image, "RGBA")
    edge = rng.uniform(0.15, 0.35) * 256
    draw.rectangle([0, 0, edge, 256], fill=(0, 0, 0, 40))  # a corner of the room
    draw.rectangle([170, 40, 236, 110], fill=(*(int(v) for v in rng.uniform(60, 220, 3)), 180))  # a picture
    return image.filter(ImageFilter.GaussianBlur(5))


def _shelf(image: Image.Image, rng: np.random.Generator, base: np.ndarray) -> Image.Image:
    draw = ImageDraw.Draw(image)
    for row in range(5):
        bottom = 40 + row * 52 + int(rng.integers(-4, 4))
        x = int(rng.integers(-8, 4))
        while x < 256:
            width, height = int(rng.integers(6, 15)), int(rng.integers(26, 42))
            if rng.random() < 0.85:
                shade = rng.uniform(0.45, 0.85)
                color = tuple(int(c * shade) for c in _BOOKS[rng.integers(len(_BOOKS))])
                draw.rectangle([x, bottom - height, x + width, bottom], fill=color)
            x += width + 1
        draw.rectangle([0, bottom, 256, bottom + 5], fill=tuple(int(c * 0.6) for c in base))
    return image.filter(ImageFilter.GaussianBlur(4.5))


def _window(image: Image.Image, rng: np.random.Generator, base: np.ndarray) -> Image.Image:
    draw = ImageDraw.Draw(image)
    left = int(rng.integers(0, 130))
    sky = (214, 228, 240)
    draw.rectangle([left, 10, left + 110, 170], fill=sky)
    for _ in range(26):  # trees
        cx, cy, r = left + rng.uniform(0, 110), rng.uniform(90, 175), rng.uniform(6, 20)
        green = tuple(int(v) for v in np.array((96, 128, 84)) * rng.uniform(0.7, 1.3))
        draw.ellipse([cx - r, cy - r, cx + r, cy + r], fill=green)
    frame = tuple(int(c * 0.85) for c in base)
    draw.rectangle([left - 60, 172, left + 170, 256], fill=frame)
    for x in (left - 5, left + 52, left + 108):
        draw.rectangle([x, 8, x + 6, 172], fill=(236, 234, 228))
    for cover in ([0, 0, left - 5, 256], [left + 115, 0, 256, 256]):
        if cover[2] > cover[0]:
            draw.rectangle(cover, fill=frame)
    return image.filter(ImageFilter.GaussianBlur(5))


def _bokeh(image: Image.Image, rng: np.random.Generator, base: np.ndarray) -> Image.Image:
    image = image.point(lambda v: int(v * 0.4)).filter(ImageFilter.GaussianBlur(10))
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    for _ in range(28):
        draw = ImageDraw.Draw(dot := Image.new("RGBA", image.size, (0, 0, 0, 0)))
        cx, cy, r = rng.uniform(0, 256), rng.uniform(0, 220), rng.uniform(5, 17)
        warm = rng.uniform(0, 1)
        color = (255, int(170 + 60 * warm), int(90 + 120 * warm), int(rng.integers(40, 130)))
        draw.ellipse([cx - r, cy - r, cx + r, cy + r], fill=color)
        layer = Image.alpha_composite(layer, dot)
    image = Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")
    return image.filter(ImageFilter.GaussianBlur(1.6))
