"""An avatar's live page in a headless Chromium whose microphone plays a file; shared by the live benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from adapt.avatar.avatar import Avatar
from adapt.live.server import Server
from benchmarks import chromium


@contextlib.asynccontextmanager
async def spoken_to(
    name: str, avatar: Avatar, speech: np.ndarray, place: Path, size: tuple[int, int] = chromium.SIZE
) -> AsyncIterator[tuple[chromium.Page, Server]]:
    """The page once it shows pictures, its microphone not yet switched on, and the server behind it.

    Args:
        name: of the avatar on the page.
        speech: what the microphone plays in a loop, ``[N]`` at 16 kHz.
        place: a folder for the sound.
        size: of the browser's window, px.
    """
    import soundfile

    soundfile.write(place / "microphone.wav", speech, 16_000, subtype="PCM_16")
    server, stop = Server({name: avatar}, place, 1, None), asyncio.Event()
    url: list[str] = []
    serving = asyncio.create_task(server.run(0, url.append, stop))
    while not url:
        await asyncio.sleep(0.01)
    try:
        async with chromium.opened(url[0], place / "microphone.wav", size) as page:
            await page.until("window.headstart && headstart.pictures.length > 25", 60)
            yield page, server
    finally:
        stop.set()
        await serving
