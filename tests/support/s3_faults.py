"""An S3 server on the loopback (moto) behind a proxy that breaks requests on demand."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

BUCKET = "bucket"
Fault = str | None
# 503: refused by a busy server; reset: the connection dies before anything is done; cut: half of the answer's body;
# lost: the work is done and the answer lost; slow: one byte at a time.
FAULTS = ("503", "reset", "cut", "lost", "slow")


class FaultyS3:
    """Requests go to the server behind unless ``plan(method, path, number)`` names a fault for them."""

    def __init__(self, port: int) -> None:
        self.plan: Callable[[str, str, int], Fault] = lambda method, path, number: None
        self.requests: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                outer._serve(self, port)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def fail(self, fault: str, times: int, method: str | None = None, part: str = "") -> None:
        """Break the next ``times`` requests of a method whose path contains ``part``."""
        left = [times]

        def plan(this: str, path: str, number: int) -> Fault:
            if left[0] > 0 and (method is None or this == method) and part in path:
                left[0] -= 1
                return fault
            return None

        self.plan = plan

    def heal(self) -> None:
        """Break nothing."""
        self.plan = lambda method, path, number: None

    def _serve(self, handler: BaseHTTPRequestHandler, port: int) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        with self._lock:
            self.requests.append((handler.command, handler.path))
            fault = self.plan(handler.command, handler.path, len(self.requests))
        if fault == "503":
            handler.send_response(503)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if fault == "reset":
            _hang_up(handler)
            return
        connection = http.client.HTTPConnection("127.0.0.1", port)
        # The Host header stays: a real store checks the signature over it.
        connection.request(handler.command, handler.path, body=body, headers=dict(handler.headers.items()))
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if fault == "lost":
            _hang_up(handler)
            return
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                handler.send_header(name, value)
        length = answer.getheader("Content-Length") if handler.command == "HEAD" else str(len(data))
        handler.send_header("Content-Length", length or "0")
        handler.end_headers()
        with contextlib.suppress(OSError):
            if fault == "cut":
                handler.wfile.write(data[: len(data) // 2])
                handler.wfile.flush()
                _hang_up(handler)
            elif fault == "slow":
                for at in range(len(data)):
                    handler.wfile.write(data[at : at + 1])
                    handler.wfile.flush()
                    time.sleep(0.2)
            elif handler.command != "HEAD":
                handler.wfile.write(data)


def _hang_up(handler: BaseHTTPRequestHandler) -> None:
    with contextlib.suppress(OSError):
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        handler.connection.close()
    handler.close_connection = True


def _moto() -> object:
    import logging
    import urllib.request

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    # moto keeps its buckets for the whole process: without this a test file meets the objects of the one before it.
    urllib.request.urlopen(
        urllib.request.Request("http://{}:{}/moto-api/reset".format(*server.get_host_and_port()), method="POST")
    ).close()
    return server


@contextlib.contextmanager
def s3_server() -> Iterator[FaultyS3]:
    """An S3 with one bucket; the environment points at it, with quick retries.

    moto unless ``HEADSTART_TEST_S3`` names a real store on this machine (``make test-s3``), with
    ``HEADSTART_TEST_S3_KEY`` and ``HEADSTART_TEST_S3_SECRET``.
    """
    import boto3

    real = os.environ.get("HEADSTART_TEST_S3")
    moto = None if real else _moto()
    port = urlsplit(real).port if real else moto.get_host_and_port()[1]
    proxy = FaultyS3(port)
    settings = {
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_ACCESS_KEY_ID": os.environ.get("HEADSTART_TEST_S3_KEY", "tester"),
        "AWS_SECRET_ACCESS_KEY": os.environ.get("HEADSTART_TEST_S3_SECRET", "hush-hush"),
        "AWS_DEFAULT_REGION": "us-east-1",
        "HEADSTART_STORAGE_BACKOFF": "0.01",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}").create_bucket(Bucket=BUCKET)
        yield proxy
    finally:
        proxy.server.shutdown()
        if moto is not None:
            moto.stop()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
