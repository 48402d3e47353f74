"""Conversions that videos undergo: re-encoding, scaling, cropping, GIF, JPEG. Used by :mod:`benchmarks.outputs.marking`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

FPS = 25


def decoded(path: Path, most: int | None = None, size: int | None = None) -> list[np.ndarray]:
    """The first frames ``[H, W, 3]`` of a video."""
    import av

    frames: list[np.ndarray] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if size is not None:
                frame = frame.reformat(width=size, height=size, interpolation="AREA")
            frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == most:
                break
    return frames


def encoded(
    frames: list[np.ndarray],
    path: Path,
    codec: str = "libx264",
    *,
    fps: int = FPS,
    size: tuple[int, int] | None = None,
    bit_rate: int | None = None,
    **options: str,
) -> list[np.ndarray]:
    """Encode, scaled to ``(width, height)``, and decode again."""
    import av

    width, height = size or (frames[0].shape[1], frames[0].shape[0])
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width // 2 * 2, height // 2 * 2, "yuv420p"
        if bit_rate:
            stream.bit_rate = bit_rate
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture = picture.reformat(stream.width, stream.height, "yuv420p", interpolation="BICUBIC")
            picture.pts, picture.time_base = i, Fraction(1, fps)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return decoded(path)


def conversions(made: list[np.ndarray], folder: Path) -> Iterator[tuple[str, Callable[[], list[np.ndarray]]]]:
    """What happens to a video of frames ``[S, S, 3]``, by name."""
    side = made[0].shape[0]
    cut = side // 10 // 2 * 2
    cropped = [frame[cut:-cut, cut:-cut] for frame in made]
    gain = {g: [np.clip(np.rint(f * g), 0, 255).astype(np.uint8) for f in made] for g in (0.9, 1.1)}
    longer = [made[int(i * FPS / 30)] for i in range(len(made) * 30 // FPS)]

    def h264(frames: list[np.ndarray], crf: int, **more: Any) -> list[np.ndarray]:
        return encoded(frames, folder / "a.mp4", crf=str(crf), preset="veryfast", **more)

    vp9: dict[str, Any] = {"crf": "34", "deadline": "realtime", "cpu-used": "6"}
    yield "as made (H.264 crf 18)", lambda: made
    yield "H.264 crf 23", lambda: h264(made, 23)
    yield "H.264 crf 28", lambda: h264(made, 28)
    yield "H.264 crf 33", lambda: h264(made, 33)
    yield "VP9 crf 34", lambda: encoded(made, folder / "a.webm", "libvpx-vp9", **vp9)
    yield "H.264 crf 23, then crf 26", lambda: h264(h264(made, 23), 26)
    yield "scaled to 0.5, crf 23", lambda: h264(made, 23, size=(side // 2, side // 2))
    yield "scaled to 2, crf 23", lambda: h264(made, 23, size=(2 * side, 2 * side))
    yield "10 % cut off each side, crf 23", lambda: h264(cropped, 23)
    yield "25 to 30 fps, crf 23", lambda: h264(longer, 23, fps=30)
    yield "30 to 25 fps, crf 23", lambda: h264([f for i, f in enumerate(made) if i % 6], 23)
    yield "brightness +10 %, crf 23", lambda: h264(gain[1.1], 23)
    yield "brightness -10 %, crf 23", lambda: h264(gain[0.9], 23)
    yield (
        "480p, 500 kbit/s",
        lambda: encoded(made, folder / "a.mp4", size=(480, 480), bit_rate=500_000, preset="veryfast"),
    )
    yield "GIF, 320 px, 10 fps", lambda: as_gif(made, folder / "a.gif")
    yield "one frame, JPEG q75", lambda: as_jpeg(made[len(made) // 2])
    yield "crop, scaled to 0.5, crf 28", lambda: h264(cropped, 28, size=(side // 2, side // 2))
    yield "mirrored, crf 23", lambda: h264([frame[:, ::-1] for frame in made], 23)


def as_gif(frames: list[np.ndarray], path: Path) -> list[np.ndarray]:
    """A GIF of 256 colours, and back."""
    from PIL import Image

    chosen = [Image.fromarray(frames[int(i * 2.5)]) for i in range(int(len(frames) / 2.5))]
    small = [image.resize((320, 320), Image.Resampling.BICUBIC).quantize(256) for image in chosen]
    small[0].save(path, save_all=True, append_images=small[1:], duration=100)
    return decoded(path)


def as_jpeg(frame: np.ndarray) -> list[np.ndarray]:
    """One frame as a JPEG of quality 75, and back."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=75)
    return [np.asarray(Image.open(buffer))]
