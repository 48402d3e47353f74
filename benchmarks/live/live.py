"""Live talk: delay by stage, frames per second, memory over time, audio-video sync; with ``--browser`` on a page.

    python -m benchmarks live [--avatar FOLDER] [--speech FILE] [--seconds 20] [--browser] [--soak MINUTES]

Without ``--avatar`` a generated talker is adapted first (150 steps at 256 px). The audio is a generated talker's too, or
that of ``--speech``, in blocks of 20 ms as from a microphone. In the browser it is the microphone of a headless Chromium on
the same machine, so that server and browser share its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.live.live_page import spoken_to
from benchmarks.pictures import bars, save
from benchmarks.results import row, write
from shards.media.sound import read_audio

PIECE = 320  # samples of a microphone's piece, 20 ms
REAL_TIME = "25 frames/s of real time"
ENGINE, MEDIAN, P95 = 160.0, 250.0, 350.0  # ms, the goals
SYNC = 40.0  # ms
MONITOR = "(() => { const m = document.getElementById('monitor'); m.checked = true; m.onchange({target: m}); })()"
# Holds the head still and notes the mouth's brightness in every picture and the loudness of every piece of sound.
WATCH = """(() => { const { player, microphone } = headstart, box = %s, shown = player.shown, give = microphone.give;
  headstart.connection.send('set', { pose: 'still', blink: 'none' });
  headstart.mouth = []; headstart.loudness = [];
  player.shown = (frame, now) => {
    shown(frame, now);
    const [x, y, r, b] = box.map((v) => Math.round(v * player.canvas.width));
    const data = player.pen.getImageData(x, y, r - x, b - y).data;
    headstart.mouth.push([now, data.reduce((sum, v) => sum + v, 0) / data.length]);
  };
  microphone.give = (samples) => {
    headstart.loudness.push([performance.now(), Math.sqrt(samples.reduce((sum, v) => sum + v * v, 0) / samples.length)]);
    return give(samples);
  }; })()"""


def main(arguments: list[str] | None = None) -> None:
    """Measure and write ``results/live.json``, or that of ``--name``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks live")
    parser.add_argument("--avatar", help="folder of the avatar (default: a generated talker, adapted now)")
    parser.add_argument("--speech", metavar="FILE", help="sound that is spoken (default: a generated talker's)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--browser", action="store_true", help="also in a headless Chromium")
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="also hold it so long")
    parser.add_argument("--name", default="live", help="of the result file and of the figure")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="headstart-benchmark-") as place:
        folder = Path(options.avatar) if options.avatar else _made(Path(place))
        rows = asyncio.run(_measured(folder, Path(place), options))
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    notes = f"load of the machine at the end: {load:.1f} processes a core, others' included; run at nice {os.nice(0)}"
    words = list(arguments or sys.argv[1:])
    shown = [
        Path(word).name if before in ("--avatar", "--speech") else word for before, word in zip(["", *words], words)
    ]
    write(options.name, rows, notes, command=" ".join(["live", *shown]))


def _made(place: Path) -> Path:
    """A generated talker's avatar."""
    from benchmarks.adapting import adapt
    from shards.synthetic import synthetic_video

    synthetic_video(3, 12, place / "talker.mp4", size=256)
    adapt(place / "talker.mp4", place / "ada", prior="none", budget="150it", size=256)
    return place / "ada"


