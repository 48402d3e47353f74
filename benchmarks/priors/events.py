"""What a killed worker, a machine that leaves and a machine that joins cost a run, in this checkout and an earlier commit.

    python -m benchmarks events [--commit 8f60b3b] [--rounds 2] [--events workers nodes early]

Two workers train a small network under the engine, with a step every 0.1 s and a checkpoint every five. The time lost is
that without a finished step: from the event to the first step after it; for a machine that joins, from the last step of
one worker to the first step of two. A machine that joins also slows the steps until then, most of all here, where all share
two cores; that is counted as well. Steps since the last checkpoint, which are done again, come on top. The killed worker
is one of a private Ray: ``workers`` kills it a minute after the first step, ``early`` at the eighth step. Machines leave
and join a Ray cluster of two machines on the loopback.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import row, stored, write
from benchmarks.training.against import HERE, checkout

# What each worker runs, and what drives it: of neither checkout, so that both train the same.
JOB = """
import json, os, signal, time
from pathlib import Path


def train(config, context):
    import torch
    from torch import nn
    from cluster.checkpoint import fetch_checkpoint, save_checkpoint
    from cluster.engine.engine import Engine, EngineConfig

    folder, step = Path(config["folder"]), 0
    torch.set_num_threads(1)
    torch.manual_seed(0)
    engine = Engine(EngineConfig(device="cpu"))
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 8))
    model = engine.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
    if found := context.latest_checkpoint():
        saved = fetch_checkpoint(found, context.scratch)
        engine.load(saved / "engine")
        step = json.loads((saved / "step.json").read_text())
    begun = time.time()
    while True:
        due = step >= 8 and time.time() - begun >= config["after"]
        if context.rank == 1 and due and not (folder / "pid").exists():
            (folder / "event").write_text(json.dumps(time.time()))
            (folder / "pid").write_text(str(os.getpid()))
            if config["kill"]:
                os.kill(os.getpid(), signal.SIGKILL)
        engine.backward(model(torch.ones(4, 64)).square().mean())
        engine.clip_and_step()
        step, over = step + 1, engine.any((folder / "over").exists() or context.should_stop())
        if engine.is_main:
            with open(folder / "steps", "a") as log:
                log.write(json.dumps([time.time(), engine.world_size]) + "\\n")
        if over:
            return {"step": step} if engine.is_main else None
        time.sleep(0.1)
        if step % 5 == 0:

            def write(where):
                engine.save(where / "engine")
                (where / "step.json").write_text(json.dumps(step))

            save_checkpoint(context.run, step, write, keep=2, main=engine.is_main)
            engine.barrier()
"""

DRIVER = """
import json, os, statistics, sys, threading, time
from pathlib import Path

PATIENCE = 240.0  # seconds, after which something has gone wrong


def steps():
    lines = (folder / "steps").read_text().splitlines() if (folder / "steps").exists() else []
    return [json.loads(line) for line in lines]


def until(found):
    end = time.time() + PATIENCE
    while time.time() < end and thread.is_alive():
        if answer := found():
            return answer
        time.sleep(0.05)
    raise SystemExit(f"waited too long, or the run has ended: {outcome}")


def first(after, world):
    return next((t for t, w in steps() if t > after and w == world), None)


def run(**more):
    from cluster.launch.launch import launch

    try:
        config = {"folder": str(folder), "kill": not nodes, "after": float(sys.argv[3])}
        outcome.append(launch("job:train", config, run=str(folder / "run"), cluster=ClusterConfig(workers=2, **more)))
    except BaseException as error:
        outcome.append(error)


def killed():
    return {sys.argv[2]: until(lambda: first(event(), 2)) - event()}


def event():
    return until(lambda: (folder / "pid").exists()) and json.loads((folder / "event").read_text())


