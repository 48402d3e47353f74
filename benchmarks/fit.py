"""Fitting a head to one person's clip for a minute, no prior: quality on the unseen last eleventh, and the pictures.

The clips lie beside the project (``../shared/clips``) and are not ours to publish, so the strips of true, rendered and
difference frames go to ``build/fit/`` and only the figures are stored. ``HEADSTART_FIT_CASES="may:256,cnn2_a:512"``
and ``HEADSTART_FIT_SECONDS=60`` change what is run; on a machine that others use, ``HEADSTART_FIT_CLOCK=processor``
counts the seconds of processor time that this process really got instead of those on the wall.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from heads.fitting import Clip, FitConfig, Fitting
from torch import Tensor

from benchmarks.results import row, write
from heads.losses import ssim
from heads.masks import region_masks
from heads.measures.image import psnr
from heads.person.talking_head import HeadConfig, TalkingHead
from heads.rig import load_rig

CLIPS = Path(__file__).parents[2] / "shared" / "clips"
PICTURES = Path(__file__).parents[1] / "build" / "fit"
CASES = "may:256,cnn2_a:256,cnn2_a:512"
# What a throw-away study reached on the face of the same unseen frames (FACTS.md).
STUDY = {("may", 256): 30.2, ("cnn2_a", 256): 32.1, ("cnn2_a", 512): 30.9}
STUDY_STEP_MS = {256: 35, 512: 124}  # a step of that study, by size
PER_FRAME = ("landmarks", "rotation", "translation", "expression", "eyelids", "gaze", "quality")
REGIONS = {"face": ("face",), "eyes": ("eyes",), "mouth": ("lips", "mouth_inside"), "head": ("head",)}


@dataclass
class Tracked:
    """A whole clip in memory: uint8 frames and mattes with their track."""

    frames: np.ndarray
    mattes: np.ndarray
    track: dict[str, np.ndarray]

    def part(self, first: int, last: int) -> Clip:
        """Frames ``first:last`` as a clip to fit."""
        track = {k: v[first:last] if k in PER_FRAME else v for k, v in self.track.items()}
        return Clip(self.frames[first:last], self.mattes[first:last], track)


def _clock() -> Callable[[], float]:
    return time.process_time if os.environ.get("HEADSTART_FIT_CLOCK") == "processor" else time.perf_counter


def main() -> None:
    seconds = float(os.environ.get("HEADSTART_FIT_SECONDS", 60))
    kind = "processor" if _clock() is time.process_time else "wall-clock"
    notes = (
        f"unseen last 1/11 of the clip, driven by its own track; PSNR in dB, mean over frames; no prior; {kind} time"
    )
    rows = []
    for case in os.environ.get("HEADSTART_FIT_CASES", CASES).split(","):
        name, size = case.split(":")
        rows += run(name, int(size), seconds)
        # After each case: a run that is stopped keeps what it has measured.
        write("fit", rows, notes)


def run(name: str, size: int, seconds: float) -> list[dict[str, Any]]:
    """Fit one clip and measure its unseen frames; leaves a strip of pictures."""
    tracked = load(name, size)
    cut = len(tracked.frames) * 10 // 11
    head, used = fit(tracked.part(0, cut), size, seconds)
    measured, strip = evaluate(head, tracked, range(cut, len(tracked.frames)))
    save_strip(strip, PICTURES / f"{name}-{size}.png")
    case, against = f"{name}, {size}x{size}, {seconds:g} s", STUDY.get((name, size))
    rows = [
        row(case, f"PSNR {region}", value, "dB", f"study {against}" if against and region == "face" else "")
        for region, value in measured.items()
        if region != "ssim"
    ]
    rows.append(row(case, "SSIM whole frame", measured["ssim"], ""))
    rows.append(row(case, f"steps, {head.n} Gaussians", used["steps"], "steps"))
    step = f"study {STUDY_STEP_MS[size]} ms, rendering alone 20 to 30 at 512" if size in STUDY_STEP_MS else ""
    rows.append(row(case, "processor time of a step", used["cpu_ms"], "ms", step))
    return rows


def load(name: str, size: int) -> Tracked:
    """Track a clip at a size (frames of other sizes are scaled by the tracker)."""
    from shards.tracking import track_frames

    path = CLIPS / f"{name}.mp4"
    if not path.exists():
        raise FileNotFoundError(f"{path}: the clips are not beside this checkout")
    segments = list(track_frames(path, size=size))
    track = {k: np.concatenate([s.track[k] for s in segments]) for k in PER_FRAME}
    track |= {k: segments[0].track[k] for k in ("intrinsics", "identity")}
    return Tracked(np.concatenate([s.frames for s in segments]), np.concatenate([s.matte for s in segments]), track)


def fit(clip: Clip, size: int, seconds: float) -> tuple[TalkingHead, dict[str, float]]:
    """Optimise a new head on a clip for so many seconds; also says how many steps that were."""
    torch.manual_seed(0)
    clock = _clock()
    start = clock()
    config = HeadConfig(resolution=128 if size <= 256 else 224)
    head = TalkingHead(load_rig("mediapipe"), clip.track["identity"], size, size, config)
    head.calibrate(clip.track)
    fitting = Fitting(head, clip, FitConfig())
    cpu = time.process_time()
    while (progress := (clock() - start) / seconds) < 1:
        fitting.step(progress)
    steps = fitting.iteration
    return head.eval(), {"steps": steps, "cpu_ms": 1e3 * (time.process_time() - cpu) / max(steps, 1)}


@torch.no_grad()
def evaluate(head: TalkingHead, tracked: Tracked, frames: range) -> tuple[dict[str, float], Tensor]:
    """Mean measures over frames, and a strip of five of them: true, rendered, four times the difference."""
    drive = head.inputs(tracked.track)
    sums: dict[str, list[float]] = {}
    strip = []
    for i in frames:
        image = head.render(drive, i).image.clamp(0, 1)
        target = torch.from_numpy(tracked.frames[i]).float() / 255
        masks = region_masks(tracked.track["landmarks"][i : i + 1], head.height, head.width)
        for name, parts in REGIONS.items():
            mask = np.maximum.reduce([masks[part][0] for part in parts])
            sums.setdefault(name, []).append(psnr(image, target, torch.from_numpy(mask)))
        sums.setdefault("whole frame", []).append(psnr(image, target))
        sums.setdefault("ssim", []).append(float(ssim(image, target)))
        if (i - frames.start) % max(len(frames) // 5, 1) == 0 and len(strip) < 5:
            strip.append(torch.cat([target, image, ((image - target).abs() * 4).clamp(0, 1)]))
    return {name: float(np.nanmean(values)) for name, values in sums.items()}, torch.cat(strip, dim=1)


def save_strip(strip: Tensor, path: Path) -> None:
    """Write a picture for people to look at."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((strip * 255).byte().numpy()).save(path)
