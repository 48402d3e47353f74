"""Everything that needs a GPU, in one command of about half an hour, into one file.

    python -m benchmarks gpu [--device cuda] [--only PART ...] [--again]

Each part has its own process and time limit, and its result is written as soon as it is done, so a part that fails or
hangs costs no other. A second call runs what is missing (``--again``: everything). Parts that the machine cannot run are
listed with the reason. ``--device standin`` runs the parts that do not need CUDA, at small sizes, on the stand-in device
(:mod:`benchmarks.standin`); that shows only that they run, since its speeds are meaningless.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import FOLDER, commit, row
from configs import InputError, machine
from configs.devices import is_accelerator, peak_memory, pick_device, synchronize

ROOT = Path(__file__).parents[2]
PRIORS = ("audio-expression", "expression-visual", "sync-expert")
REHEARSAL = "small sizes on a device that is no GPU: shows that the parts run; its speeds and qualities mean nothing"
Rows = list[dict[str, Any]]


class Missing(Exception):
    """A part cannot run here; says why."""


@dataclass(frozen=True)
class Part:
    """One thing to find out: its name, what finds it out, and seconds that it may take."""

    name: str
    run: Callable[[str], Rows]
    seconds: float
    cuda: bool = False


def main() -> None:
    """Run the parts that are not done yet, and write the result after each."""
    parser = argparse.ArgumentParser(prog="benchmarks gpu", description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, standin or cpu")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], default=None)
    parser.add_argument("--again", action="store_true", help="parts that are done, too")
    parser.add_argument("--out", type=Path, help="default: results/gpu.json, or results/gpu_DEVICE.json without CUDA")
    options = parser.parse_args()
    out = options.out or result_file(options.device)
    record = begin(options.device, out, options.again)
    for part in PARTS:
        if options.only is not None and part.name not in options.only:
            continue
        if record["parts"].get(part.name, {}).get("state") == "done":
            print(f"{part.name}: done before", flush=True)
            continue
        record["parts"][part.name] = found = attempt(part, options.device)
        record["rows"] = [line for done in record["parts"].values() for line in done["rows"]]
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1) + "\n")
        print(f"{part.name}: {found['state']} {found['why']} ({found['seconds']:.0f} s)", flush=True)
        for line in found["rows"]:
            print(f"    {line['case']}, {line['variant']}: {line['value']:.5g} {line['unit']}", flush=True)


def result_file(device: str) -> Path:
    """Where results of a device go: a rehearsal without CUDA leaves the file of a GPU as it is."""
    return FOLDER / ("gpu.json" if device == "cuda" else f"gpu_{device}.json")


def begin(device: str, out: Path, again: bool) -> dict[str, Any]:
    """The record so far, of the same commit and device, or a new one."""
    name = "no CUDA device here" if device == "cuda" and not _has_cuda() else machine_name(device)
    record = {
        "benchmark": "gpu",
        "device": name,
        "commit": commit(),
        "command": "python -m benchmarks gpu",
        "notes": "each part in a process of its own" + ("" if device == "cuda" else f"; {REHEARSAL}"),
        "parts": {},
        "rows": [],
    }
    if device != "cuda":
        record["command"] += f" --device {device}"
    if out.exists() and not again:
        before = json.loads(out.read_text())
        if all(before.get(key) == record[key] for key in ("device", "commit", "command")):
            return before
    return record


def machine_name(device: str) -> str:
    """What reports call the device; the stand-in is not loaded for it."""
    return "stand-in device in host memory" if device == "standin" else machine.device_name(device)


def attempt(part: Part, device: str) -> dict[str, Any]:
    """Run a part in a process of its own."""
    started = time.perf_counter()
    if (part.cuda or device == "cuda") and (device != "cuda" or not _has_cuda()):
        return {"state": "skipped", "why": "needs CUDA", "seconds": 0.0, "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        process = multiprocessing.get_context("spawn").Process(target=_child, args=(part.name, device, str(answer)))
        process.start()
        process.join(part.seconds)
        if process.is_alive():
            process.kill()
            process.join()
            found = {"state": "failed", "why": f"not done after {part.seconds:.0f} s", "rows": []}
        elif answer.exists():
            found = json.loads(answer.read_text())
        else:
            found = {"state": "failed", "why": f"the process ended with {process.exitcode}", "rows": []}
    return {**found, "seconds": round(time.perf_counter() - started, 1)}


def _child(name: str, device: str, answer: str) -> None:
    part = next(part for part in PARTS if part.name == name)
    try:
        with prepared(device):
            found = {"state": "done", "why": "", "rows": part.run(device)}
    except Missing as missing:
        found = {"state": "skipped", "why": str(missing), "rows": []}
    except Exception as error:
        traceback.print_exc()
        found = {"state": "failed", "why": f"{type(error).__name__}: {error}"[:500], "rows": []}
    Path(answer).write_text(json.dumps(found))


@contextlib.contextmanager
def prepared(device: str) -> Iterator[None]:
    """The stand-in with its kernels, where it is the device."""
    if device != "standin":
        yield
        return
    from benchmarks.standin import load
    from benchmarks.standin.kernels import played

    load()
    with played():
        yield


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _small(device: str) -> bool:
    return device != "cuda"


# ----------------------------------------------------------------------------------------------------------- parts


def the_machine(device: str) -> Rows:
    """What there is."""
    import torch

    count = torch.cuda.device_count()
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    variant = f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    return [row("GPUs", variant, count, ""), row("memory of one", variant, memory, "GiB")]


def parity_gsplat(device: str) -> Rows:
    """Pictures and gradients of gsplat against the PyTorch reference, as shares of the reference's largest value."""
    from benchmarks.rendering.raster import scene
    from heads import rasterization
    from heads.raster.registry import probes

    if not is_accelerator(pick_device(device)):
        raise Missing("gsplat needs a GPU")
    if not (probe := probes()["gsplat"]).ok:
        raise Missing(f"gsplat: {probe.detail}")
    number, size = (300, 64) if _small(device) else (2000, 128)
    found = []
    for backend in ("gsplat", "reference"):
        arguments = scene(number, size, device)
        leaves = [tensor.requires_grad_() for tensor in arguments[:6]]
        image, alpha, _ = rasterization(*arguments, backend=backend, render_mode="RGB+D")
        (image.square().mean() + alpha.mean()).backward()
        found.append([image.detach(), *[tensor.grad for tensor in leaves]])
    rows = []
    for k, (theirs, ours) in enumerate(zip(*found)):
        error = ((theirs - ours).abs().flatten().float() / ours.abs().max().clamp_min(1e-12)).cpu()
        name = "picture" if k == 0 else f"gradient {k}"
        rows.append(
            row(f"gsplat, {name}", "99.9 % of the values", float(error.quantile(0.999)), "of the largest", "0.01")
        )
        if float(error.quantile(0.99)) > 0.01:
            raise AssertionError(f"gsplat's {name} differs from the reference by {float(error.quantile(0.99)):.4f}")
    return rows


