"""``headstart live``: a page, reachable from this machine only, on which an avatar speaks live.

The server listens on the loopback address, and every path begins with a secret that only the printed address contains.
Requests for another host or from another origin are refused. The only module that uses aiohttp.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypedDict, cast

from adapt.avatar.avatar import Avatar, load_avatar
from adapt.live import protocol
from adapt.live.connection import Connection, rehearse
from adapt.live.follow import check_followed, first_state, keep_newest
from adapt.live.speech import speech_command
from adapt.marking.certificates import Credentials, load_credentials
from configs import InputError, progress
from configs.scratch import ScratchFolder

if TYPE_CHECKING:
    from aiohttp import web as web_types

    Handler = Callable[[web_types.Request], Awaitable[web_types.StreamResponse]]

log = logging.getLogger("headstart")
HOST = "127.0.0.1"
LEAVING = 3.0  # s that a new page waits for one that is leaving: a page that is reloaded finds its old connection
PAGE = {
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    **{
        name: (name, "text/javascript")
        for name in ("app.js", "connection.js", "microphone.js", "microphone-worklet.js", "player.js", "panel.js")
    },
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws://127.0.0.1:* "
    "ws://localhost:*; img-src 'self' blob: data:; media-src blob:; worker-src 'self'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=()",
}


class Served(TypedDict):
    """What a server did: its address, seconds, pages served, frames sent, pictures left out and messages refused."""

    url: str
    seconds: float
    sessions: int
    frames: int
    dropped: int
    refused: int


def serve(
    avatars: Sequence[str | Path],
    *,
    port: int = 8765,
    sessions: int = 1,
    tts: str | None = None,
    device: str = "auto",
    prior: str | Path | None = None,
    follow: bool = False,
    ready: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
) -> Served:
    """Serve the page until interrupted.

    Args:
        avatars: folders or ``s3://`` URLs; the page chooses between them.
        port: 0 for any free one.
        sessions: pages that may be open at once; further ones are told that it is busy, and try again.
        tts: a command that reads text on standard input and writes a sound file on standard output; espeak-ng by
            default, where it is installed.
        device, prior: as for ``talk``.
        follow: the avatars are being adapted: wait for the first state and show each new one.
        ready: called with the page's address once it can be opened.
        stop: ends the server when set, as SIGINT and SIGTERM do.

    Returns:
        See :class:`Served`.

    Raises:
        InputError: a wrong option, an avatar that cannot be opened, a port that is in use.
    """
    if not 0 <= port <= 65_535:
        raise InputError(f"--port {port}: expected 1 to 65535, or 0 for any free one")
    if sessions < 1:
        raise InputError(f"--sessions {sessions}: expected 1 or more")
    command, credentials = speech_command(tts), load_credentials()
    paths = _named(avatars)
    if follow:
        check_followed(paths)
        opened = {name: first_state(path, device) for name, path in paths.items()}
    else:
        opened = {name: load_avatar(path, device, prior=prior) for name, path in paths.items()}
    for avatar in opened.values():
        rehearse(avatar)
    with ScratchFolder("live") as folder:
        server = Server(opened, folder, sessions, command, paths if follow else None, device, credentials)
        return asyncio.run(server.run(port, ready or _announce, stop))


def _named(avatars: Sequence[str | Path]) -> dict[str, str | Path]:
    """Paths by the name that the page shows; equal names are numbered."""
    if not avatars:
        raise InputError("no avatar: give the folder of one")
    found: dict[str, str | Path] = {}
    for path in avatars:
        own = str(path).rstrip("/").rpartition("/")[2]
        name, count = own, 2
        while name in found:
            name, count = f"{own} ({count})", count + 1
        found[name] = path
    return found


def _announce(url: str) -> None:
    progress.say(f"open {url}")
    progress.say("stop with Ctrl-C")


class Server:
    """The web server.

    Args:
        avatars: by name.
        folder: for recordings.
        sessions: number of pages that may be open at once.
        tts: the text-to-speech command, if there is one.
        followed: folders by name, whose new states are shown.
        device: for these states.
        credentials: what recordings are signed with, if anything.
    """

    def __init__(
        self,
        avatars: Mapping[str, Avatar],
        folder: Path,
        sessions: int,
        tts: list[str] | None,
        followed: Mapping[str, str | Path] | None = None,
        device: str = "auto",
        credentials: Credentials | None = None,
    ) -> None:
        self.credentials = credentials
        self.avatars, self.folder, self.sessions, self.tts = dict(avatars), folder, sessions, tts
        self.followed, self.device = followed, device
        self.token, self.port = secrets.token_urlsafe(18), 0
        self.open: dict[Connection, web_types.WebSocketResponse] = {}
        self.totals = {"sessions": 0, "frames": 0, "dropped": 0, "refused": 0}

    @property
    def url(self) -> str:
        """The page's address, including its secret."""
        return f"http://{HOST}:{self.port}/{self.token}/"

    async def run(self, port: int, ready: Callable[[str], None], stop: asyncio.Event | None = None) -> Served:
        """Serve until ``stop`` or a signal.

        Raises:
            InputError: the port is in use, or aiohttp is absent.
        """
        web, begin, ended = _aiohttp(), time.monotonic(), stop or asyncio.Event()
        runner = web.AppRunner(self._application(web), access_log=None, handle_signals=False)
        await runner.setup()
        try:
            self.port = await _listen(web, runner, port)
            with _signals(ended):
                ready(self.url)
                await self._until(ended)
        finally:
            for socket in list(self.open.values()):
                await socket.close(code=1001, message=b"the server ends")
            await runner.cleanup()
        spent = round(time.monotonic() - begin, 1)
        return cast(Served, {"url": self.url, "seconds": spent, **self.totals})

    async def _until(self, ended: asyncio.Event) -> None:
        """Wait for the end; meanwhile new states of followed avatars are opened."""
        following = None
        if self.followed is not None:
            following = asyncio.create_task(keep_newest(self.followed, self.avatars, self.device, self._renewed))
        await ended.wait()
        if following is not None:
            following.cancel()
            await asyncio.wait([following])

    def _renewed(self, name: str) -> None:
        for connection in self.open:
            connection.renewed(name)

    def _application(self, web: ModuleType) -> web_types.Application:
        @web.middleware
        async def guard(request: web_types.Request, handler: Handler) -> web_types.StreamResponse:
            self._check(web, request)
            response = await handler(request)
            if not response.prepared:
                response.headers.update(HEADERS)
            return response

        application = web.Application(middlewares=[guard], client_max_size=1024)
        application.router.add_get("/{token}/ws", self._socket)
        application.router.add_get("/{token}/recordings/{name}", self._recording)
        application.router.add_get("/{token}/{name:[a-z.-]*}", self._file)
        return application

    def _check(self, web: ModuleType, request: web_types.Request) -> None:
        """Refuse other hosts (a name that points here), other origins and wrong secrets."""
        hosts = {f"{name}:{self.port}" for name in (HOST, "localhost")}
        origin = request.headers.get("Origin")
        if request.host not in hosts or (origin is not None and origin not in {f"http://{host}" for host in hosts}):
            raise web.HTTPForbidden(text="this page belongs to this machine alone\n")
        token = request.match_info.get("token", "")
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            raise web.HTTPNotFound(text="open the address that 'headstart live' printed, with its secret\n")

    async def _file(self, request: web_types.Request) -> web_types.StreamResponse:
        web = _aiohttp()
        if request.match_info["name"] not in PAGE:
            raise web.HTTPNotFound(text="no such file\n")
        name, kind = PAGE[request.match_info["name"]]
        body = resources.files("adapt.live").joinpath("page", name).read_bytes()
        return web.Response(body=body, content_type=kind, charset="utf-8")

    async def _recording(self, request: web_types.Request) -> web_types.StreamResponse:
        """A finished recording; it is removed when it has been fetched."""
        web, name = _aiohttp(), request.match_info["name"]
        path = self.folder / name
        if name not in {entry.name for entry in self.folder.glob("*.mp4") if not entry.name.startswith(".")}:
            raise web.HTTPNotFound(text="no such recording: it was fetched, or its page was closed\n")
        body = await asyncio.to_thread(path.read_bytes)
        path.unlink(missing_ok=True)
        headers = {"Content-Disposition": f'attachment; filename="{name.replace(chr(34), "")}"'}
        return web.Response(body=body, content_type="video/mp4", headers=headers)

    async def _socket(self, request: web_types.Request) -> web_types.StreamResponse:
        web = _aiohttp()
        if request.headers.get("Origin") is None:
            raise web.HTTPForbidden(text="only the page itself may connect\n")
        socket = web.WebSocketResponse(max_msg_size=protocol.LONGEST_MESSAGE, heartbeat=10, compress=False)
        await socket.prepare(request)
        if not await self._has_room(socket):
            busy = f"busy: {len(self.open)} of {self.sessions} sessions in use; this page waits until one closes (or --sessions)"
            await socket.send_str(json.dumps({"type": "busy", "message": busy}))
            await socket.close(code=1013, message=b"busy")
            return socket
        await self._serve_page(web, socket)
        return socket

    async def _has_room(self, socket: web_types.WebSocketResponse) -> bool:
        """Whether there is room for one more page, after waiting for those that are leaving."""
        for _ in range(round(LEAVING / 0.05)):
            if len(self.open) < self.sessions or socket.closed:
                break
            await asyncio.sleep(0.05)
        return len(self.open) < self.sessions

    async def _serve_page(self, web: ModuleType, socket: web_types.WebSocketResponse) -> None:
        async def tell(message: Mapping[str, object]) -> None:
            with contextlib.suppress(ConnectionError, RuntimeError):
                await socket.send_str(json.dumps(message))

        following = self.followed is not None
        connection = Connection(
            self.avatars, self.folder, self.tts, socket.send_bytes, tell, following, self.credentials
        )
        self.open[connection] = socket
        self.totals["sessions"] += 1
        showing = asyncio.create_task(_shown(connection, socket))
        try:
            async for message in socket:
                if message.type == web.WSMsgType.BINARY:
                    await connection.heard(message.data)
                elif message.type == web.WSMsgType.TEXT:
                    await connection.asked(message.data)
        finally:
            showing.cancel()
            await asyncio.wait([showing])
            self.open.pop(connection, None)
            for name in ("frames", "dropped", "refused"):
                self.totals[name] += getattr(connection, name)


async def _shown(connection: Connection, socket: web_types.WebSocketResponse) -> None:
    """Send frames until the page has gone; an internal error is logged and ends the connection."""
    try:
        await connection.run()
    except ConnectionError:
        return
    except Exception:
        log.exception("a live session ended by a fault of ours")
        await socket.close(code=1011, message=b"the engine failed; the terminal says why")


async def _listen(web: ModuleType, runner: web_types.AppRunner, port: int) -> int:
    site = web.TCPSite(runner, HOST, port)
    try:
        await site.start()
    except OSError as error:
        raise InputError(f"port {port} cannot be used ({error.strerror or error}); give another --port, or 0") from None
    return int(runner.addresses[0][1])


@contextlib.contextmanager
def _signals(ended: asyncio.Event) -> Iterator[None]:
    """SIGINT and SIGTERM end the server cleanly, if this thread can handle signals."""
    loop, handled = asyncio.get_running_loop(), []
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            loop.add_signal_handler(number, ended.set)
            handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


def _aiohttp() -> ModuleType:
    try:
        import aiohttp.web
    except ImportError:
        raise InputError("'headstart live' needs aiohttp: pip install 'headstart[live]'") from None
    return aiohttp.web
