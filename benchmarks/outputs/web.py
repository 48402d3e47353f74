"""The exported page in a headless Chromium: size, first frame, ms per frame by stage, frame rate, PSNR against ``talk``.

    python -m benchmarks web [--avatar FOLDER] [--sound FILE] [--onnxruntime DIR] [--picture FILE.png]

Without ``--avatar`` a generated talker is adapted first (300 steps at 256 px); without ``--sound`` the audio is another
generated talker's. The browser draws in software, as without a GPU: by WebGL2 (SwiftShader) and by the page's own
rasteriser.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import chromium
from benchmarks.results import row, write
from heads.measures.image import psnr

SECONDS = 5  # of speech that frames are compared over
PSNR, FPS, SIZE, FIRST = 35.0, 25.0, 6.0, 3.0  # dB, frames/s, MB, s: the goals
FRAME = 1000 / FPS  # ms
READY = "self.headstart?.page?.driver && headstart.player.first"
SPEAK = """(async () => {
  const samples = await headstart.decode(Uint8Array.from(atob('%s'), (c) => c.charCodeAt(0)).buffer);
  headstart.samples = samples;
  const begin = performance.now(), speech = headstart.page.driver.speech(false);
  await speech.feed(samples);
  await speech.finish();
  headstart.said = speech;
  return [performance.now() - begin, speech.end]; })()"""
PICTURE = """(() => { const bytes = headstart.player.picture(%d); let text = '';
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text); })()"""
# Notes the number of every frame that is drawn from now on.
COUNT = """(() => { const player = headstart.player, draw = player.render.bind(player);
  player.seenAt = [];
  player.render = () => { draw(); player.seenAt.push(player.number); }; })()"""
# Medians of 100 frames, each waited for.
STAGES = """(() => { const player = headstart.player, waits = [];
  player.times = {};
  for (let i = 0; i < 100; i++) {
    player.number = i;
    player.render();
    const begin = performance.now();
    player.renderer.wait?.();
    waits.push(performance.now() - begin);
  }
  const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
  const stages = Object.fromEntries(Object.entries(player.times).map(([name, values]) => [name, median(values)]));
  const total = median(player.times.total.map((value, i) => value + waits[i]));
  return { ...stages, wait: median(waits), total }; })()"""


def main(arguments: list[str] | None = None) -> None:
    """Measure and write ``results/web.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks web")
    parser.add_argument("--avatar", help="folder of the avatar (default: a generated talker, adapted now)")
    parser.add_argument("--sound", help="what it says (default: another generated talker)")
    parser.add_argument("--onnxruntime", metavar="DIR", help="npm's onnxruntime-web, for an avatar with a prior")
    parser.add_argument("--picture", metavar="FILE.png", help="also a screenshot while it speaks")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="headstart-benchmark-") as place:
        rows = asyncio.run(_measured(Path(place), options))
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    notes = f"headless Chromium without a GPU; load of the machine at the end: {load:.1f} processes a core, others' included"
    # Names alone: where they lie is this machine's affair.
    given = {"--avatar": options.avatar, "--sound": options.sound}
    named = [word for name, path in given.items() if path is not None for word in (name, Path(path).name)]
    write("web", rows, notes, command=" ".join(["web", *named]))


