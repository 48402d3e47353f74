"""A small deterministic training for tests of the cluster room: counter data, a toy model, a loop.

The data of sample ``i`` is a function of ``i`` alone and a step reads a fixed range of them, cut among the ranks; so
what is read does not depend on the number of workers, as with the real reader.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

WIDTH = 6


class Toy(nn.Module):
    """A small regressor with a token of its own and sizes that two ranks cannot halve."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.full((WIDTH,), 0.1))
        self.layers = nn.Sequential(nn.Linear(WIDTH, 17), nn.GELU(), nn.LayerNorm(17), nn.Linear(17, 3))
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, batch: dict) -> tuple[torch.Tensor, dict]:
        output = self.layers(batch["x"] + self.token) * self.scale
        loss = (output - batch["y"]).square().mean()
        return loss, {"error": loss.detach()}


def samples(indices: range) -> dict[str, torch.Tensor]:
    """x (B, WIDTH), y (B, 3), each a function of its index."""
    rows = [torch.randn(WIDTH + 3, generator=torch.Generator().manual_seed(1000 + i)) for i in indices]
    values = torch.stack(rows)
    return {"x": values[:, :WIDTH], "y": values[:, WIDTH:].sin()}


def build(engine_config, steps: int = 20):
    """(engine, model, optimizer, scheduler), prepared; the same weights everywhere."""
    from cluster.engine.engine import Engine

    torch.manual_seed(7)
    torch.set_num_threads(1)
    engine = Engine(engine_config)
    model = Toy()
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1]},
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.02, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - 0.5 * step / steps)
    return engine, engine.prepare(model, optimizer, scheduler), optimizer, scheduler


def train_step(engine, model, step: int, batch: int) -> tuple[float, list[int]]:
    """One step on samples [step * batch, (step + 1) * batch); returns the mean loss and this rank's indices."""
    micro = batch // engine.config.accumulate
    losses, read = [], []
    for part in range(engine.config.accumulate):
        first = step * batch + part * micro
        share = micro // engine.world_size
        mine = range(first + engine.rank * share, first + (engine.rank + 1) * share)
        read += list(mine)
        loss, _ = model({k: v.to(engine.device) for k, v in samples(mine).items()})
        engine.backward(loss)
        losses.append(loss.detach())
    engine.clip_and_step()
    return float(engine.mean(torch.stack(losses).mean())), read


def digest(state: dict[str, torch.Tensor]) -> str:
    """sha256 over names and bytes of a state dict."""
    whole = hashlib.sha256()
    for name in sorted(state):
        whole.update(name.encode())
        whole.update(state[name].contiguous().numpy().tobytes())
    return whole.hexdigest()


def _strike(config: dict, context, step: int) -> None:
    """Do the damage that the test asked for, once: {"step", "rank", "how": a signal or "wait", "once": file}."""
    kill = config.get("kill") or {}
    if kill.get("step") != step or kill.get("rank") != context.rank or Path(kill["once"]).exists():
        return
    mark = Path(kill["once"])
    mark.with_suffix(".tmp").write_text(json.dumps({"pid": os.getpid(), "step": step}))
    mark.with_suffix(".tmp").rename(mark)
    if kill["how"] == "wait":  # the test does it from outside
        time.sleep(3600)
    os.kill(os.getpid(), getattr(signal, kill["how"]))
    _stand(context)  # a signal may take a while to arrive


def _stand(context) -> None:
    """Go no further until told to stop."""
    while not context.should_stop():
        time.sleep(0.01)


def listeners(config: dict, context) -> dict | None:
    """Where the launch's processes listen, and their command lines, while two workers are joined by a process group."""
    import psutil
    import torch.distributed as dist

    dist.all_reduce(torch.ones(4))
    if context.rank != 0:
        dist.barrier()
        return None
    driver = psutil.Process(config["driver"])
    family = {p.pid: " ".join(p.cmdline()) for p in [driver, *driver.children(recursive=True)]}
    sockets = [c for c in psutil.net_connections("inet") if c.status == "LISTEN" and c.pid in family]
    dist.barrier()
    return {"addresses": sorted({c.laddr.ip for c in sockets}), "count": len(sockets), "lines": list(family.values())}


def train(config: dict, context) -> dict | None:
    """What each worker runs: ``steps`` steps with a checkpoint every ``every``; returns the figures on rank 0.

    After step ``stand`` it goes on only to stop, so that a test that stops or kills it need not hurry; a worker that is
    alone goes no further than step ``company``, until another has joined.
    """
    from cluster.checkpoint import fetch_checkpoint, save_checkpoint
    from cluster.engine.engine import EngineConfig

    batch, steps = config.get("batch", 12), config["steps"]
    engine, model, _, _ = build(EngineConfig(**config.get("engine", {})), steps)
    start, losses, read = 0, [], []
    found = context.latest_checkpoint()
    if found:
        folder = fetch_checkpoint(found, context.scratch)
        engine.load(folder / "engine")
        saved = json.loads((folder / "toy.json").read_text())
        start, losses, read = saved["step"], saved["losses"], saved["read"]
    for step in range(start, steps):
        _strike(config, context, step)
        loss, mine = train_step(engine, model, step, batch)
        losses.append(loss)
        read.append(sorted(int(i) for row in engine.gather([float(i) for i in mine]) for i in row))
        time.sleep(config.get("pause", 0.0))
        if step + 1 == config.get("stand") or (context.world_size == 1 and step + 1 == config.get("company")):
            _stand(context)
        stop = engine.any(context.should_stop())
        if stop or (step + 1) % config.get("every", 5) == 0 or step + 1 == steps:

            def write(folder: Path, done: int = step + 1) -> None:
                engine.save(folder / "engine")
                (folder / "toy.json").write_text(json.dumps({"step": done, "losses": losses, "read": read}))

            url = save_checkpoint(context.run, step + 1, write, keep=2, main=engine.is_main)
            engine.barrier()
            context.report(url, {"loss": loss, "step": step + 1})
        if stop:
            break
    state = engine.full_state_dict()
    if not engine.is_main:
        return None
    return {
        "digest": digest(state),
        "losses": losses,
        "read": [i for row in read for i in row],
        "steps": len(losses),
        "started_at": start,
        "world": engine.world_size,
    }


def seat(config: dict[str, Any], context: Any) -> dict[str, Any]:
    """Where this worker sits; says what it is asked to, and prints what nobody should see."""
    from configs import progress

    print("chatter of a library", flush=True)
    print("chatter of a library", file=sys.stderr, flush=True)
    if config.get("say"):
        progress.say(config["say"])
        for _ in progress.tracked(range(3), "counting", 3, "steps"):
            pass
    return {"world": context.world_size, "rank": context.rank, "niceness": os.nice(0)}
