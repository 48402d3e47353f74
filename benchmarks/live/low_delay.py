"""Live use with a speech encoder: how well lips follow from a little look-ahead, and what a frame costs.

    python -m benchmarks low_delay --data DATASET [--earlier CLIP ...] [--unreliable CLIP ...] [--whisper FOLDER]
                                   [--avatar FOLDER ...] [--rounds 5] [--kept FOLDER] [--parts accuracy cost]

*Accuracy.* The folds of :mod:`benchmarks.priors.speech`. Rows for live use are extracted from the dataset's sound by the stream
that live use has, looking 60, 80 and 120 ms ahead; :func:`pretrain.audio_expression.beginnings.fit_live` fits the
prior's regression for live use on the people of the other folds, and :class:`adapt.drivers.live.LiveDriver` drives every clip
from its beginning, so that nothing but the look-ahead is heard (the running mean begins at that of other people). ``offline``
is the regression on Whisper rows of whole windows, which is given the mean of the whole clip. Both are scored around the
clip's mean face.

*Drivers.* At 120 ms, what an avatar gets: made from the first two thirds of every clip of 6 s and more, by
:meth:`LiveDriver.fit`, beside the regression on log-mel that live use had before (80 ms), both with the lips closed; scored on
the last third (``own voice``) and on the next person's whole clip (``another's voice``).

*Cost.* Processor time of a live frame, from 40 ms of sound to the message for the page, on one thread, by both drivers in
turn; ``--avatar``: folders, by default a generated talker at 256 px. ``whole delay``: look-ahead and that time.

``--kept`` keeps extracted rows, so that a second run only scores. With one of the ``--parts``, stored rows of the other stay.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapt.avatar.avatar import Avatar, load_avatar
from adapt.drivers.base import Driver, drive
from adapt.drivers.calibration import lip_weights
from adapt.drivers.closing import LipClosing
from adapt.drivers.live import LiveDriver
from adapt.drivers.personal_voice import live_frames
from adapt.drivers.ridge import RidgeDriver
from benchmarks.priors.folds import Found, all_figures, centred, motion
from benchmarks.priors.speech import LEAST_FRAMES, Regression, fit_folds, folds, folds_parser, group_of
from benchmarks.results import row, stored, write
from configs import InputError
from heads.measures.closure import TOGETHER
from heads.measures.face import default_rig
from heads.ridge import apply_ridge
from pretrain.audio_expression.beginnings import fit_live
from pretrain.audio_expression.model import LiveRegression
from pretrain.data.sequences import Sequence, sequences
from pretrain.roles import LiveFilter
from shards.features import open_feature
from shards.features.whisper_live import LAYOUT, Layout, WhisperLive
from shards.media.rates import SAMPLES_PER_FRAME
from shards.read.dataset import Dataset, open_dataset

AHEAD = (1.5, 2.0, 3.0)  # frames of 40 ms
COLUMNS = 192  # as ``linear_columns`` of tiny-whisper
KNOWN, LEAST_KNOWN = 2 / 3, 150  # of a clip that a driver is made from; frames of such a clip
PARTS, COST = ("accuracy", "cost"), "a live frame"
FRAMES, WARM = 120, 20  # of a cost, and those before that are not counted
GOAL, WORK = 0.04, 25.0  # below the offline r; ms of work a frame


class Nearer(WhisperLive):
    """The same feature with another look-ahead."""

    def __init__(self, weights: str, ahead: float) -> None:
        super().__init__(weights)
        self.layout = Layout(ahead)  # type: ignore[misc]  # a class variable elsewhere


@dataclass
class Clips:
    """The clips that are scored.

    Attributes:
        runs: with Whisper rows of whole windows.
        logmel, sound: log-mel rows and sound by clip.
    """

    runs: list[Sequence]
    logmel: dict[str, np.ndarray]
    sound: dict[str, np.ndarray]

    @classmethod
    def of(cls, dataset: Dataset, unreliable: list[str]) -> Clips:
        """Trusted clips that are long enough."""
        runs = [r for r in sequences(dataset, "whisper", unreliable=unreliable) if len(r) >= LEAST_FRAMES]
        mel = {
            r.clip: r.features for r in sequences(dataset, "logmel", unreliable=unreliable) if len(r) >= LEAST_FRAMES
        }
        sound = {r.clip: np.concatenate([dataset.read(key).audio for key, _ in r.keys]) for r in runs}
        return cls(runs, mel, {r.clip: sound[r.clip][: len(r) * SAMPLES_PER_FRAME] for r in runs})

    def with_rows(self, rows: dict[str, np.ndarray]) -> list[Sequence]:
        """The clips with other features."""
        return [replace(run, features=np.asarray(rows[run.clip], np.float32)) for run in self.runs]


def main() -> None:
    """Measure and write ``results/low_delay.json``."""
    parser = folds_parser(__doc__)
    parser.add_argument("--whisper", default="", metavar="FOLDER", help="weights (default: those of the dataset)")
    parser.add_argument("--avatar", nargs="*", type=Path, default=[], help="folders (default: a talker, adapted now)")
    parser.add_argument("--rounds", type=int, default=5, help="of the cost, each driver once in every one")
    parser.add_argument("--kept", metavar="FOLDER", help="where extracted rows are kept")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = open_dataset(options.data)
    weights = options.whisper or str((dataset.feature_records["whisper"]["weights"] or {}).get("source", ""))
    rows = [
        r for r in stored("low_delay") if ("cost" if r["case"].startswith(COST) else "accuracy") not in options.parts
    ]
    with tempfile.TemporaryDirectory(prefix="headstart-benchmark-") as scratch:
        if "accuracy" in options.parts:
            rows = accuracy(options, dataset, weights, Path(options.kept or scratch)) + rows
        if "cost" in options.parts:
            for avatar in options.avatar or [talker(Path(scratch))]:
                rows += costs(avatar, weights, options.rounds)
    notes = "five folds over people; means over clips"
    words = ["low_delay", "--data", "CORPUS", "--earlier", *options.earlier, "--unreliable", *options.unreliable]
    write("low_delay", rows, notes, command=shlex.join(words))


def accuracy(options: argparse.Namespace, dataset: Dataset, weights: str, kept: Path) -> list[dict[str, Any]]:
    """Rows of the regressions and of the drivers."""
    clips, earlier = Clips.of(dataset, options.unreliable), frozenset(options.earlier)
    found, offline = Found(), {}
    for held, weight in fit_folds(
        options.data, Regression("whisper", 2, COLUMNS), earlier, frozenset(options.unreliable)
    ):
        for run in held:
            face = apply_ridge(weight, run.features).astype(np.float32)
            offline[run.clip] = scored(found, group_of(run.clip, earlier), "offline", run, face)
    rows = []
    for ahead in AHEAD:
        live, name = clips.with_rows(extracted(clips, ahead, weights, kept)), f"{40 * ahead:.0f} ms ahead"
        losses = []
        for held, filter in live_folds(live, earlier, ahead):
            for run in held:
                face = drive(untouched(filter, Layout(ahead)), run.features)["expression"]
                losses.append(offline[run.clip] - scored(found, group_of(run.clip, earlier), name, run, face))
            if ahead == LAYOUT.ahead:
                drivers(found, held, filter, clips.logmel)
        limit = f"offline; goal <= {GOAL:g}" if ahead == LAYOUT.ahead else "offline"
        rows.append(row("r below the offline regression, all clips", name, float(np.mean(losses)), "", limit))
    return found.rows() + rows


def scored(found: Found, group: str, variant: str, run: Sequence, face: np.ndarray) -> float:
    """Add one clip's figures, around its mean face; returns r."""
    truth = run.track["expression"]
    figures = all_figures(motion(run, centred(face, truth)), motion(run, truth))
    found.add(group, variant, figures)
    return float(figures["r"] or 0.0)


