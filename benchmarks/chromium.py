"""A headless Chromium with an audio file as its microphone, controlled through the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import http.server
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

SIZE = 1120, 860  # of the window, px
LONGEST = 300.0  # s that anything is waited for; it only guards against hanging, for a busy machine is slow
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """The browser of this machine; ``None`` where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A tab.

    Attributes:
        errors: uncaught exceptions and console errors so far.
    """

    def __init__(self, socket: Any) -> None:
        self.socket, self.errors, self._next = socket, [], 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.socket:
            found = json.loads(message.data)
            if "id" in found:
                self._answers.pop(found["id"]).set_result(found)
            elif found["method"] == "Runtime.exceptionThrown":
                details = found["params"]["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            elif found["method"] == "Log.entryAdded" and found["params"]["entry"]["level"] == "error":
                self.errors.append(found["params"]["entry"]["text"])

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A DevTools call.

        Raises:
            RuntimeError: the browser refused it.
        """
        self._next += 1
        answer = asyncio.get_running_loop().create_future()
        self._answers[self._next] = answer
        await self.socket.send_str(json.dumps({"id": self._next, "method": method, "params": parameters}))
        found = await asyncio.wait_for(answer, LONGEST)
        if "error" in found:
            raise RuntimeError(f"{method}: {found['error']['message']}")
        return found["result"]

    async def run(self, script: str) -> Any:
        """The value of an expression, awaited, as if a user had just clicked.

        Raises:
            RuntimeError: it threw.
        """
        options = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        found = await self.call("Runtime.evaluate", expression=script, **options)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"].get("exception", {}).get("description", "the script threw"))
        return found["result"].get("value")

    async def until(self, condition: str, seconds: float = LONGEST) -> None:
        """Wait until an expression is true; one that throws, as before the page is loaded, is not.

        Raises:
            TimeoutError: it stays false.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if await self.run(f"(() => {{ try {{ return Boolean({condition}); }} catch {{ return false; }} }})()"):
                return
            await asyncio.sleep(0.1)
        raise TimeoutError(f"{condition} stays false; errors of the page: {self.errors}")

    async def screenshot(self, path: str | Path) -> None:
        """The page as a PNG."""
        found = await self.call("Page.captureScreenshot", format="png")
        Path(path).write_bytes(base64.b64decode(found["data"]))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Nobody reads a log of requests."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder's ``index.html`` behind a plain file server on the loopback."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/index.html"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.asynccontextmanager
async def opened(url: str, microphone: str | Path | None = None, size: tuple[int, int] = SIZE) -> AsyncIterator[Page]:
    """A tab with ``url``; its microphone plays a WAV file in a loop, or is refused where there is none.

    Raises:
        RuntimeError: no browser, or it does not start.
    """
    import aiohttp

    program = find_chromium()
    if program is None:
        raise RuntimeError("no Chromium: install the package 'chromium'")
    with tempfile.TemporaryDirectory(prefix="headstart-chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *_options(profile, microphone, size), "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with aiohttp.ClientSession() as client:
                target = await _target(client, Path(profile), process)
                async with client.ws_connect(target, max_msg_size=0) as socket:
                    page = Page(socket)
                    for domain in ("Runtime", "Log", "Page"):
                        await page.call(f"{domain}.enable")
                    await page.call("Page.navigate", url=url)
                    yield page
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _options(profile: str, microphone: str | Path | None, size: tuple[int, int]) -> list[str]:
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--autoplay-policy=no-user-gesture-required",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        f"--window-size={size[0]},{size[1]}",
        "--use-fake-device-for-media-stream",
    ]
    if microphone is None:
        return [*options, "--deny-permission-prompts"]
    return [*options, "--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={microphone}"]


async def _target(client: Any, profile: Path, process: subprocess.Popen[bytes]) -> str:
    """The tab's DevTools address."""
    written, end = profile / "DevToolsActivePort", time.monotonic() + LONGEST
    while process.poll() is None and time.monotonic() < end:
        if written.is_file() and written.read_text().count("\n"):
            port = written.read_text().split()[0]
            async with client.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tabs = [tab for tab in await answer.json() if tab["type"] == "page"]
            if tabs:
                return str(tabs[0]["webSocketDebuggerUrl"])
        await asyncio.sleep(0.1)
    raise RuntimeError(f"Chromium ended with status {process.poll()}, or did not start within {LONGEST:g} s")