async def _measured(place: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    from adapt.web.export import export_web

    folder = Path(options.avatar) if options.avatar else generated_avatar(place)
    sound = sound_file(place, options.sound)
    written = export_web(folder, place / "page", onnxruntime=options.onnxruntime)
    own = sum(size for name, size in written["files"].items() if not name.startswith(("ort", "encoder")))
    case = f"{written['gaussians']} Gaussians, moved by {written['driver'].split(' (')[0]}"
    rows = [
        row(case, "size without encoder and onnxruntime", own / 1e6, "MB", f"goal <= {SIZE:g} MB", own / 1e6 / SIZE)
    ]
    frames, video = _spoken(folder, sound, place)
    data = base64.b64encode(sound.read_bytes()).decode()
    with chromium.served(place / "page") as url:
        for renderer in ("webgl", "processor"):
            async with chromium.opened(f"{url}?renderer={renderer}") as page:
                await page.until(READY, 60)
                rows += await _page_rows(page, case, renderer, data, frames, video)
        async with chromium.opened(url) as page:
            await page.call("Performance.enable", timeDomain="threadTicks")
            await page.until(READY, 60)
            rows += await _speaking_rows(page, case, data, options.picture)
    return rows


def generated_avatar(place: Path) -> Path:
    """A generated talker's avatar."""
    from benchmarks.adapting import adapt
    from shards.synthetic import synthetic_video

    synthetic_video(900, 8, place / "talker.mp4", size=256)
    adapt(place / "talker.mp4", place / "ada", prior="none", budget="300it", size=256)
    return place / "ada"


def sound_file(place: Path, source: str | Path | None) -> Path:
    """Five seconds as a WAV file that page and ``talk`` read in the same way."""
    import soundfile

    from shards.media.rates import SAMPLE_RATE
    from shards.media.sound import read_audio
    from shards.synthetic.generate import make_talker

    samples = make_talker(3).perform(float(SECONDS), 1, 64).audio if source is None else read_audio(source)
    soundfile.write(place / "said.wav", samples[: SECONDS * SAMPLE_RATE], SAMPLE_RATE, subtype="FLOAT")
    return place / "said.wav"


def _spoken(folder: Path, sound: Path, place: Path) -> tuple[np.ndarray, np.ndarray]:
    """What Python draws ``[T, H, W, 3]`` in [0, 1], and what is in the video that ``talk`` writes of it."""
    from adapt.avatar.avatar import load_avatar
    from adapt.talk.talk import talk
    from adapt.talk.talker import Talker
    from shards.media.decode import read_video
    from shards.media.sound import read_audio

    talker = Talker(load_avatar(folder, "cpu"), background="model")
    frames = np.stack([*talker.feed(read_audio(sound)), *talker.finish()])
    talk(folder, sound, place / "talk.mp4", background="model", device="cpu")
    return frames, np.stack(list(read_video(place / "talk.mp4"))) / 255


async def _page_rows(
    page: chromium.Page, case: str, renderer: str, data: str, frames: np.ndarray, video: np.ndarray
) -> list[dict[str, Any]]:
    name = {"webgl": "WebGL2 in software", "processor": "the page's rasteriser"}[renderer]
    first = await page.run("headstart.player.first")
    rows = [row(case, f"{name}: first frame", first / 1000, "s", f"goal <= {FIRST:g} s", first / 1000 / FIRST)]
    await page.run("headstart.player.due = () => -1")
    spent, count = await page.run(SPEAK % data)
    assert count == len(frames), f"the page says {count} frames, Python {len(frames)}"
    rows.append(
        row(case, f"{name}: sound to expressions", spent / count, "ms a frame", "a frame, 40 ms", spent / count / FRAME)
    )
    await page.run("headstart.player.motion.speech = headstart.said")
    drawn, written = [], []
    for number in range(0, count, 5):
        size = frames.shape[1]
        picture = (
            np.frombuffer(base64.b64decode(await page.run(PICTURE % number)), np.uint8).reshape(size, size, 3) / 255
        )
        drawn.append(psnr(picture, frames[number]))
        written.append(psnr(picture, video[number]))
    for what, found in (("Python's frames", drawn), ("the video of talk, coded and watermarked", written)):
        mean = float(np.mean(found))
        rows.append(row(case, f"{name}: PSNR against {what}, mean", mean, "dB", f"goal >= {PSNR:g} dB", mean / PSNR))
    for stage, value in (await page.run(STAGES)).items():
        rows.append(row(case, f"{name}: {stage}", value, "ms a frame", "a frame, 40 ms", value / FRAME))
    return rows


async def _speaking_rows(page: chromium.Page, case: str, data: str, picture: str | None) -> list[dict[str, Any]]:
    """The page as it is, while it is heard: different frames shown a second, of the 25 that there are."""
    await page.run(SPEAK % data)
    await page.run("headstart.page.speak(headstart.samples); 0")
    await page.until("headstart.player.playback && headstart.player.number > 12", 60)
    await page.run(COUNT)
    before = await _thread_time(page)
    await page.until("!headstart.player.motion.speech || headstart.player.number > 110", 60)
    numbers, spent = await page.run("headstart.player.seenAt"), await _thread_time(page) - before
    spoken = {n for n in numbers if 12 < n <= 110}
    shown = FPS * len(spoken) / (max(spoken) - min(spoken) + 1)
    name = await page.run("headstart.player.renderer.name")
    each = 1000 * spent / len(numbers)
    if picture is not None:  # after what is measured: a screenshot takes as long as several frames
        await page.run("headstart.page.speak(headstart.samples); 0")
        await page.until("headstart.player.playback && headstart.player.number > 50", 60)
        await page.screenshot(picture)
    return [
        row(case, f"while it speaks, drawn by {name}", shown, "frames/s", f"goal >= {FPS:g}", shown / FPS),
        row(
            case,
            "while it speaks, processor time of the page's thread",
            each,
            "ms a frame",
            "a frame, 40 ms",
            each / FRAME,
        ),
    ]


async def _thread_time(page: chromium.Page) -> float:
    """Processor time of the page's main thread, seconds: other programs do not count."""
    metrics = await page.call("Performance.getMetrics")
    return float(next(each["value"] for each in metrics["metrics"] if each["name"] == "TaskDuration"))


if __name__ == "__main__":
    main(sys.argv[1:])