async def _measured(folder: Path, place: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    from adapt.avatar.avatar import load_avatar
    from shards.synthetic.generate import make_talker

    avatar = load_avatar(folder)
    if options.speech:
        speech = read_audio(options.speech)
    else:
        speech = make_talker(3).perform(max(10.0, min(options.seconds, 60.0)), 1, 64).audio.astype(np.float32)
    rows = await engine_rows(avatar, speech, options.seconds)
    if options.soak:
        rows += await soak_rows(avatar, speech, 60 * options.soak)
    if options.browser:
        rows += await browser_rows(avatar, speech, options.seconds, place, options.name)
    return rows


async def engine_rows(avatar: Any, speech: np.ndarray, seconds: float) -> list[dict[str, Any]]:
    """A session that hears a microphone: what is between a frame's sound and its picture."""
    from adapt.live.session import LiveSession

    async with LiveSession(avatar) as session:
        await _listened(session, speech, 2.0)
        before, spent = session.stats(), time.process_time()
        run = await _listened(session, speech, seconds)
        spent, waited = time.process_time() - spent, 1000 * session.delay - 40
        after, case = session.stats(), f"engine at {avatar.size}x{avatar.size}, microphone in 20-ms pieces"
        pictures = len(run.delays)
        median, p95 = (float(np.quantile(run.delays, q)) for q in (0.5, 0.95))
        rows = [
            row(case, "end of its sound to picture, median", median, "ms", f"goal <= {ENGINE:g} ms", median / ENGINE),
            row(case, "end of its sound to picture, p95", p95, "ms", f"goal <= {ENGINE:g} ms", p95 / ENGINE),
            row(case, "of these waiting for sound", waited, "ms", f"goal <= {ENGINE:g} ms"),
            *_processor_rows(case, 1000 * spent / max(pictures, 1), waited),
            row(case, "pictures", pictures / run.seconds, "frames/s", REAL_TIME, pictures / run.seconds / 25),
            row(case, "pictures left out", run.dropped, "", "none", run.dropped / run.frames),
        ]
        for stage, spent in after["stages"].items():  # type: ignore[attr-defined]
            spent -= before["stages"].get(stage, 0.0)  # type: ignore[attr-defined]
            per_frame = 1000 * spent / (pictures if stage == "render" else run.frames)
            rows.append(row(case, f"stage: {stage}", per_frame, "ms a frame", "a frame, 40 ms", per_frame / 40))
    return rows


def _processor_rows(case: str, cost: float, waited: float) -> list[dict[str, Any]]:
    """What does not depend on what else the machine does: a frame's processor time, and the delay that follows from it."""
    # A frame may end right after a piece of the microphone's sound began: the worst case.
    alone = waited + 1000 * PIECE / 16_000 + cost
    return [
        row(case, "processor time of all threads", cost, "ms a frame", "a frame, 40 ms", cost / 40),
        row(case, "delay on a free core that follows from it", alone, "ms", f"goal <= {ENGINE:g} ms", alone / ENGINE),
    ]


async def soak_rows(avatar: Any, speech: np.ndarray, seconds: float) -> list[dict[str, Any]]:
    """A microphone for minutes: memory, delay and drift at the beginning and at the end."""
    from adapt.live.session import LiveSession

    curve: list[float] = []
    async with LiveSession(avatar) as session:
        await _listened(session, speech, 10.0)
        run = await _listened(session, speech, seconds, lambda: curve.append(_memory()))
    case = f"{seconds / 60:g} minutes at {avatar.size}x{avatar.size}"
    first, tenth = curve[0], max(1, len(run.delays) // 10)
    early, late = (float(np.median(part)) for part in (run.delays[:tenth], run.delays[-tenth:]))
    return [
        row(case, "memory at the end", curve[-1], "MB", f"{first:.0f} MB at the beginning", curve[-1] / first),
        row(case, "memory, highest", max(curve), "MB", f"{first:.0f} MB at the beginning", max(curve) / first),
        row(case, "delay at the end", late, "ms", f"{early:.0f} ms at the beginning", late / early),
        row(case, "time line behind the microphone's", 1000 * (run.seconds - run.frames / 25), "ms", "no drift"),
        row(case, "frames", run.frames / run.seconds, "frames/s", REAL_TIME, run.frames / run.seconds / 25),
        row(case, "pictures left out", run.dropped, "", "none", run.dropped / run.frames),
    ]


class _Run:
    """What came out while a session heard something: ms from the last sound to each picture, and counts."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.frames = self.dropped = 0
        self.seconds = 0.0


async def _listened(session: Any, speech: np.ndarray, seconds: float, look: Callable[[], None] = lambda: None) -> _Run:
    """Push sound at the pace of a microphone, in a loop, and take the frames; ``look`` is called every 5 s."""
    run = _Run()

    async def microphone() -> None:
        begin, at = time.monotonic(), 0
        while at < seconds * 16_000:
            start = at % (len(speech) - PIECE)
            session.push(speech[start : start + PIECE])
            at += PIECE
            await asyncio.sleep(max(0.0, begin + at / 16_000 - time.monotonic()))

    pushing, begin = asyncio.create_task(microphone()), time.monotonic()
    while not pushing.done():
        frame = await session.__anext__()
        if run.frames % 125 == 0:
            look()
        run.frames += 1
        if frame.image is None:
            run.dropped += 1
        elif frame.live:
            run.delays.append(1000 * frame.delay)
    await pushing
    run.seconds = time.monotonic() - begin
    return run


def _memory() -> float:
    """Of this process now, MB."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


async def browser_rows(
    avatar: Any, speech: np.ndarray, seconds: float, place: Path, name: str = "live"
) -> list[dict[str, Any]]:
    """The page in a headless Chromium: from the microphone's sound to the picture on the canvas, and the lips' sync."""
    async with spoken_to("avatar", avatar, speech, place) as (page, _):
        await page.run("document.getElementById('microphone').click()")
        await page.until("headstart.delays.length > 25", 60)
        await page.run("headstart.delays.length = headstart.pictures.length = 0")
        await asyncio.sleep(seconds)
        delays, pictures = await page.run("[headstart.delays, headstart.pictures]")
        await page.run(WATCH % json.dumps(_mouth(avatar)))
        await asyncio.sleep(seconds)
        loudness, mouth = await page.run("[headstart.loudness, headstart.mouth]")
        await page.run(MONITOR)
        await page.until("headstart.player.offsets.length > 50", 60)
        await page.run("headstart.player.offsets.length = 0")
        await asyncio.sleep(seconds / 2)
        offsets = await page.run("headstart.player.offsets")
    case = f"page at {avatar.size}x{avatar.size}, headless Chromium"
    draw_delays(case, delays, name)
    lag, agreement = mouth_lag(np.array(loudness), np.array(mouth))
    rows = _page_rows(case, delays, pictures, offsets)
    return [*rows, row(case, f"mouth's pixels behind loudness, r {agreement:.2f}", lag, "ms", f"goal <= {MEDIAN:g} ms")]


def draw_delays(case: str, delays: list[float], name: str = "live") -> None:
    """The page's delays as ``docs/images/NAME-delay.svg``."""
    step, last = 10.0, 500.0
    counts = np.histogram(np.minimum(delays, last - 1), np.arange(0, last + step, step))[0]
    marks = {"median": float(np.median(delays)), "p95": float(np.quantile(delays, 0.95)), "goal, median": MEDIAN}
    load = os.getloadavg()[0]
    title = f"Microphone to picture: {case}, {len(delays)} pictures, load {load:.1f} on {os.cpu_count()} cores"
    save(f"{name}-delay", [(title, bars([int(c) for c in counts], 0.0, step, marks, "ms"))])


def _mouth(avatar: Any) -> list[float]:
    """Where the mouth is while the head holds still: left, top, right, bottom as shares of the frame."""
    from adapt.talk.poses import still_pose
    from heads.rig import facemesh

    frame = still_pose(avatar.track["rotation"], avatar.track["translation"])
    lips = avatar.track["landmarks"][frame][list(facemesh.INNER_UPPER + facemesh.INNER_LOWER), :2] / avatar.size
    (x0, y0), (x1, y1) = lips.min(0), lips.max(0)
    return [float(v) for v in (x0 - 0.02, y0 - 0.01, x1 + 0.02, y1 + 0.05)]


def mouth_lag(loudness: np.ndarray, mouth: np.ndarray) -> tuple[float, float]:
    """By how many ms a mouth's brightness follows the loudness at the microphone, and how well: the lag of the best
    correlation.

    Args:
        loudness, mouth: ``[n, 2]``: ms and value.
    """
    grid = np.arange(max(loudness[0, 0], mouth[0, 0]) + 700, min(loudness[-1, 0], mouth[-1, 0]), 10.0)
    seen = np.interp(grid, *mouth.T)
    # The ear's measure of loudness, blurred as far as a frame blurs it.
    heard = np.convolve(np.log(loudness[:, 1] + 100), np.ones(3) / 3, "same")
    found = [np.corrcoef(seen, np.interp(grid - lag, loudness[:, 0], heard))[0, 1] for lag in range(0, 600, 10)]
    best = int(np.argmax(np.abs(found)))
    return 10.0 * best, float(found[best])


def _page_rows(case: str, delays: list[float], pictures: list[float], offsets: list[float]) -> list[dict[str, Any]]:
    rate = (len(pictures) - 1) / (pictures[-1] - pictures[0]) * 1000
    median, p95 = (float(np.quantile(delays, q)) for q in (0.5, 0.95))
    away = float(np.quantile(np.abs(offsets), 0.95))
    shares = np.histogram(delays, [0, 150, 175, 200, 225, 250, 300, 350, np.inf])[0] / len(delays)
    spread = ", ".join(f"{share:.0%}" for share in shares)
    return [
        row(case, "microphone to picture, median", median, "ms", f"goal <= {MEDIAN:g} ms", median / MEDIAN),
        row(case, "microphone to picture, p95", p95, "ms", f"goal <= {P95:g} ms", p95 / P95),
        row(case, "pictures", rate, "frames/s", REAL_TIME, rate / 25),
        row(case, "lips behind their sound, median", float(np.median(offsets)), "ms", f"goal +-{SYNC:g} ms"),
        row(case, "lips away from their sound, p95", away, "ms", f"goal +-{SYNC:g} ms", away / SYNC),
        row(case, "pictures measured", len(delays), "", f"shares to 150/175/200/225/250/300/350 ms: {spread}"),
    ]