def extracted(clips: Clips, ahead: float, weights: str, kept: Path) -> dict[str, np.ndarray]:
    """Rows for live use by clip, as a dataset would store them."""
    kept.mkdir(parents=True, exist_ok=True)
    path, feature = kept / f"live-{40 * ahead:.0f}.npz", Nearer(weights, ahead)
    if not path.exists():
        np.savez(path, **{clip: feature.extract(sound).astype(np.float16) for clip, sound in clips.sound.items()})
    with np.load(path, allow_pickle=False) as rows:
        return {clip: rows[clip] for clip in rows.files}


def live_folds(
    runs: list[Sequence], earlier: frozenset[str], ahead: float
) -> Iterator[tuple[list[Sequence], LiveFilter]]:
    """Held-out clips of each fold and the regression of the others, as a prior has it."""
    known = {run.identity for run in runs if run.clip in earlier}
    for held in folds(sorted({run.identity for run in runs}), known):
        live = LiveRegression(runs[0].features.shape[1], runs[0].track["expression"].shape[1], closure=True)
        train = [run for run in runs if run.identity not in held]
        fit_live(live, train, default_rig(), COLUMNS, {}, Layout(ahead))
        assert live.closure is not None
        filter = LiveFilter(
            "whisper-live", live.mean.numpy(), live.weight.numpy(), live.closure.numpy(), Nearer.revision
        )
        yield [run for run in runs if run.identity in held], filter


def untouched(filter: LiveFilter, layout: Layout) -> LiveDriver:
    """The prior's regression without a clip."""
    still = np.zeros(filter.weight.shape[1], np.float32)
    return LiveDriver(filter.mean, filter.weight, still, filter.feature, layout=layout)


