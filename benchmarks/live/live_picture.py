"""README's animated picture: the live page in a headless Chromium, with an audio file as the microphone.

    python -m benchmarks.live.live_picture AVATAR [--prior PRIOR] [--seconds 5]

Writes ``docs/images/live.webp``: the page as it is at the end, with the pictures that its canvas showed. Use the avatar of a
generated talker, such as the demo's, never that of a real person.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.live.live_page import spoken_to
from benchmarks.pictures import FOLDER

SIZE = (1060, 940)  # px of the browser's window
WIDTH = 640  # px of the picture
RATE, QUALITY, LARGEST = 12.5, 62, 1_500_000
# Keeps what the canvas shows, 80 ms apart, and says where it lies on the page.
KEEP = """(() => { const { player } = headstart, shown = player.shown; headstart.kept = []; let last = 0;
  player.shown = (frame, now) => { shown(frame, now);
    if (now - last >= 70) { last = now; headstart.kept.push([now, player.canvas.toDataURL('image/jpeg', 0.92)]); } }; })()"""
PLACE = """(() => { const r = document.getElementById('picture').getBoundingClientRect();
  return [r.left, r.top, r.right, r.bottom]; })()"""


def main() -> None:
    """Make it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live.live_picture")
    parser.add_argument("avatar", type=Path)
    parser.add_argument("--prior", help="where the avatar's audio-expression prior is now")
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headstart-benchmark-") as place:
        page, frame, kept = asyncio.run(_filmed(options, Path(place)))
    path = FOLDER / "live.webp"
    count = written(path, page, frame, kept)
    print(json.dumps({"picture": str(path.name), "frames": count, "bytes": path.stat().st_size}))


async def _filmed(options: argparse.Namespace, place: Path) -> tuple[bytes, list[float], list[tuple[float, str]]]:
    """The page as a PNG, where its canvas lies, and what the canvas showed (ms, data URL)."""
    from adapt.avatar.avatar import load_avatar
    from shards.synthetic.generate import make_talker

    avatar = load_avatar(options.avatar, "cpu", prior=options.prior)
    speech = make_talker(3).perform(20, 1, 64).audio.astype(np.float32)
    async with spoken_to("ada", avatar, speech, place, SIZE) as (page, _):
        await page.run("document.getElementById('microphone').click()")
        await page.until("headstart.delays.length > 50", 60)
        frame = await page.run(PLACE)
        await page.run(KEEP)
        await asyncio.sleep(options.seconds / 2)
        turn = "headstart.connection.send('set', { turn: [%d, %d] })"
        await page.run(turn % (13, 3))
        await asyncio.sleep(options.seconds / 3)
        await page.run(turn % (0, 0))
        await asyncio.sleep(options.seconds / 6 + 0.6)
        kept = await page.run("headstart.kept")
        await page.screenshot(place / "page.png")
        return (place / "page.png").read_bytes(), frame, kept


def written(path: Path, page: bytes, frame: list[float], kept: list[Any]) -> int:
    """The moving picture; the number of its frames."""
    from PIL import Image

    ground = Image.open(io.BytesIO(page)).convert("RGB")
    left, top, right, bottom = (round(value) for value in frame)
    size = WIDTH, round(WIDTH * ground.height / ground.width)
    begin, images, durations = kept[0][0], [], []
    ends = [moment for moment, _ in kept[1:]] + [kept[-1][0] + 1000 / RATE]
    for (moment, picture), end in zip(kept, ends, strict=True):
        shown = Image.open(io.BytesIO(base64.b64decode(picture.split(",", 1)[1])))
        whole = ground.copy()
        whole.paste(shown.resize((right - left, bottom - top), Image.Resampling.LANCZOS), (left, top))
        images.append(whole.resize(size, Image.Resampling.LANCZOS))
        durations.append(max(20, round(end - begin) - round(moment - begin)))
    first, *rest = images
    first.save(path, save_all=True, append_images=rest, duration=durations, loop=0, quality=QUALITY, method=4)
    if path.stat().st_size > LARGEST:
        raise RuntimeError(f"{path.name} has {path.stat().st_size} bytes, more than {LARGEST}; film fewer seconds")
    return len(images)


if __name__ == "__main__":
    main()
