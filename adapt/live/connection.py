"""One page's connection: its requests, and the session behind it. Independent of the web server's library."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from adapt.avatar.avatar import Avatar
from adapt.live import protocol
from adapt.live.engine import BACKGROUNDS, STYLES, Chunk, Engine, LiveFrame, Look
from adapt.live.follow import state_of
from adapt.live.motion import MODES, MOST_PITCH, MOST_YAW
from adapt.live.recording import LONGEST, Recording
from adapt.live.session import LiveSession
from adapt.live.speech import spoken
from adapt.marking.certificates import Credentials
from adapt.marking.finished import sign_talk
from adapt.marking.marker import Marker
from adapt.talk.options import MOST_CONTROL
from configs import InputError
from heads.raster.simd.compiling import compilations
from shards.media.rates import FPS, SAMPLE_RATE

LABEL = "AI"  # drawn into every picture that leaves the server
STATUS_EVERY = 1.0  # s
COMPLAINTS_A_SECOND = 1.0
MOST_RECORDINGS = 5  # files of one page that wait to be fetched
Send = Callable[[bytes], Awaitable[None]]
Tell = Callable[[Mapping[str, object]], Awaitable[None]]
Message = TypeVar("Message", bytes, str)


def rehearse(avatar: Avatar) -> None:
    """Render a picture with each background and discard it, so that kernels compile before the first page is shown."""
    silence, mark = np.zeros(SAMPLE_RATE, np.float32), Marker(avatar.provenance("").avatar_sha256, label=LABEL)
    with compilations():
        for background in BACKGROUNDS:
            engine, shown = Engine(avatar, Look({}, background=background)), False
            while not shown:
                for frame in engine.step(Chunk(silence, time.monotonic())):
                    if frame.image is not None:
                        protocol.frame_message(replace(frame, image=mark(frame.image)))
                        shown = True


class Connection:
    """Serves one page.

    Args:
        avatars: by name; the first one is shown first.
        folder: where its recordings are put until they are fetched.
        tts: the text-to-speech command, if there is one.
        following: whether the avatars are still being adapted.
        credentials: what recordings are signed with, if anything.
        send: sends the page a binary message.
        tell: sends the page a JSON message.

    Attributes:
        frames: number of frames sent.
        dropped: number of pictures left out.
        refused: number of messages refused.
    """

    def __init__(
        self,
        avatars: Mapping[str, Avatar],
        folder: Path,
        tts: list[str] | None,
        send: Send,
        tell: Tell,
        following: bool = False,
        credentials: Credentials | None = None,
    ) -> None:
        self.credentials = credentials
        self.avatars, self.folder, self.tts, self.send, self.tell = avatars, folder, tts, send, tell
        self.following = following
        self.name = next(iter(avatars))
        self.session: LiveSession | None = None
        self.recording: Recording | None = None
        self.limit, self.complaints = protocol.Limit(), protocol.Limit(COMPLAINTS_A_SECOND, 1e6)
        self.frames = self.dropped = self.refused = 0
        self._changing = asyncio.Event()
        self._speaking: asyncio.Task[None] | None = None
        self._saved: list[Path] = []
        self._look: dict[str, object] = {}
        self._sign: Callable[[], None] | None = None

    async def run(self) -> None:
        """Show frames until the page goes away."""
        try:
            while True:
                self._changing.clear()
                async with LiveSession(self.avatars[self.name]) as session:
                    self.session = session
                    self._wear(session)
                    await self.tell(self._hello(session))
                    await self._show(session)
        finally:
            self._close()

    def renewed(self, name: str) -> None:
        """Show the new state of an avatar."""
        if name == self.name:
            self._changing.set()

    def _wear(self, session: LiveSession) -> None:
        """Keep the settings made before another avatar was chosen, as far as it supports them."""
        for name, value in self._look.items():
            with contextlib.suppress(InputError):
                session.set(**{name: value})

    async def _show(self, session: LiveSession) -> None:
        told, frames, dropped = time.monotonic(), self.frames, self.dropped
        before, mark = 0, Marker(session.avatar.provenance("").avatar_sha256, label=LABEL)
        async for frame in session:
            if frame.image is not None:
                frame = replace(frame, image=mark(frame.image))
            await self.send(protocol.frame_message(frame))
            await self._record(frame)
            self.frames += 1
            now, lost = time.monotonic(), int(str(session.stats()["dropped"]))
            self.dropped, before = self.dropped + lost - before, lost
            if now - told >= STATUS_EVERY:
                pictures = self.frames - frames - (self.dropped - dropped)
                await self.tell(self._status(session, pictures / (now - told), self.dropped - dropped))
                told, frames, dropped = now, self.frames, self.dropped
            if self._changing.is_set():
                return

    def _hello(self, session: LiveSession) -> dict[str, object]:
        return {
            "type": "hello",
            "avatar": self.name,
            "avatars": list(self.avatars),
            "size": session.avatar.size,
            "controls": list(session.avatar.rig.controls),
            "limits": {"control": MOST_CONTROL, "yaw": MOST_YAW, "pitch": MOST_PITCH},
            "poses": MODES,
            "backgrounds": BACKGROUNDS,
            "styles": list(STYLES),
            "driver": str(session.stats()["driver"]),
            "delay": round(1000 * session.delay),
            "text": self.tts is not None,
            "adaptation": state_of(session.avatar) if self.following else None,
            "statement": session.avatar.provenance("live").statement(),
        }

    def _status(self, session: LiveSession, rate: float, dropped: int) -> dict[str, object]:
        return {
            "type": "status",
            "fps": round(rate, 1),
            "dropped": dropped,
            "queued": round(session.queued, 2),
            "recording": None if self.recording is None else round(self.recording.frames / FPS, 1),
        }

    # --- what the page sends ----------------------------------------------------------------------------------------

    async def heard(self, message: bytes) -> None:
        """Take a binary message: sound. Refused messages are counted, and reported at most once a second."""
        await self._guarded(len(message), self._sound, message)

    async def asked(self, text: str) -> None:
        """Take a text message: a request."""
        await self._guarded(len(text), self._request, text)

    async def _guarded(self, size: int, function: Callable[[Message], Awaitable[None]], message: Message) -> None:
        if not self.limit.allows(size):
            await self.complain(f"more than {protocol.MESSAGES_A_SECOND} messages a second; some were left out")
            return
        try:
            await function(message)
        except InputError as error:
            await self.complain(str(error))

    async def complain(self, sentence: str) -> None:
        """Say what was wrong, at most once a second."""
        self.refused += 1
        if self.complaints.allows(1):
            await self.tell({"type": "error", "message": sentence[:500]})

    async def _sound(self, message: bytes) -> None:
        kind, samples = protocol.parse_sound(message)
        if self.session is not None:
            (self.session.push if kind == protocol.LIVE else self.session.say)(samples)

    async def _request(self, text: str) -> None:
        request = protocol.parse_request(text)
        kind = str(request.pop("type"))
        requests = {
            "set": self._set,
            "stop": self._stop,
            "say": self._say,
            "avatar": self._choose,
            "record": self._switch_recording,
        }
        if kind not in requests:
            raise InputError(f"unknown request '{kind[:40]}'; known: {', '.join(requests)}")
        await requests[kind](request)

    async def _set(self, request: dict[str, object]) -> None:
        if self.session is not None:
            self.session.set(**request)
            self._look.update(request)

    async def _stop(self, request: dict[str, object]) -> None:
        if self._speaking is not None:
            self._speaking.cancel()
            self._speaking = None  # it may take a moment to end; a new text need not wait for that
        if self.session is not None:
            self.session.interrupt()

    async def _say(self, request: dict[str, object]) -> None:
        if self.tts is None:
            raise InputError("no program speaks text here; install espeak-ng or start with --tts COMMAND")
        if self._speaking is not None and not self._speaking.done():
            raise InputError("still speaking the text before; stop it first")
        self._speaking = asyncio.create_task(self._speak(self.tts, str(request.get("text", ""))))

    async def _speak(self, command: list[str], text: str) -> None:
        try:
            sound = await spoken(command, text)
            for at in range(0, len(sound), 16_000):
                if self.session is not None:
                    await self.session.room()
                    self.session.say(sound[at : at + 16_000])
        except InputError as error:
            await self.complain(str(error))

    async def _choose(self, request: dict[str, object]) -> None:
        name = str(request.get("name", ""))[:200]
        if name not in self.avatars:
            raise InputError(f"no avatar '{name}' (this page has {', '.join(self.avatars)})")
        if name != self.name:
            await self._end_recording()
            self.name = name
            self._changing.set()

    # --- recording --------------------------------------------------------------------------------------------------

    async def _switch_recording(self, request: dict[str, object]) -> None:
        if not request.get("on"):
            await self._end_recording()
        elif self.recording is None and self.session is not None:
            avatar = self.session.avatar
            path = self.folder / f"{self.name}-{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns() % 10**6:06d}.mp4"
            provenance = avatar.provenance("live session")
            provenance = replace(provenance, **Marker(provenance.avatar_sha256).fields())
            self.recording = Recording(path, avatar.size, provenance.tags())
            self._sign = None
            if self.credentials is not None:
                self._sign = functools.partial(sign_talk, path, self.credentials, avatar, provenance)

    async def _record(self, frame: LiveFrame) -> None:
        if self.recording is None:
            return
        self.recording.write(frame)
        if self.recording.full:
            await self.tell({"type": "error", "message": f"a recording is at most {LONGEST // FPS // 60} min long"})
            await self._end_recording()

    async def _end_recording(self) -> None:
        recording, self.recording = self.recording, None
        if recording is not None and await asyncio.to_thread(recording.close):
            self._saved.append(recording.path)
            await self._signed()
            while len(self._saved) > MOST_RECORDINGS:
                self._saved.pop(0).unlink(missing_ok=True)
            await self.tell({"type": "recorded", "name": recording.path.name})

    async def _signed(self) -> None:
        """Sign the finished recording; a failure is reported, and the file is kept."""
        if self._sign is None:
            return
        try:
            await asyncio.to_thread(self._sign)
        except InputError as error:
            await self.complain(f"the recording is not signed: {error}")

    def _close(self) -> None:
        if self._speaking is not None:
            self._speaking.cancel()
        if self.recording is not None:
            self.recording.abort()
        for path in self._saved:
            path.unlink(missing_ok=True)