def drivers(found: Found, held: list[Sequence], filter: LiveFilter, logmel: dict[str, np.ndarray]) -> None:
    """Add the figures of one fold's drivers."""
    rig, long = default_rig(), [run for run in held if len(run) >= LEAST_KNOWN]
    for i, run in enumerate(long):
        cut, other = int(len(run) * KNOWN), long[(i + 1) % len(long)]
        known = run.track["expression"][:cut]
        lips = LipClosing.fit(rig, run.track["identity"], known)
        frames = live_frames(cut)
        corrected = LiveDriver.fit(
            filter, run.features[frames], known[frames], lip_weights(rig, known.shape[1]), known.mean(0)
        )
        before = RidgeDriver.fit(logmel[run.clip][:cut], known).low_delay()
        for name, driver, rows in (
            ("log-mel, 80 ms ahead", before.closed(lips), logmel),
            ("encoder, 120 ms ahead", corrected.closed(lips), {r.clip: r.features for r in (run, other)}),
        ):
            add_driven(found, f"own voice, {name}", driver, run, run, rows[run.clip], cut)
            add_driven(found, f"another's voice, {name}", driver, run, other, rows[other.clip], 0)


def add_driven(
    found: Found, variant: str, driver: Driver, person: Sequence, speaker: Sequence, rows: np.ndarray, first: int
) -> None:
    """Add how a person's lips fit those of a speaker from frame ``first`` on."""
    face = drive(driver, rows)["expression"][first:]
    guess, real = motion(person, face), motion(speaker, speaker.track["expression"][first:])
    figures = all_figures(guess, real) | {"closed frames": float((guess.gap < TOGETHER).mean())}
    lips = {name: value for name, value in figures.items() if person is speaker or "lip error" not in name}
    found.add("drivers of all", variant, lips)


def talker(place: Path) -> Path:
    """A generated talker's avatar."""
    from benchmarks.adapting import adapt
    from shards.synthetic import synthetic_video

    video, out = place / "talker.mp4", place / "ada"
    synthetic_video(3, 12, video, size=256)
    adapt(video, out, prior="none", budget="100it", size=256)
    return out


def costs(folder: Path, weights: str, rounds: int) -> list[dict[str, Any]]:
    """Rows of one avatar: milliseconds of processor time a frame by the driver, in turn."""
    feature = open_feature("whisper-live", weights)
    drivers: dict[str, tuple[Avatar, list[float]]] = {}
    for name in ("log-mel", "encoder"):
        avatar = load_avatar(folder, "cpu")
        if avatar.document["features"]["name"] != "logmel":
            raise InputError(f"{folder}: hears a speech encoder already; give an avatar made with --prior none")
        if name == "encoder":
            avatar.document["features"] = open_feature("whisper", weights).record
            size = avatar.track["expression"].shape[1]
            shape = np.random.default_rng(0).normal(0, 1e-3, (feature.size, size)).astype(np.float32)
            face = avatar.track["expression"].mean(0)
            avatar.driver = LiveDriver(
                np.zeros(feature.size, np.float32), shape, face, feature.name, revision=feature.revision
            )
        drivers[name] = avatar, []
    for _, (avatar, found) in itertools.product(range(rounds), drivers.values()):
        found.append(frame_cost(avatar))
    size = drivers["log-mel"][0].size
    case, before = f"{COST} at {size}x{size}, one thread", statistics.median(drivers["log-mel"][1])
    rows = []
    for name, (_, found) in drivers.items():
        cost, ahead = statistics.median(found), (3 * 40.0 if name == "encoder" else 2 * 40 + 7.5)
        rows.append(row(case, f"{name}: processor time", cost, "ms", f"goal <= {WORK:g} ms", cost / before))
        rows.append(row(case, f"{name}: whole delay", ahead + cost, "ms", "look-ahead and work"))
    return rows


def frame_cost(avatar: Avatar) -> float:
    """From 40 ms of sound to the message for the page: features, driver, picture, label, watermark and JPEG."""
    from adapt.live import protocol
    from adapt.live.engine import Chunk, Engine, Look
    from adapt.marking.marker import Marker
    from shards.synthetic.generate import make_talker

    speech = make_talker(3).perform((FRAMES + WARM) / 25 + 1, 1, 64).audio.astype(np.float32)
    engine, mark = Engine(avatar, Look({})), Marker(avatar.provenance("").avatar_sha256, label="AI")
    found = []
    for at in range(0, SAMPLES_PER_FRAME * (FRAMES + WARM), SAMPLES_PER_FRAME):
        begin = time.process_time()
        for frame in engine.step(Chunk(speech[at : at + SAMPLES_PER_FRAME], time.monotonic())):
            assert frame.image is not None, "one frame at a time is never left out"
            protocol.frame_message(replace(frame, image=mark(frame.image)))
        found.append(time.process_time() - begin)
    return 1000 * statistics.median(found[WARM:])


if __name__ == "__main__":
    main()
