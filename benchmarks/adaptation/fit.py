"""A head adapted to one person's clip without priors: quality on the unseen last eleventh, and pictures to look at.

    python -m benchmarks fit --cases may:256 cnn2_a:256 cnn2_a:512 --budget 60s

It measures :func:`adapt.job.adapt` with the default recipe on frames that were tracked beforehand, so the budget covers
steps, saves and the final stages. A budget of steps (``1200it``) can be compared between machines. The clips are outside
the repository (``../shared/clips``) and not ours to publish, so the strips of real, rendered and difference frames go to
``build/fit/`` and only the figures are stored.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adapt.avatar.avatar import Avatar, load_avatar
from adapt.clip import Clip, track_clip
from benchmarks.adapting import adapt
from benchmarks.results import row, stored, write
from configs import InputError
from heads.losses import ssim
from heads.measures.image import psnr
from heads.person.inputs import head_inputs

CLIPS = Path(__file__).parents[3] / "shared" / "clips"
PICTURES = Path(__file__).parents[2] / "build" / "fit"
# What a throw-away study reached on the face of the same unseen frames, dB.
STUDY = {("may", 256): 30.2, ("cnn2_a", 256): 32.1, ("cnn2_a", 512): 30.9}
REGIONS = {"face": ("face",), "eyes": ("eyes",), "mouth": ("lips", "mouth_inside"), "head": ("head",)}
# Frames of a strip, and the factor on the difference that it shows.
SHOWN, AMPLIFIED = 5, 4


def main() -> None:
    """Measure each case and write ``results/fit.json`` after it; a case that is stored is replaced."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, default=CLIPS, help="folder of NAME.mp4")
    parser.add_argument("--cases", nargs="+", default=["may:256", "cnn2_a:256", "cnn2_a:512"], help="NAME:SIZE")
    parser.add_argument("--budget", default="60s", help="of every adaptation: wall clock (60s) or steps (1200it)")
    parser.add_argument("--set", nargs="*", default=[], help="key=value of the recipe")
    options = parser.parse_args()
    rows = stored("fit")
    for case in options.cases:
        name, size = case.split(":")
        measured = run(options.clips / f"{name}.mp4", int(size), options.budget, options.set)
        rows = [old for old in rows if old["case"] != measured[0]["case"]] + measured
        notes = (
            "adapt without prior; unseen last 1/11 of the clip, driven by its own track; PSNR in dB, mean over frames"
        )
        write("fit", rows, notes, command=shlex.join(["fit", *sys.argv[1:]]))


def run(video: Path, size: int, budget: str, changes: list[str]) -> list[dict[str, Any]]:
    """Adapt to one clip and measure its unseen frames; leaves a strip of pictures."""
    if not video.exists():
        raise InputError(f"{video} is missing; give the folder of the clips with --clips")
    with track_clip(video, size=size) as whole, tempfile.TemporaryDirectory() as folder:
        cut = len(whole) * 10 // 11
        with whole.stretch(0, cut) as training:
            begin = time.process_time()
            result = adapt(video, Path(folder) / "avatar", prior="none", budget=budget, set=changes, clip=training)
            spent = time.process_time() - begin
        avatar = load_avatar(result["avatar"])
        measured, strip = evaluate(avatar, whole, range(cut, len(whole)))
    save_strip(strip, PICTURES / f"{video.stem}-{size}.png")
    case, against = f"{video.stem}, {size}x{size}, {budget}", STUDY.get((video.stem, size))
    rows = [
        row(case, f"PSNR {region}", value, "dB", f"study {against}" if against and region == "face" else "")
        for region, value in measured.items()
        if region != "ssim"
    ]
    rows.append(row(case, "SSIM whole frame", measured["ssim"], ""))
    rows.append(row(case, f"steps, {avatar.gaussians().n} Gaussians", result["iterations"], "steps"))
    rows.append(row(case, "processor time of the adaptation, per step", 1e3 * spent / result["iterations"], "ms"))
    return rows


@torch.no_grad()
def evaluate(avatar: Avatar, clip: Clip, frames: range) -> tuple[dict[str, float], Tensor]:
    """Mean measures over frames, and a strip of some of them: true, rendered, the difference amplified."""
    inputs = head_inputs(clip.motion(), avatar.device)
    sums: dict[str, list[float]] = {}
    strip: list[Tensor] = []
    for i in frames:
        image = torch.from_numpy(avatar.render(inputs.pick([i]))[0])
        target, masks = torch.from_numpy(clip.frames([i])[0]).float() / 255, clip.masks([i])
        for name, parts in REGIONS.items():
            mask = np.maximum.reduce([masks[part][0] for part in parts])
            sums.setdefault(name, []).append(psnr(image, target, torch.from_numpy(mask)))
        sums.setdefault("whole frame", []).append(psnr(image, target))
        sums.setdefault("ssim", []).append(float(ssim(image, target)))
        if (i - frames.start) % max(len(frames) // SHOWN, 1) == 0 and len(strip) < SHOWN:
            strip.append(torch.cat([target, image, ((image - target).abs() * AMPLIFIED).clamp(0, 1)]))
    return {name: float(np.nanmean(values)) for name, values in sums.items()}, torch.cat(strip, dim=1)


def save_strip(strip: Tensor, path: Path) -> None:
    """Write a picture for people to look at."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((strip * 255).byte().numpy()).save(path)


if __name__ == "__main__":
    main()
