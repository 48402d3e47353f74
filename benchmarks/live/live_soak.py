"""A live page that speaks for minutes without a pause: memory, queues, delay, audio-video sync, frames per second.

    python -m benchmarks live_soak [--avatar FOLDER] [--minutes 10]

Server and headless Chromium run on one machine, the microphone is a file in a loop, and the page plays the audio in sync with
the lips. A sample is taken every 10 s. The curve goes to ``docs/images/live-soak.svg``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import pictures
from benchmarks.live.live import MONITOR, PIECE, REAL_TIME, SYNC, _made, _memory
from benchmarks.live.live_page import spoken_to
from benchmarks.results import row, write

EVERY = 10.0  # s of a sample
# What came since the last sample; the page's own lists are emptied.
TAKE = """(() => { const h = headstart, heap = performance.memory ? performance.memory.usedJSHeapSize : 0;
  return { delays: h.delays.splice(0), offsets: h.player.offsets.splice(0), pictures: h.pictures.splice(0),
    waiting: h.player.waiting.length, unheard: h.player.late, heap: heap / 1048576 }; })()"""
FIELDS = {
    "memory": "MB",
    "heap": "MB",
    "waiting": "frames",
    "delay": "ms",
    "delay_p95": "ms",
    "offset": "ms",
    "offset_p95": "ms",
    "rate": "frames/s",
    "engine": "ms",
}


def main(arguments: list[str] | None = None) -> None:
    """Measure, write ``results/live_soak.json`` and draw the curve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks live_soak")
    parser.add_argument("--avatar", type=Path, help="folder (default: a generated talker, adapted now)")
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="headstart-benchmark-") as place:
        folder = options.avatar or _made(Path(place))
        curve, totals = asyncio.run(_soaked(folder, Path(place), options.minutes))
    case = f"{options.minutes:g} minutes of a live page at {totals['size']}x{totals['size']}"
    loads = np.array([sample["load"] for sample in curve])
    notes = (
        f"samples of {EVERY:g} s; load of the machine while it ran: median {np.median(loads):.1f}, at most "
        f"{loads.max():.1f} processes on {os.cpu_count()} cores, others' included; run at nice {os.nice(0)}"
    )
    write("live_soak", _rows(case, curve, totals), notes, command=f"live_soak --minutes {options.minutes:g}")
    draw(curve)


async def _soaked(folder: Path, place: Path, minutes: float) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Samples over time, and what there was in all."""
    from adapt.avatar.avatar import load_avatar
    from shards.synthetic.generate import make_talker

    avatar = load_avatar(folder)
    speech = make_talker(3).perform(40, 1, 64).audio.astype(np.float32)
    speech = speech[: len(speech) // PIECE * PIECE]
    curve: list[dict[str, float]] = []
    async with spoken_to("avatar", avatar, speech, place) as (page, server):
        await page.run(MONITOR)
        await page.run("document.getElementById('microphone').click()")
        await page.until("headstart.player.offsets.length > 100", 60)
        await page.run(TAKE)
        session = next(iter(server.open)).session
        assert session is not None
        begin, frames = time.monotonic(), int(str(session.stats()["frames"]))
        for k in range(1, round(60 * minutes / EVERY) + 1):
            await asyncio.sleep(max(0.0, begin + k * EVERY - time.monotonic()))
            curve.append(_sample(await page.run(TAKE), session, (time.monotonic() - begin) / 60))
        stats = session.stats()
        spent, last = time.monotonic() - begin, int(str(stats["frames"]))
        assert page.errors == [], page.errors
    made = last - frames
    return curve, {"size": avatar.size, "seconds": spent, "frames": made, "dropped": int(str(stats["dropped"]))}


def _sample(seen: dict[str, Any], session: Any, minute: float) -> dict[str, float]:
    delays, offsets = (np.array(seen[name] or [np.nan], float) for name in ("delays", "offsets"))
    return {
        "minute": minute,
        "memory": _memory(),
        "heap": seen["heap"],
        "waiting": float(seen["waiting"] + len(session._frames)),
        "queued": session.queued,
        "delay": float(np.median(delays)),
        "delay_p95": float(np.quantile(delays, 0.95)),
        "offset": float(np.median(offsets)),
        "offset_p95": float(np.quantile(np.abs(offsets), 0.95)),
        "rate": len(seen["pictures"]) / EVERY,
        "unheard": float(seen["unheard"]),
        "load": os.getloadavg()[0],
    }


def _rows(case: str, curve: list[dict[str, float]], totals: dict[str, Any]) -> list[dict[str, Any]]:
    def over(name: str, part: slice = slice(None)) -> np.ndarray:
        return np.array([sample[name] for sample in curve[part]])

    fifth = max(1, len(curve) // 5)
    early, late = slice(0, fifth), slice(len(curve) - fifth, None)
    rows = []
    for name, title, unit in (
        ("memory", "memory of the server", "MB"),
        ("heap", "memory of the page's scripts", "MB"),
        ("delay", "microphone to picture, median", "ms"),
        ("offset", "lips behind their sound, median", "ms"),
    ):
        first, last = float(np.median(over(name, early))), float(np.median(over(name, late)))
        against = f"{first:.1f} {unit} in the first fifth"
        rows.append(row(case, f"{title}, last fifth", last, unit, against, last / first if name != "offset" else None))
    away, rate = float(np.max(over("offset_p95"))), totals["frames"] / totals["seconds"]
    rows.append(
        row(case, "lips away from their sound, worst p95 of 10 s", away, "ms", f"goal +-{SYNC:g} ms", away / SYNC)
    )
    rows.append(row(case, "frames waiting, most", float(np.max(over("waiting"))), "frames", "no growth"))
    rows.append(row(case, "frames", rate, "frames/s", REAL_TIME, rate / 25))
    shown = float(np.mean(over("rate")))
    rows.append(row(case, "pictures shown", shown, "frames/s", REAL_TIME, shown / 25))
    dropped = totals["dropped"] / totals["frames"]
    rows.append(row(case, "pictures left out", float(totals["dropped"]), "", "none", dropped))
    rows.append(row(case, "pieces of sound that came too late", curve[-1]["unheard"], "", "none"))
    for sample in curve[5::6]:
        at = f"minute {sample['minute']:.0f}"
        rows += [
            row(f"{case}, {at}", name, sample[name], unit, REAL_TIME if name == "rate" else "the curve")
            for name, unit in FIELDS.items()
            if name in sample
        ]
    return rows


def draw(curve: list[dict[str, float]]) -> Path:
    """The curve as ``docs/images/live-soak.svg``."""
    from adapt.evaluate.charts import line_chart

    def line(**names: str) -> dict[str, np.ndarray]:
        return {title: np.array([[s["minute"], s[name]] for s in curve]) for name, title in names.items()}

    charts = [
        ("Memory, MB", line(memory="server", heap="page's scripts")),
        (
            "Delay and lips against sound, ms",
            line(delay="delay, median", delay_p95="delay, p95", offset="lips - sound"),
        ),
        ("Pictures shown a second, and frames waiting", line(rate="pictures a second", waiting="frames waiting")),
        ("Processes that want a core (this machine's load, others' included)", line(load="load")),
    ]
    return pictures.save("live-soak", [(title, line_chart(lines, "minute", title)) for title, lines in charts])
