"""What a talking face loses by conversion to ARKit's 52 weights: correlations of the mouth, and landmark errors.

    python -m benchmarks arkit [--avatar FOLDER ...]

The faces are generated talkers of six seconds each, and the tracks of the clips that the given avatars were adapted to.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from adapt.avatar.avatar import load_avatar
from adapt.drivers.arkit import ArkitMap, arkit_map
from benchmarks.results import row, write
from heads.rig import Rig, load_rig
from heads.rig.controls import measures
from shards.media.rates import FPS
from shards.synthetic.generate import make_talker

TALKERS = 3, 900  # seeds
SECONDS, SIZE = 6, 256
GOAL = 0.95  # of the opening's correlation


def main() -> None:
    """Measure and write ``results/arkit.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks arkit")
    parser.add_argument("--avatar", type=Path, nargs="*", default=[], help="avatars of real clips")
    options = parser.parse_args()
    rig = load_rig("mediapipe")
    mapping, rows = arkit_map(rig), []
    for seed in TALKERS:
        face = make_talker(seed).perform(SECONDS, 0, SIZE)
        faces = {"expression": face.expression, "eyelids": face.eyelids, "gaze": face.gaze}
        rows += round_trip(rig, mapping, faces, f"generated talker {seed}, {SECONDS} s")
    for folder in options.avatar:
        track = load_avatar(folder, "cpu", speaks=False).track
        seconds = len(track["expression"]) / FPS
        rows += round_trip(rig, mapping, track, f"clip of {folder.name}, {seconds:.0f} s")
    named = ["--avatar", *(folder.name for folder in options.avatar)] if options.avatar else []
    write("arkit", rows, "rig to weights to rig; nothing is rendered", command=" ".join(["arkit", *named]))


def round_trip(rig: Rig, mapping: ArkitMap, face: dict[str, np.ndarray], case: str) -> list[dict[str, Any]]:
    """How near a face ``expression [T, K], eyelids [T, 2], gaze [T, ...]`` is to itself after the weights."""
    before = face["expression"]
    after = mapping.face(mapping.weights(before, face["eyelids"], face["gaze"]))["expression"]
    effect, rows = measures(rig.expression.numpy()), []
    for name, measure in (("mouth opening", "gap"), ("mouth width", "width")):
        r = float(np.corrcoef(before @ effect[measure], after @ effect[measure])[0, 1])
        rows.append(row(case, f"{name}, correlation", r, "", f"goal >= {GOAL:g}" if measure == "gap" else ""))
    landmarks = rig.expression[:, :478].numpy()
    for name, part in (("moved", before), ("left", before - after)):
        size = np.sqrt((np.einsum("tk,knc->tnc", part, landmarks) ** 2).mean())
        rows.append(row(case, f"landmarks {name}, root mean square", float(size), "eye distances"))
    return rows