def moved():
    import psutil

    event()
    above = {parent.pid for parent in psutil.Process(int((folder / "pid").read_text())).parents()}
    node = next(n for n in cluster.worker_nodes if n.all_processes["raylet"][0].process.pid in above)
    left = time.time()
    cluster.remove_node(node, allow_graceful=False)
    lost = {"leaves": until(lambda: first(left, 1)) - left}
    until(lambda: steps()[-1][1] == 1 and len([1 for t, w in steps() if t > left]) > 12)
    joined = time.time()
    cluster.add_node(num_cpus=1, **SMALL)
    two = until(lambda: first(joined, 2))
    alone = [t for t, w in steps() if w == 1 and left < t < two]
    before = [t for t in alone if t < joined]
    pace = statistics.median(b - a for a, b in zip(before, before[1:]))
    lost["joins"] = two - alone[-1]
    lost["joins in all"] = two - joined - pace * (len(alone) - len(before))
    return lost | {"until two": two - joined}


if __name__ == "__main__":
    from cluster.launch import ray_start
    from cluster.launch.settings import ClusterConfig

    folder, nodes, outcome, more = Path(sys.argv[1]), sys.argv[2] == "nodes", [], {}
    SMALL = {"object_store_memory": 80 * 2**20}
    if nodes:
        ray_start.prepare_environment(ClusterConfig(), imported=False)
        import ray
        from ray.cluster_utils import Cluster

        quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": quick, **SMALL})
        for _ in range(2):
            cluster.add_node(num_cpus=1, **SMALL)
        ray.init(address=cluster.address, logging_level="WARNING", log_to_driver=False)
        more = {"min_workers": 1, "resize_every": 1.0, "address": cluster.address}
    thread = threading.Thread(target=run, kwargs=more)
    thread.start()
    lost = moved() if nodes else killed()
    (folder / "over").touch()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    print(json.dumps(lost))
    if nodes:
        ray.shutdown()
        cluster.shutdown()
"""
AFTER = 60.0  # seconds of training before a worker is killed, which a prepared process needs to be there
CASES = {
    "early": "one of two workers of a private Ray is killed at the eighth step, until the next step",
    "workers": "one of two workers of a private Ray is killed after a minute, until the next step",
    "leaves": "one of two machines is lost, until the next step, with one worker",
    "joins": "a machine joins, without a step from one worker to two",
    "joins in all": "a machine joins, until the first step of two workers, less the steps done meanwhile at the pace before",
    "until two": "a machine joins, until the first step of two workers",
}


def events(root: Path, kind: str) -> dict[str, float]:
    """Seconds lost by each event of a kind in one run of a checkout's code."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "job.py").write_text(JOB)
        (folder / "drive.py").write_text(DRIVER)
        environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{scratch}", "OMP_NUM_THREADS": "1"}
        after = AFTER if kind == "workers" else 0.0
        command = [sys.executable, str(folder / "drive.py"), scratch, kind, str(after)]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the run of {root.name} failed: {done.stderr[-2000:]}")
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))


def compared(earlier: Path, kinds: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Rows of all events, for both checkouts in turn."""
    times: dict[str, list[list[float]]] = {}
    for _ in range(rounds):
        for kind in kinds:
            pair = [events(root, kind) for root in (earlier, HERE)]
            print(json.dumps(pair), flush=True)
            for name in pair[0]:
                times.setdefault(name, []).append([side[name] for side in pair])
    rows = []
    for name, pairs in times.items():
        before, now = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
        ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
        rows.append(row(CASES[name], "earlier commit", before, "s"))
        rows.append(row(CASES[name], "this checkout", now, "s", "share of the earlier commit's time", ratio))
    return rows


def main() -> None:
    """Write ``results/events.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", default="8f60b3b")
    parser.add_argument("--rounds", type=int, default=2)
    kinds = ("workers", "nodes", "early")
    parser.add_argument("--events", nargs="+", choices=kinds, default=kinds)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        earlier = checkout(given.commit, Path(scratch) / given.commit)
        rows = compared(earlier, given.events, given.rounds)
    notes = f"earlier commit {given.commit}, in turn, medians of {given.rounds} rounds; load {os.getloadavg()[0]:.1f}"
    measured = {line["case"] for line in rows}
    rows += [line for line in stored("events") if line["case"] not in measured]
    write("events", rows, notes, command=f"events --commit {given.commit} --rounds {given.rounds}")


if __name__ == "__main__":
    main()
