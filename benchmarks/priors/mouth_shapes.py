"""A peer of the speech features: mouth shapes from recognised phones, as Rhubarb Lip Sync draws cartoons by them.

    pip install pocketsphinx
    python -m benchmarks mouth_shapes --data DATASET [--earlier CLIP ...] [--unreliable CLIP ...]

Rhubarb recognises phones with PocketSphinx (its ``phonetic`` recogniser: all phones, a phone language model) and maps
them to nine mouth shapes. Rhubarb itself is not in a registry of Python or Node packages, so this benchmark runs
PocketSphinx with its options and a simplified map (:data:`SHAPES`; Rhubarb also looks at neighbours and durations).

A shape says nothing of how far a real mouth opens, so each gets its mean opening in the training people, with the folds
of :mod:`benchmarks.priors.speech`; shape A is shut. Every clip is scored around its own mean, as the regressions are. ``blended``:
averaged over three frames, as shapes are blended into one another on a three-dimensional face.
"""

from __future__ import annotations

import shlex
import sys
from typing import Any

import numpy as np

from adapt.drivers.closing import PRESSED
from benchmarks.priors.speech import LEAST_FRAMES, folds, folds_parser, group_of
from benchmarks.results import row, write
from heads.measures.closure import closure_f1
from heads.measures.face import LipMotion, default_rig, lip_motion
from pretrain.baselines.baselines import correlation
from pretrain.data.sequences import Sequence, sequences
from shards.media.rates import FPS
from shards.read.dataset import Dataset, open_dataset

# ARPAbet phones of Rhubarb's shapes: A pressed, B slightly open, C open, D wide, E rounded, F puckered, G teeth on the
# lip, H tongue up, X at rest.
SHAPES = {
    "A": "P B M",
    "B": "T D N S Z TH DH IY IH Y K G NG CH JH SH ZH",
    "C": "EH AE AH EY HH",
    "D": "AA AY AW",
    "E": "AO ER OY R",
    "F": "UW UH OW W",
    "G": "F V",
    "H": "L",
    "X": "SIL",
}
SHAPE_OF = {phone: shape for shape, phones in SHAPES.items() for phone in phones.split()}
# Of Rhubarb's phonetic recogniser.
OPTIONS = {"allphone_ci": True, "lw": 2.0, "pip": 0.3, "beam": 1e-20, "pbeam": 1e-20}
PER_FRAME = 100 // FPS  # PocketSphinx counts in 10 ms
BLEND = 3  # frames


def main() -> None:
    """Score the mouth shapes and write ``results/mouth_shapes.json``."""
    parser = folds_parser(__doc__)
    options = parser.parse_args()
    dataset, earlier = open_dataset(options.data), frozenset(options.earlier)
    trusted = sequences(dataset, "logmel", unreliable=options.unreliable)
    runs = [run for run in trusted if len(run) >= LEAST_FRAMES]
    clips = [(run, mouth_shapes(sound_of(dataset, run), len(run)), lips_of(run)) for run in runs]
    found: list[tuple[str, str, dict[str, float | None]]] = []
    for held in folds(sorted({run.identity for run in runs}), {run.identity for run in runs if run.clip in earlier}):
        openings = mean_openings([(shapes, lips) for run, shapes, lips in clips if run.identity not in held])
        for run, shapes, lips in clips:
            if run.identity in held:
                found += [(group_of(run.clip, earlier), how, f) for how, f in scored(shapes, lips, openings)]
    notes = f"{len(runs)} clips of {len({run.identity for run in runs})} people; the folds of benchmarks speech"
    write("mouth_shapes", averaged(found), notes, command=shlex.join(["mouth_shapes", *sys.argv[1:]]))


def sound_of(dataset: Dataset, run: Sequence) -> np.ndarray:
    """The clip's sound ``[N]`` float32 at 16 kHz."""
    return np.concatenate([dataset.read(key).audio for key, _ in run.keys])


def lips_of(run: Sequence) -> LipMotion:
    """The tracked lips."""
    return lip_motion(default_rig(), run.track["identity"], run.track["expression"])


def mouth_shapes(sound: np.ndarray, frames: int) -> np.ndarray:
    """The shape in the middle of each frame, ``[T]`` of one letter."""
    import pocketsphinx

    model = pocketsphinx.get_model_path("en-us/en-us-phone.lm.bin")
    decoder = pocketsphinx.Decoder(allphone=model, lm=None, loglevel="FATAL", **OPTIONS)
    decoder.start_utt()
    decoder.process_raw((np.clip(sound, -1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    fine = np.full(PER_FRAME * frames + 1, "X")
    for segment in decoder.seg() or ():
        fine[segment.start_frame : segment.end_frame + 1] = SHAPE_OF.get(segment.word, "X")
    return fine[PER_FRAME // 2 :: PER_FRAME][:frames]


def mean_openings(clips: list[tuple[np.ndarray, LipMotion]]) -> dict[str, float]:
    """Mean opening of each shape around its clip's mean, rig units."""
    shapes = np.concatenate([s for s, _ in clips])
    opening = np.concatenate([lips.opening - lips.opening.mean() for _, lips in clips])
    return {shape: float(opening[shapes == shape].mean()) if (shapes == shape).any() else 0.0 for shape in SHAPES}


def scored(
    shapes: np.ndarray, lips: LipMotion, openings: dict[str, float]
) -> list[tuple[str, dict[str, float | None]]]:
    """Figures of one clip, with shapes as they are and blended."""
    moved = np.array([openings[shape] for shape in shapes])
    # Opening is a linear measure of the gap's size: the gap follows by their ratio of spreads in this clip.
    gap = lips.gap.mean() + moved * lips.gap.std() / max(float(lips.opening.std()), 1e-9)
    gap = np.where(shapes == "A", PRESSED, gap)
    blended = np.convolve(np.pad(moved, BLEND // 2, mode="edge"), np.full(BLEND, 1 / BLEND), "valid")
    return [("as they are", _figures(moved, gap, lips)), ("blended", _figures(blended, gap, lips))]


def _figures(opening: np.ndarray, gap: np.ndarray, real: LipMotion) -> dict[str, float | None]:
    return {
        "r": correlation(opening, real.opening),
        "closure F1": closure_f1(gap, real.gap),
        "spread of the opening": float(opening.std() / real.opening.std()),
    }


def averaged(found: list[tuple[str, str, dict[str, float | None]]]) -> list[dict[str, Any]]:
    """Means over the clips of each group that have a figure."""
    rows = []
    for group, how in sorted({(group, how) for group, how, _ in found}):
        figures = [f for g, h, f in found if (g, h) == (group, how)]
        for name in figures[0]:
            values = [value for f in figures if (value := f[name]) is not None]
            rows.append(
                row(f"{group} clips, {name}", f"mouth shapes of PocketSphinx, {how}", float(np.mean(values)), "")
            )
    return rows


if __name__ == "__main__":
    main()
