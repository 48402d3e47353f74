"""The watermark: what it survives, how often it is seen where it is not, what it costs a frame.

``python -m benchmarks marking --clips DIR [--rendered VIDEO] [--segments N] [--only survival|alarms|speed]``
"""

from __future__ import annotations

import argparse
import io
import math
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from adapt.marking.search import FALSE_ALARM, Finding, Search, working_size
from adapt.marking.watermark import Watermark
from benchmarks.results import row, stored, write

PAYLOAD = 0x12345678
FPS = 25
SECONDS = 5
# Frames of a video that are added up; the command takes up to 250.
LOOKED_AT = 60
# A segment without a mark: one second, of which every eighth frame is looked at.
SEGMENT, EVERY = 24, 8
SURVIVAL = ("may", "french_a", "tv_05", "stock_coatwoman")


def main() -> None:
    options = _options()
    parts: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
        "speed": speed,
        "survival": survival,
        "alarms": alarms,
    }
    # What is not measured again keeps its rows.
    kept = [r for r in stored("marking") if options.only and not r["case"].startswith(options.only)]
    rows = [r for name, part in parts.items() if options.only in (None, name) for r in part(options)]
    notes = (
        "survival: share of the videos in which the mark is found / whose payload is read right, after H.264 crf 18; "
        f"alarms: segments of one second without a mark; found means a bound of at most {FALSE_ALARM:g}"
    )
    words = [word for i, word in enumerate(sys.argv[1:]) if not {"--clips", "--rendered"} & {word, sys.argv[i]}]
    write("marking", kept + rows, notes, command=shlex.join(["marking", "--clips", "DIR", *words]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks marking")
    parser.add_argument("--clips", type=Path, required=True, help="folder of real videos")
    parser.add_argument("--rendered", type=Path, help="an unmarked video that was rendered")
    parser.add_argument("--survivors", type=int, default=5, help="real clips in the survival table")
    parser.add_argument("--segments", type=int, default=2100, help="segments without a mark, at least")
    parser.add_argument("--only", choices=("speed", "survival", "alarms"))
    return parser.parse_args()


# --- frames in and out ----------------------------------------------------------------------------------------------


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


def searched(frames: list[np.ndarray]) -> Finding:
    """What the detector finds in frames ``[H, W, 3]``."""
    import av

    search = Search(*frames[0].shape[:2])
    rows, columns = working_size(*frames[0].shape[:2])
    for frame in frames[:: max(1, len(frames) // LOOKED_AT)]:
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        search.add(picture.reformat(columns, rows, "gray", interpolation="AREA").to_ndarray())
    return search.finding()


# --- survival -------------------------------------------------------------------------------------------------------


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


def survival(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of every conversion, over real clips at 512 and 256 px and over the rendered video."""
    names = sorted(path.stem for path in options.clips.glob("*.mp4"))
    step = max(1, len(names) // options.survivors)
    chosen = [*SURVIVAL, *(n for n in names[::step] if n not in SURVIVAL)][: options.survivors]
    videos = [options.clips / f"{name}.mp4" for name in chosen if name in names]
    rows = []
    for case, paths, size in (
        ("real clips, 512 px", videos, 512),
        ("rendered video", [options.rendered] if options.rendered else [], 512),
        ("real clips, 256 px", videos[:2], 256),
    ):
        if paths:
            rows += survivors(f"survival, {case}", paths, size)
    return rows


def survivors(case: str, paths: list[Path], size: int) -> list[dict[str, Any]]:
    """Shares of the videos of one kind in which the mark and its payload live on."""
    found: dict[str, list[Finding]] = {}
    quality = []
    for path in paths:
        plain = decoded(path, SECONDS * FPS, size)
        mark = Watermark(PAYLOAD)
        marked = [mark.mark(frame) for frame in plain]
        quality.append(psnr(plain, marked))
        with tempfile.TemporaryDirectory() as folder:
            made = encoded(marked, Path(folder) / "made.mp4", crf="18", preset="veryfast")
            for name, convert in conversions(made, Path(folder)):
                found.setdefault(name, []).append(searched(convert()))
        print(path.stem, size, round(quality[-1], 2), {n: round(f[-1].score, 1) for n, f in found.items()}, flush=True)
    case = f"{case}, {len(paths)} of {SECONDS} s"
    rows = [row(case, "PSNR of the marked frames, lowest", min(quality), "dB", "42 at least")]
    for name, findings in found.items():
        right = float(np.mean([finding.payload == PAYLOAD for finding in findings]))
        rows.append(row(case, f"{name}: found", 100 * float(np.mean([f.found for f in findings])), "%"))
        rows.append(row(case, f"{name}: avatar read", 100 * right, "%"))
        rows.append(row(case, f"{name}: lowest score", min(f.score for f in findings), "sigma"))
    return rows


def psnr(plain: list[np.ndarray], marked: list[np.ndarray]) -> float:
    """Of all frames together, dB."""
    error = np.mean([np.mean((a.astype(np.float32) - b) ** 2) for a, b in zip(plain, marked)])
    return float(10 * np.log10(255**2 / error))


# --- false alarms ---------------------------------------------------------------------------------------------------


def alarms(options: argparse.Namespace) -> list[dict[str, Any]]:
    """How often segments without a mark reach a bound, against the bound itself."""
    kinds: dict[str, list[Finding]] = {}
    for number, (kind, frames) in enumerate(unmarked(options)):
        kinds.setdefault(kind, []).append(searched(frames))
        if number % 100 == 99:
            print(number + 1, {k: len(v) for k, v in kinds.items()}, _extreme(kinds), flush=True)
    logs = np.array([finding.log_bound for findings in kinds.values() for finding in findings])
    case = f"alarms, {len(logs)} segments without a mark"
    rows = [row(case, f"segments: {kind}", len(findings), "segments") for kind, findings in kinds.items()]
    rows.append(row(case, "found", int((logs <= math.log(FALSE_ALARM)).sum()), "segments"))
    rows.append(row(case, "smallest bound", float(np.exp(logs.min())), "", f"{FALSE_ALARM:g} would be found"))
    for power in range(7, -7, -1):
        share = float((logs <= power * math.log(10)).mean())
        rows.append(row(case, f"share with a bound of at most 1e{power}", share, "", "the bound"))
    return rows


def _extreme(kinds: dict[str, list[Finding]]) -> float:
    return round(min(f.log_bound for findings in kinds.values() for f in findings) / math.log(10), 2)


def unmarked(options: argparse.Namespace) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Segments without a mark: made pictures, rendered ones, and real clips as they are, cropped and scaled."""
    yield from generated(300)
    if options.rendered:
        for frames in segments(options.rendered, None):
            yield "rendered", frames
    given = 0
    for kind, size in (("real, as they are", None), ("real, cropped, 320 px", 320), ("real, 256 px", 256)):
        for path in sorted(options.clips.glob("*.mp4")):
            for frames in segments(path, size, crop="cropped" in kind):
                yield kind, frames
                given += 1
            if given >= options.segments:
                return


def segments(path: Path, size: int | None, crop: bool = False) -> Iterator[list[np.ndarray]]:
    """Stretches of a second, every eighth frame."""
    frames = decoded(path)[::EVERY]
    for start in range(0, len(frames) - SEGMENT // EVERY + 1, SEGMENT // EVERY):
        yield [resized(frame, size, crop) for frame in frames[start : start + SEGMENT // EVERY]]


def resized(frame: np.ndarray, size: int | None, crop: bool) -> np.ndarray:
    """A frame cropped by 10 % on each side and scaled to a square."""
    from PIL import Image

    if crop:
        cut = frame.shape[0] // 10
        frame = frame[cut:-cut, cut:-cut]
    return frame if size is None else np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC))


def generated(count: int) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Pictures that could fool a search for waves: noise of several colours, gratings, checkers, dots, gradients."""
    random = np.random.default_rng(7)
    for number in range(count):
        side = int(random.choice([256, 360, 512, 720]))
        y, x = np.mgrid[:side, :side].astype(np.float32)
        angle, wave = random.uniform(0, np.pi), random.uniform(4, 64)
        along = (x * np.cos(angle) + y * np.sin(angle)) / wave
        kind = number % 6
        if kind == 0:
            spectrum = np.fft.rfft2(random.normal(size=(side, side)))
            radius = np.hypot(*np.meshgrid(np.fft.rfftfreq(side), np.fft.fftfreq(side))) + 1 / side
            grey = np.fft.irfft2(spectrum / radius ** random.uniform(0, 2), (side, side))
            grey = 128 + 50 * grey / grey.std()
        elif kind == 1:
            grey = 128 + 100 * np.sin(2 * np.pi * along)
        elif kind == 2:
            grey = 255.0 * ((np.floor(x / wave) + np.floor(y / wave)) % 2)
        elif kind == 3:
            grey = 128 + 60 * np.sin(2 * np.pi * x / wave) + 60 * np.sin(2 * np.pi * y / wave)
        elif kind == 4:
            tile = random.normal(128, 40, size=(int(wave) + 4, int(wave) + 4))
            grey = np.tile(tile, (side // len(tile) + 1,) * 2)[:side, :side]
        else:
            grey = 255 * x / side + random.normal(0, random.uniform(0.3, 4), size=(side, side))
        yield "generated", [np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, 2)]


# --- time -----------------------------------------------------------------------------------------------------------


def speed(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Milliseconds a frame on one thread beside encoding the same frames, in turn in one run."""
    frames = decoded(options.clips / f"{SURVIVAL[0]}.mp4", 2 * FPS, 512)
    mark = Watermark(PAYLOAD)
    mark.mark(frames[0])
    times: dict[str, list[float]] = {"mark": [], "encode": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(5):
            start = time.perf_counter()
            for frame in frames:
                mark.mark(frame)
            middle = time.perf_counter()
            _encode_alone(frames, Path(folder) / "a.mp4")
            times["mark"].append((middle - start) / len(frames))
            times["encode"].append((time.perf_counter() - middle) / len(frames))
    marking, encoding = (1e3 * min(times[name]) for name in ("mark", "encode"))
    case = "speed, 512 px, one frame"
    return [
        row(case, "mark, one thread", marking, "ms", "3 ms"),
        row(case, "H.264 crf 18 veryfast", encoding, "ms", "the mark", encoding / marking),
    ]


def _encode_alone(frames: list[np.ndarray], path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(
            "libx264", rate=FPS, options={"crf": "18", "preset": "veryfast", "threads": "1"}
        )
        stream.width, stream.height, stream.pix_fmt = 512, 512, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
