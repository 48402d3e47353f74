"""The cost of launching workers, and the speedup by a second worker on two cores.

The training is real (a convolutional network of 1 M parameters under the engine, gradients exchanged by gloo), the data is
synthetic. One worker and two have the same global batch; each worker has one thread, so two workers use two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from benchmarks.results import row, write

STEPS, WARMUP, BATCH, SIZE = 24, 4, 16, 64


def noop(config: dict, context: object) -> dict:
    """A training function that does nothing; tells the CPU seconds that the driver and all below it took until here."""
    return {"world": context.world_size, "cpu": _tree_seconds(config["driver"]) if "driver" in config else 0.0}


def _tree_seconds(driver: int) -> float:
    import psutil

    root, total = psutil.Process(driver), 0.0
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            spent = process.cpu_times()
            total += spent.user + spent.system
    return total


def dies_once(config: dict, context: object) -> dict | None:
    """Rank 1 is killed in the first attempt; returns the seconds from there to the second one on rank 0."""
    struck = Path(config["struck"])
    if struck.exists():
        return {"lost": time.time() - float(struck.read_text()), "world": context.world_size}
    if context.rank == 1:
        struck.write_text(str(time.time()))
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)
    return None


def train(config: dict, context: object) -> dict | None:
    """Steps a second after a warm-up."""
    import torch
    from torch import nn

    from cluster.engine.engine import Engine, EngineConfig

    torch.set_num_threads(1)
    torch.manual_seed(0)
    engine = Engine(EngineConfig(**config["engine"]))
    widths = [3, 64, 128, 256]
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Conv2d(a, b, 3, stride=2, padding=1), nn.SiLU())]
    model = nn.Sequential(*layers, nn.Conv2d(256, 256, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.LazyLinear(8))
    model(torch.zeros(1, 3, SIZE, SIZE))
    model = engine.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
    share = BATCH // engine.world_size
    batch = torch.rand(share, 3, SIZE, SIZE, device=engine.device)
    for step in range(STEPS + WARMUP):
        if step == WARMUP:
            engine.barrier()
            started = time.perf_counter()
        engine.backward(model(batch).square().mean())
        engine.clip_and_step()
    engine.barrier()
    return {"steps_per_second": STEPS / (time.perf_counter() - started), "world": engine.world_size}


def main() -> None:
    """Write ``results/launch.json``."""
    parser = argparse.ArgumentParser(prog="benchmarks launch", description=__doc__.split("\n\n")[0])
    parser.add_argument("--starts", action="store_true", help="print starts and restarts only, and store nothing")
    if parser.parse_args().starts:
        for line in (*_starts(), _event()):
            print(f"{line['case']}, {line['variant']}: {line['value']:.2f} {line['unit']}")
        raise SystemExit
    rows = [_help(), *_starts(), _event(), *_throughput()]
    load = os.getloadavg()[0]
    write(
        "launch",
        rows,
        f"load average {load:.1f} on {os.cpu_count()} cores when it ended; 1 or less means a quiet machine",
    )


def _help() -> dict:
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "headstart", "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - started)
    return row("headstart --help", "fresh process, best of 5", min(times), "s", "well under 1 s", min(times))


def _launch(target: str, config: dict, **options: object) -> tuple[dict, float]:
    """(result, seconds) of a launch in a fresh process, as a user starts one."""
    script = (
        "import json, os, sys, tempfile, time; from cluster.launch.launch import launch\n"
        "if __name__ == '__main__':\n"
        "    a = json.loads(sys.argv[1]); t = time.perf_counter()\n"
        "    c = a['config'] | ({} if a['options'].get('ray') is False else {'driver': os.getpid()})\n"
        "    r = launch(a['target'], c, run=tempfile.mkdtemp(), **a['options'])\n"
        "    print(json.dumps([r, time.perf_counter() - t]))\n"
    )
    import json

    arguments = json.dumps({"target": target, "config": config, "options": options})
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPATH": os.getcwd(), "TMPDIR": folder, "RAY_TMPDIR": "/tmp"}
        done = subprocess.run(
            [sys.executable, "-c", script, arguments], capture_output=True, text=True, env=environment, check=False
        )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    result, seconds = json.loads(done.stdout.strip().splitlines()[-1])
    return result, seconds


def _starts() -> list[dict]:
    case = "a launch that does nothing"
    _, here = _launch("benchmarks.training.launch:noop", {}, ray=False)
    first, one = _launch("benchmarks.training.launch:noop", {}, workers=1)
    second, two = _launch("benchmarks.training.launch:noop", {}, workers=2)
    return [
        row(case, "in this process (--no-ray)", here, "s", "without Ray: what starting Python and torch costs"),
        row(case, "private Ray, 1 worker", one, "s", "in this process", one / here),
        row(case, "private Ray, 2 workers", two, "s", "1 worker; 10 to 15 s in a study of Ray alone", two / one),
        row(case, "private Ray, 1 worker: CPU time of all processes", first["cpu"], "s", "24.3 at commit 8f60b3b"),
        row(case, "private Ray, 2 workers: CPU time of all processes", second["cpu"], "s"),
    ]


def _event() -> dict:
    """Seconds that a killed worker costs, without the steps since the last checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        result, _ = _launch("benchmarks.training.launch:dies_once", {"struck": f"{folder}/struck"}, workers=2)
    return row("one of two workers killed", "until both train again", result["lost"], "s")


def _throughput() -> list[dict]:
    case = f"training, global batch {BATCH} at {SIZE} px, one thread a worker"
    rows, peer = [], None
    for variant, workers, mode in (
        ("1 worker", 1, "plain"),
        ("2 workers, ddp", 2, "ddp"),
        ("2 workers, zero2", 2, "zero2"),
    ):
        cluster = {"workers": workers, "cpus_per_worker": 1}
        result, _ = _launch(
            "benchmarks.training.launch:train", {"engine": {"mode": mode, "device": "cpu"}}, cluster=cluster
        )
        speed = result["steps_per_second"]
        peer = peer or speed
        rows.append(row(case, variant, speed, "steps/s", "1 worker; 1.7 or more wanted for ddp", speed / peer))
    return rows


if __name__ == "__main__":
    main()
