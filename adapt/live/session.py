"""A live session: push sound, iterate over frames. Silence is filled in, so the head is never without a next frame.

::

    async with LiveSession("me.avatar") as session:
        asyncio.create_task(microphone_into(session.push))
        async for frame in session:
            show(frame.image, frame.sound, frame.time)
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from adapt.avatar.avatar import Avatar, load_avatar
from adapt.live.engine import Chunk, Engine, LiveFrame, Look, changed
from configs import InputError
from shards.media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from shards.media.tracks import finite

FRAME = 1 / FPS
PATIENCE = 0.12  # s that a session waits for the next piece of live sound before it fills in silence
LATE = 0.1  # s behind the clock above which pictures are left out
FORGIVEN = 0.5  # s behind the clock that are caught up at most: a machine may have slept
WAITING_PICTURES = 6  # frames waiting to be fetched that keep their picture; older ones keep their sound only
WAITING_FRAMES = 10 * FPS  # frames waiting to be fetched at which the session pauses
MOST_QUEUED = 60  # s of queued sound, and of live sound, that may wait


class LiveSession:
    """An avatar that speaks the sound it is given, at 25 frames per second, with the shortest delay that its driver allows.

    Args:
        avatar: an opened one, or its folder or ``s3://`` URL.
        controls, pose, blink, background, style: see :class:`adapt.live.engine.Look`; :meth:`set` changes them later.
        device: for an avatar that is opened here.
        seed: of blinks, sway and gaze.

    Raises:
        InputError: the avatar cannot be opened, or a setting is wrong.
    """

    def __init__(
        self,
        avatar: Avatar | str | Path,
        *,
        controls: Mapping[str, float] | None = None,
        pose: str = "generated",
        blink: str | float = "natural",
        background: str = "model",
        style: str = "own",
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        self.avatar = avatar if isinstance(avatar, Avatar) else load_avatar(avatar, device)
        look = Look(dict(controls or {}), pose=pose, blink=blink, background=background, style=style)
        self._engine = Engine(self.avatar, look.checked(self.avatar), seed)
        self._look, self._thread = self._engine.look, ThreadPoolExecutor(1, "live")
        self._live: deque[np.ndarray] = deque()
        self._queued: deque[np.ndarray] = deque()
        self._frames: deque[LiveFrame] = deque()
        self._wake, self._came, self._fetched = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._due = self._heard_at = 0.0
        self._pushed = 0
        self._resting = self._closed = False
        self._task: asyncio.Task[None] | None = None

    # --- sound in ---------------------------------------------------------------------------------------------------

    def push(self, sound: np.ndarray) -> None:
        """Take live sound ``[n]`` at 16 kHz mono, float in [-1, 1] or int16, in pieces as it comes from a microphone.

        It is ignored while sound given to :meth:`say` is being spoken.

        Raises:
            InputError: another shape or type, or more than a minute of sound is waiting.
        """
        samples = _samples(sound)
        self._pushed += len(samples)
        if not self._queued and len(samples):
            _check_room(self._live, samples)
            self._live.append(samples)
            self._heard_at = time.monotonic()
            self._wake.set()

    def say(self, sound: np.ndarray) -> None:
        """Queue sound that may come faster than it is spoken, such as a file's or a synthesiser's, to be spoken in real time.

        Raises:
            InputError: as :meth:`push`; await :meth:`room` before more than a minute is queued.
        """
        samples = _samples(sound)
        if len(samples):
            _check_room(self._queued, samples)
            self._queued.append(samples)
            self._wake.set()

    async def room(self, seconds: float = 5.0) -> None:
        """Wait until at most ``seconds`` of queued speech remain."""
        while not self._closed and self.queued > seconds:
            await asyncio.sleep(FRAME)

    def interrupt(self) -> None:
        """Stop speaking now: waiting sound is discarded and the lips close."""
        self._live.clear()
        self._queued.clear()
        self._resting = True

    @property
    def queued(self) -> float:
        """Seconds of sound that are still to be said."""
        return sum(map(len, self._queued)) / SAMPLE_RATE

    # --- how it looks -----------------------------------------------------------------------------------------------

    def set(self, **changes: object) -> None:
        """Change ``controls``, ``turn``, ``pose``, ``blink``, ``background`` or ``style``, see :class:`adapt.live.engine.Look`.

        Raises:
            InputError: a setting is wrong; nothing is changed then.
        """
        self._look = changed(self._look, self.avatar, changes)

    @property
    def look(self) -> Look:
        """The current settings."""
        return self._look

    # --- frames out -------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> LiveSession:
        self._due = time.monotonic()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the session; iterators over its frames stop."""
        self._closed = True
        for event in (self._wake, self._came, self._fetched):
            event.set()
        if self._task is not None:
            await asyncio.wait([self._task])
        self._thread.shutdown(wait=False)

    def __aiter__(self) -> AsyncIterator[LiveFrame]:
        return self

    async def __anext__(self) -> LiveFrame:
        """The next frame.

        Raises:
            StopAsyncIteration: the session is closed.
            RuntimeError: the session was never entered, or the engine failed.
        """
        if self._task is None:
            raise RuntimeError("use 'async with LiveSession(...) as session'")
        while not self._frames:
            if self._task.done():
                self._task.result()
                raise StopAsyncIteration
            self._came.clear()
            await self._came.wait()
        self._fetched.set()
        return self._frames.popleft()

    @property
    def delay(self) -> float:
        """Seconds from a frame's first sample to the moment at which enough sound has come to make the frame."""
        return self._engine.talker.delay

    def stats(self) -> dict[str, object]:
        """``frames, dropped, queued`` (s still to be said), ``delay`` (s), ``driver`` and ``stages`` (s spent by stage)."""
        talker = self._engine.talker
        return {
            "frames": talker.frames,
            "dropped": self._engine.dropped,
            "queued": round(self.queued, 2),
            "delay": round(self.delay, 4),
            "driver": talker.driver.name,
            "stages": {name: round(spent, 3) for name, spent in talker.stages.items()},
        }

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while not self._closed:
                chunk = await self._next()
                if self._closed:
                    return
                if self._look is not self._engine.look:
                    self._engine.change(self._look)
                if self._resting:
                    self._engine.rest()
                    self._resting = False
                self._put(await loop.run_in_executor(self._thread, self._engine.step, chunk))
                await self._standing()
        finally:
            self._came.set()

    async def _next(self) -> Chunk:
        """The next sound: live at once, queued or silence when its time has come."""
        while not self._closed:
            now = time.monotonic()
            if self._live and not self._queued:
                sound = np.concatenate(self._live)
                self._live.clear()
                self._due = now + FRAME
                return Chunk(sound, now, live=True, spoken=True, pushed=self._pushed)
            # Wait for a microphone that is a little late: silence in the middle of a word would be audible.
            waits = not self._queued and now - self._heard_at < 1.0
            due = max(self._due, self._heard_at + PATIENCE) if waits else self._due
            if now >= due:
                self._due = max(due + FRAME, now - FORGIVEN)
                sound, spoken = self._piece()
                return Chunk(sound, now, spoken=spoken, late=max(0.0, now - due - LATE))
            self._wake.clear()
            await _until(self._wake, due - now)
        return Chunk(np.zeros(0, np.float32), time.monotonic())

    def _piece(self) -> tuple[np.ndarray, bool]:
        """The next frame's queued sound, filled up with silence, and whether there was any."""
        parts, missing = [], SAMPLES_PER_FRAME
        while missing and self._queued:
            block = self._queued.popleft()
            parts.append(block[:missing])
            if len(block) > missing:
                self._queued.appendleft(block[missing:])
            missing -= len(parts[-1])
        return np.concatenate([*parts, np.zeros(missing, np.float32)]), bool(parts)

    def _put(self, frames: list[LiveFrame]) -> None:
        self._frames.extend(frames)
        surplus = max(0, len(self._frames) - WAITING_PICTURES)
        for i in range(surplus):
            frame = self._frames[i]
            if frame.image is not None:
                self._frames[i] = replace(frame, image=None)
                self._engine.dropped += 1
        if frames:
            self._came.set()

    async def _standing(self) -> None:
        """Wait until frames are fetched, so that memory does not grow."""
        while len(self._frames) >= WAITING_FRAMES and not self._closed:
            self._fetched.clear()
            await self._fetched.wait()
            self._due = time.monotonic()


async def _until(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except asyncio.TimeoutError:
        return


def _samples(sound: np.ndarray) -> np.ndarray:
    """Float32 samples ``[n]``.

    Raises:
        InputError: not one channel of numbers.
    """
    sound = np.asarray(sound)
    if sound.ndim != 1 or sound.dtype.kind not in "fi":
        raise InputError(f"sound of shape {sound.shape}, {sound.dtype}: expected mono samples [n], float or int16")
    if sound.dtype.kind == "i":
        return sound.astype(np.float32) / 32768
    return np.clip(finite(sound.astype(np.float32)), -1, 1)


def _check_room(waiting: deque[np.ndarray], new: np.ndarray) -> None:
    if sum(map(len, waiting)) + len(new) > MOST_QUEUED * SAMPLE_RATE:
        raise InputError(f"more than {MOST_QUEUED} s of sound wait to be spoken; send it more slowly")