def parity_tinycudann(device: str) -> Rows:
    """Features and gradients of tinycudann against the PyTorch reference."""
    import torch

    from heads.motion import encoding

    place = pick_device(device)
    if not encoding.tinycudann_available():
        raise Missing("tinycudann is not installed")
    theirs, ours = (encoding.TriPlaneHash(backend=name).to(place) for name in ("auto", "torch"))
    with torch.no_grad():
        ours.params.uniform_(-1, 1)
        theirs.params.copy_(ours.params)
    points = torch.rand(4096, 3, device=place) * 4 - 2
    rows, outputs = [], [grid(points) for grid in (theirs, ours)]
    for output in outputs:
        output.square().mean().backward()
    pairs = (("features", *outputs), ("gradient", theirs.params.grad, ours.params.grad))
    for name, a, b in pairs:
        error = float(((a - b).abs().max() / b.abs().max()).detach().cpu())
        rows.append(row(f"tinycudann, {name}", "largest difference", error, "of the largest", "0.001"))
        if error > 1e-3:
            raise AssertionError(f"tinycudann's {name} differ from the reference by {error:.5f}")
    return rows


def gpu_tests(device: str) -> Rows:
    """The tests that are marked ``gpu``."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        raise AssertionError(run.stdout[-400:])
    return [row("tests marked gpu", run.stdout.strip().splitlines()[-1], 1, "passed")]


def nccl(device: str) -> Rows:
    """An all-reduce of 256 MB and of gradients under DDP, over one and over all GPUs."""
    import torch
    import torch.multiprocessing

    rows = []
    for world in sorted({1, torch.cuda.device_count()}):
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(_exchange, args=(world, folder), nprocs=world)
            seconds, loss = json.loads((Path(folder) / "rank0.json").read_text())
        gigabytes = 0.25 * 2 * (world - 1) / world / seconds if world > 1 else 0.25 / seconds
        rows.append(row(f"NCCL, {world} GPUs, all-reduce of 256 MB", "bus bandwidth", gigabytes, "GB/s"))
        rows.append(row(f"NCCL, {world} GPUs, DDP, 20 steps", "loss of the same global batch", loss, ""))
    if len(rows) > 2 and abs(rows[1]["value"] - rows[3]["value"]) > 1e-3 * abs(rows[1]["value"]):
        raise AssertionError(f"the loss depends on the number of GPUs: {rows[1]['value']}, {rows[3]['value']}")
    return rows


def _exchange(rank: int, world: int, folder: str) -> None:
    import os

    import torch
    import torch.distributed as dist

    from cluster.engine import process_group
    from cluster.engine.config import EngineConfig
    from cluster.engine.engine import Engine

    torch.cuda.set_device(rank)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1")
    dist.init_process_group(
        "cpu:gloo,cuda:nccl", store=dist.FileStore(f"{folder}/store", world), rank=rank, world_size=world
    )
    block = torch.ones(64 << 20, device="cuda")
    for turn in range(6):
        if turn == 1:
            torch.cuda.synchronize()
            started = time.perf_counter()
        dist.all_reduce(block)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / 5
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 1))
    engine = Engine(EngineConfig(mode="ddp", device="cuda"))
    model = engine.prepare(layers, torch.optim.AdamW(layers.parameters(), lr=1e-3))
    for step in range(20):
        whole = torch.randn(64, 64, generator=torch.Generator().manual_seed(step)).to(engine.device)
        loss = model(whole.chunk(world)[rank]).square().mean()
        engine.backward(loss)
        engine.clip_and_step()
    mean = float(engine.mean(loss))
    if rank == 0:
        (Path(folder) / "rank0.json").write_text(json.dumps([seconds, mean]))
    process_group.disconnect()


def training(device: str) -> Rows:
    """Steps a second, samples a second and peak memory of every prior in ``base`` and ``large``."""
    from benchmarks.training.pretrain import dataset, trainer

    sizes = ("tiny",) if _small(device) else ("base", "large")
    steps, rows = (2, []) if _small(device) else (30, [])
    changes = [f"engine.device={device}", *(["batch_size=2"] if _small(device) else [])]
    with tempfile.TemporaryDirectory() as folder:
        data = dataset(folder, people=4, seconds=4.0 if _small(device) else 12.0)
        for prior in PRIORS:
            for size in sizes:
                little = ["size=64", "model.resolution=32", "model.channels=8"] if prior == "expression-visual" else []
                options = [*changes, *(little if _small(device) else [])]
                try:
                    built = trainer(prior, size, data, f"{folder}/{prior}-{size}", *options)
                except InputError as error:  # features of an encoder that is not here
                    rows.append(row(f"{prior} {size}", f"not measured: {error}", 0.0, ""))
                    continue
                rows += _trained(f"{prior} {size}", built, steps)
                built.close()
    return rows


def _trained(case: str, built: Any, steps: int) -> Rows:
    device = built.engine.device
    for _ in range(max(1, steps // 5)):
        built.train_step()
    synchronize(device)
    started = time.perf_counter()
    for _ in range(steps):
        built.train_step()
    synchronize(device)
    rate, batch = steps / (time.perf_counter() - started), built.config.batch_size
    return [
        row(f"{case}, batch {batch}", "training", rate, "steps/s"),
        row(f"{case}, batch {batch}", "training", rate * batch, "samples/s"),
        row(f"{case}, batch {batch}", "peak memory", (peak_memory(device) or 0) / 2**20, "MB"),
    ]


def adaptation(device: str) -> Rows:
    """A generated talker's video at 512 px, adapted for 60 seconds, its last frames measured."""
    from adapt.avatar.avatar import load_avatar
    from adapt.clip import track_clip
    from benchmarks.adaptation.adapt import generated
    from benchmarks.adaptation.fit import evaluate
    from benchmarks.adapting import adapt

    size, seconds, budget = (64, 2.0, "6it") if _small(device) else (512, 20.0, "60s")
    with tempfile.TemporaryDirectory() as folder:
        video = generated(Path(folder), seconds, 256 if _small(device) else 512)
        with track_clip(video, size=size) as whole:
            cut = len(whole) * 10 // 11
            with whole.stretch(0, cut) as part:
                result = adapt(video, Path(folder) / "avatar", prior="none", budget=budget, device=device, clip=part)
            measured, _ = evaluate(load_avatar(result["avatar"], device), whole, range(cut, len(whole)))
    case = f"adaptation, {size}x{size}, {budget}"
    rows = [row(case, f"PSNR {name}", value, "dB") for name, value in measured.items() if name != "ssim"]
    return [*rows, row(case, "steps", result["iterations"], ""), row(case, "SSIM", measured["ssim"], "")]


def frames(device: str) -> Rows:
    """An avatar's frames a second at 512 px, by stage."""
    from benchmarks.rendering import frame

    sizes = (64,) if _small(device) else (256, 512)
    return [line for size in sizes for line in frame.measured(size, 8 if _small(device) else 96, False, device)]


def rasteriser(device: str) -> Rows:
    """gsplat through our function, by scene."""
    from benchmarks.rendering.raster import gpu_rows

    if not (rows := gpu_rows()):
        raise Missing("gsplat is not usable")
    return rows


PARTS = (
    Part("machine", the_machine, 60, cuda=True),
    Part("parity-gsplat", parity_gsplat, 420),  # gsplat builds its kernels at first use
    Part("parity-tinycudann", parity_tinycudann, 120),
    Part("tests", gpu_tests, 300, cuda=True),
    Part("nccl", nccl, 180, cuda=True),
    Part("training", training, 480),
    Part("adaptation", adaptation, 240),
    Part("frames", frames, 180),
    Part("rasteriser", rasteriser, 180, cuda=True),
)
