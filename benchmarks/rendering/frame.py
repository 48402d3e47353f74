"""A full avatar frame (rig, motion, colour, render, inpaint) at 256 and 512 px: frames per second, share of stages.

    python -m benchmarks frame [--sizes 256 512] [--frames 48] [--compile]

The head is the default recipe's with every part switched on, untrained: its speed does not depend on the weights. It moves
like a generated talker, in batches of four frames as in ``talk``, on the GPU if there is one. Stages are timed within one
pass (with CUDA events on a GPU); frames per second come from a pass without timers. Decoding, audio and the video encoder
are not included: see ``adapt``.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from benchmarks.results import row, write
from configs.devices import pick_device, synchronize

BATCH = 4
GOAL = "300 frames/s at 512 px on an H200"


def main(arguments: list[str] | None = None) -> None:
    """Measure and write ``results/frame.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks frame")
    parser.add_argument("--sizes", type=int, nargs="*", default=[256, 512])
    parser.add_argument("--frames", type=int, default=48, help="frames of each measurement")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile of the inpainter")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for size in options.sizes:
        rows += measured(size, options.frames, options.compile)
    write("frame", rows, f"batches of {BATCH} frames in evaluation mode; one pass to warm up; goal {GOAL}")


def measured(size: int, frames: int, compiled: bool, device: str = "auto") -> list[dict[str, Any]]:
    """Rows of one size: frames per second, then milliseconds and share of each stage."""
    import torch

    head = Scene(size, frames, device)
    case = f"avatar frame, {head.model.talking.n} Gaussians at {size}x{size}"
    goal = f"goal {GOAL}" if head.device.type == "cuda" and size == 512 else "25 frames/s of a live video"
    head.pass_over()
    whole = head.timed_pass()
    rows = [row(case, f"all, {head.device.type}", frames / whole, "frames/s", goal, frames / whole / 25)]
    clock = Clock(head.device)
    with clocks(head.model, clock):
        spent = head.timed_pass()
    stages = clock.seconds()
    stages["the rest"] = max(0.0, spent - sum(stages.values()))
    for name, seconds in stages.items():
        rows.append(row(case, name, 1e3 * seconds / frames, "ms a frame", "share of the frame", seconds / spent))
    if compiled:
        head.model.inpainting.net = torch.compile(head.model.inpainting.net)
        head.pass_over()
        faster = head.timed_pass()
        rows.append(row(case, "all, inpainter compiled", frames / faster, "frames/s", "not compiled", whole / faster))
    return rows


class Scene:
    """The default recipe's head, and what a generated talker's clip drives it with."""

    def __init__(self, size: int, frames: int, device: str = "auto") -> None:
        import numpy as np
        import torch

        from adapt.fit.context import auto_resolution
        from adapt.models.inpainting import Inpainting
        from adapt.models.rigged import RiggedHead
        from heads.person.inputs import TRACKED, head_inputs
        from heads.person.talking_head import HeadConfig
        from heads.rig import load_rig
        from shards.synthetic.generate import make_talker

        self.device = pick_device(device)
        self.frames = frames
        talker = make_talker(0).perform(frames / 25, 0, size)
        rig = load_rig()
        parts = HeadConfig(resolution=auto_resolution(size))
        identity, intrinsics = torch.zeros(rig.n_identity), torch.from_numpy(talker.intrinsics)
        model = RiggedHead(size, intrinsics, rig=rig, identity=identity, parts=parts, residual=True)
        model.inpainting = Inpainting()
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.drive = head_inputs({name: getattr(talker, name) for name in TRACKED}).to(self.device)
        grid = np.linspace(-1, 1, size, dtype=np.float32)
        oval = (grid[None] / 0.5) ** 2 + ((grid[:, None] + 0.1) / 0.7) ** 2 < 1
        self.region = torch.from_numpy(oval.astype(np.float32)).to(self.device).expand(BATCH, size, size)[..., None]
        self.body = torch.full((BATCH, size, size, 3), 0.4, device=self.device)

    def pass_over(self) -> None:
        """Every frame once, as ``Avatar.render`` makes it in front of the clip's own body."""
        import torch

        with torch.no_grad():
            for first in range(0, self.frames, BATCH):
                rendered = self.model(self.drive.pick(range(first, min(first + BATCH, self.frames))))
                count = len(rendered.image)
                self.model.inpainting(rendered, self.body[:count], self.region[:count])

    def timed_pass(self) -> float:
        """Seconds of a pass, the GPU's work included."""
        begin = time.perf_counter()
        self.pass_over()
        _wait(self.device)
        return time.perf_counter() - begin


def _wait(device: Any) -> None:
    synchronize(device)


class Clock:
    """Seconds by stage: CUDA events where the work is on a GPU, else the wall clock."""

    def __init__(self, device: Any) -> None:
        self.device, self.spans = device, {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times what happens inside."""
        begin = self._mark()
        try:
            yield
        finally:
            self.spans.setdefault(name, []).append((begin, self._mark()))

    def _mark(self) -> Any:
        import torch

        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self) -> dict[str, float]:
        """The sum of every stage."""
        _wait(self.device)
        if self.device.type == "cuda":
            return {name: sum(a.elapsed_time(b) for a, b in spans) / 1e3 for name, spans in self.spans.items()}
        return {name: sum(b - a for a, b in spans) for name, spans in self.spans.items()}


@contextlib.contextmanager
def clocks(model: Any, clock: Clock) -> Iterator[None]:
    """A clock around each stage of the model, none inside another."""
    import heads.person.talking_head as module

    talking = model.talking
    stages = [
        ("rig: vertices of the frame", type(model.rig), "vertices"),
        ("motion: eyes and mouth", type(model), "delta"),
        ("colour: residual of the condition", talking.color, "forward"),
        ("binding: Gaussians to triangles", type(talking.uv), "bind"),
        ("render: rasterisation", module, "render_head"),
        ("body: layer behind the head", type(model.backdrop), "forward"),
        ("inpaint", type(model.inpainting), "forward"),
    ]
    with contextlib.ExitStack() as stack:
        for name, place, attribute in stages:
            stack.enter_context(mock.patch.object(place, attribute, _timed(clock, name, getattr(place, attribute))))
        yield


def _timed(clock: Clock, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*arguments: Any, **options: Any) -> Any:
        with clock.stage(name):
            return function(*arguments, **options)

    return timed
