"""How long a rank waits for data: one rank of a node with eight GPUs, its computing replaced by sleep.

    python -m benchmarks waits [--latency 0.02]

The rank reads its share of the plan of eight ranks with two worker processes, takes batches from the thread that
training takes them from (:class:`pretrain.data.prefetch.Prefetcher`), and "computes" each for a fixed time. The store is a
server on the loopback that answers ranged requests as S3 does, each after a fixed latency. Reading is real: plan,
requests, checksums, decoding. The first batches, which a run waits for once, are left out.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.results import row, write
from benchmarks.training import reader as small
from benchmarks.training.views import SequenceView
from pretrain.data.prefetch import Prefetcher
from shards import Reader, open_dataset
from shards.read.view import PairView, View

RANKS, SHARE, WORKERS, WARMUP, STEPS = 8, 8, 2, 4, 30
PREFETCH = 2  # batches, the default of training
BUCKET = "waits"
RATE = 8.0  # samples a second of this one rank: 4,096 on 512 ranks in steps of a second, as in docs/scaling.md
VIEWS: dict[str, View] = {
    "features and track": SequenceView(window=50),
    "six frames at 256 px": PairView(size=256, targets=5, across=0.7, bytes=True, grouped=True),
}


def main() -> None:
    """Write ``results/waits.json``."""
    parser = argparse.ArgumentParser(prog="benchmarks waits", description=__doc__.split("\n\n")[0])
    parser.add_argument("--latency", type=float, default=0.02, help="seconds before the store answers")
    latency = parser.parse_args().latency
    with tempfile.TemporaryDirectory() as scratch:
        folder = small.make(Path(scratch) / BUCKET)
        rows = [line for name, view in VIEWS.items() for line in measured(name, str(folder), view)]
        with store(Path(scratch), latency):
            for name, view in VIEWS.items():
                rows += measured(name, f"s3://{BUCKET}", view, f"S3 on the loopback, {1000 * latency:.0f} ms a request")
    notes = f"one of {RANKS} ranks, {SHARE} samples a batch, {WORKERS} worker processes; load {os.getloadavg()[0]:.1f}"
    write("waits", rows, notes)


def measured(name: str, url: str, view: View, source: str = "local tars") -> list[dict]:
    """Share of the time that the rank waits for its next batch, after the first batches."""
    reader = Reader(open_dataset(url), view, batch_size=RANKS * SHARE, rank=3, world_size=RANKS, workers=WORKERS)
    waited, started = 0.0, time.perf_counter()
    batches = Prefetcher(reader, PREFETCH)
    batches.next()
    first = time.perf_counter() - started
    for step in range(WARMUP + STEPS):
        if step == WARMUP:
            waited, started = 0.0, time.perf_counter()
        time.sleep(SHARE / RATE)
        asked = time.perf_counter()
        batches.next()
        waited += time.perf_counter() - asked
    share = waited / (time.perf_counter() - started)
    batches.close()
    case = f"{name}, {RATE:g} samples/s a rank"
    return [
        row(case, f"{source}: waiting for data", 100 * share, "%", "at most 3 %"),
        row(case, f"{source}: first batch", first, "s"),
    ]


@contextmanager
def store(root: Path, latency: float) -> Iterator[None]:
    """A server in a process of its own; while it runs, the environment names it as the S3 endpoint."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there, str(root), latency), daemon=True)
    process.start()
    changes = {
        "AWS_ENDPOINT_URL": here.recv(),
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        process.kill()
        process.join()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def serve(door: Connection, root: str, latency: float) -> None:
    """Files below ``root`` as objects; sends its address through ``door`` first."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            time.sleep(latency)
            path = Path(root) / self.path.split("?")[0].lstrip("/")
            if not path.is_file():
                self._answer(404, b"", {})
                return
            size = path.stat().st_size
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            first, last = (int(span[1]), min(int(span[2] or size - 1), size - 1)) if span else (0, size - 1)
            with open(path, "rb") as stream:
                stream.seek(first)
                data = stream.read(last - first + 1)
            ranged = {"Content-Range": f"bytes {first}-{last}/{size}"} if span else {}
            self._answer(206 if span else 200, data, {"ETag": '"none"', **ranged})

        do_HEAD = do_GET

        def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    door.send(f"http://127.0.0.1:{server.server_address[1]}")
    server.serve_forever()


if __name__ == "__main__":
    main()
