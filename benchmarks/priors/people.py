"""Do more people make a better visual prior? Trained on nested sets of people, scored on strangers.

    python -m benchmarks people --data DATASET [--config tiny] [--set KEY=VALUE ...] [--steps 300] [--kept FOLDER]
                                [--parts curve longer bases fitted] [--longer 600] [--fitted CLIP ...]

A fifth of the identities, chosen as ``holdout=0.2`` chooses it, is never trained on: the strangers. The others are drawn into
nested sets of ``--people`` (the last one is all of them). The product's own training runs on each set

* at *equal steps*: every set gets ``--steps``;
* at *equal passes*: every set gets steps in proportion to its people, so that all runs see a person equally often.

``curve``: the prior's own prediction, without fitting, against the copy of the same frames' texture. Of a stranger's clip the
narrowest five seconds (half of it where it is shorter than ten) are found as in :mod:`benchmarks.priors.prior_gain`, in these the
narrowest second, in that the narrowest frame. The prior gets the frame, or eight frames spread over the second or the five
seconds. Compared are up to 12 evenly spread frames at least half a second away from all of these, the same for the three:
``face``; ``turned``, the quarter farthest from the frame's head angle, of clips where these are 10 degrees away or more;
``open``, the quarter of the widest mouths, and ``mouth``, lips and inside of these; ``hair``, the person without the face
down to the neck; ``head``, all of it. dB, means over people.

``longer``: the same for the smallest and the largest set after ``--longer`` steps.

``bases``: the rig's bases learned on each set; root mean square error of the strangers' resting faces (64 shapes, least squares)
and of their motion (32 expressions), in eye distances, in the image plane.

``fitted``: avatars of ``--fitted`` clips by the protocol of :mod:`benchmarks.priors.prior_gain`, each with the priors of the
smallest and of the largest set and without one.

``--kept`` keeps the priors (as folders that ``adapt --prior`` takes), so that a second run only scores. Parts that are not
run keep their stored rows. The curve is drawn as ``docs/images/people.svg``.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks import pictures
from benchmarks.adaptation.recipes import CLIPS
from benchmarks.priors.prior_gain import GUARD, STRETCHES, fitted, narrowest, tested
from benchmarks.results import row, stored, write
from benchmarks.training.pretrain import Quiet
from configs import load_config
from heads.geometry.rotation import relative_angles
from pretrain.data.sequences import Sequence as Run
from pretrain.data.sequences import sequences
from pretrain.expression_visual.clips import PictureClip, copied, opening_of, picture_clip, predicted, render
from pretrain.expression_visual.config import ExpressionVisualConfig
from pretrain.expression_visual.evidence import Comparison
from pretrain.expression_visual.inference import ExpressionVisualPrior
from pretrain.expression_visual.task import ExpressionVisualTask
from pretrain.folder import load_prior, write_prior
from pretrain.loop import Trainer
from pretrain.task import people_means
from shards.read.dataset import Dataset, open_dataset

HOLDOUT = 0.2
SHOWN = 8  # frames of a second or of five that the prior gets
COMPARED = 12  # frames of a stranger, at most
LEAST_FRAMES, LEAST_COMPARED = 60, 8
WARMUP = 30  # steps, at most a quarter of a run
LEAST_TURN = np.deg2rad(10.0)
STEPS, PASSES = "equal steps", "equal passes"
FIGURES = {"face": "PSNR", "turned": "turned", "open": "open", "mouth": "mouth", "hair": "hair", "head": "head"}
PARTS = ("curve", "longer", "bases", "fitted")


def main() -> None:
    """Train what is not kept, score the parts that are asked for, write ``results/people.json`` and draw the curve."""
    options = _parse()
    whole = open_dataset(options.data)
    _, strangers = whole.split(HOLDOUT)
    sets = nested(sorted(set(whole.identities) - set(strangers.identities)), options.people, options.seed)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder, counts, priors = Path(options.kept or scratch), [len(people) for people in sets], {}
        if {"curve", "fitted"} & set(options.parts):
            priors = trained(whole, strangers, sets, schedules(counts, options.steps), options, folder)
        if "curve" in options.parts:
            rows += curve(strangers, priors)
        if "longer" in options.parts:
            more = {(f"{options.longer} steps", count): options.longer for count in (counts[0], counts[-1])}
            found = curve(strangers, trained(whole, strangers, sets, more, options, folder))
            rows += [{**line, "case": f"longer, {line['case']}"} for line in found]
        if "bases" in options.parts:
            rows += bases(options.data, sets, set(strangers.identities))
        if "fitted" in options.parts:
            rows += avatars(options, priors)
    rows += [r for r in stored("people") if part_of(r) not in options.parts]
    rows.sort(key=lambda r: PARTS.index(part_of(r)))
    notes = f"{len(strangers.identities)} strangers of {len(whole.identities)} people; means over people"
    words = [word for i, word in enumerate(sys.argv[1:]) if not {"--kept", "--data", "--clips"} & {word, sys.argv[i]}]
    write("people", rows, notes, command=shlex.join(["people", "--data", "DATASET", *words]))
    draw(rows)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DATASET")
    parser.add_argument("--config", default="tiny", metavar="SIZE", help="of expression-visual")
    parser.add_argument(
        "--set", nargs="*", default=[], dest="changes", metavar="KEY=VALUE", help="of the configuration"
    )
    parser.add_argument(
        "--people", nargs="+", type=int, default=[8, 27, 60], help="sizes of the sets before all people"
    )
    parser.add_argument("--steps", type=int, default=300, help="of the largest set")
    parser.add_argument("--longer", type=int, default=600, metavar="STEPS", help="of the part 'longer'")
    parser.add_argument("--seed", type=int, default=0, help="of drawing the sets")
    parser.add_argument("--kept", metavar="FOLDER", help="where trained priors are kept")
    parser.add_argument("--parts", nargs="+", default=["curve", "bases"], choices=PARTS)
    parser.add_argument("--fitted", nargs="*", default=[], metavar="CLIP", help="strangers' clips that get avatars")
    parser.add_argument("--clips", type=Path, default=CLIPS, help="folder of CLIP.mp4")
    parser.add_argument("--trained", nargs="+", default=["5 s"], choices=STRETCHES, help="stretches of fitted avatars")
    parser.add_argument("--budget", default="300it", help="of every fitted avatar")
    return parser.parse_args()


def part_of(line: dict[str, Any]) -> str:
    """The part that made a row of the result."""
    first = line["case"].split(",")[0]
    return first if first in PARTS else "curve"


# --- people and steps ---------------------------------------------------------------------------------------------


def nested(people: Sequence[str], sizes: Sequence[int], seed: int) -> list[list[str]]:
    """Sets of ``people``, each contained in the next: those of ``sizes`` that are smaller than all, then all.

    Their order is a hash of seed and name, so that few people change sets as a dataset grows.
    """
    order = sorted(people, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    counts = sorted({size for size in sizes if size < len(people)} | {len(people)})
    return [sorted(order[:count]) for count in counts]


def schedules(counts: Sequence[int], steps: int) -> dict[tuple[str, int], int]:
    """Steps by schedule and number of people; the largest set has the same in both."""
    return {(STEPS, count): steps for count in counts} | {
        (PASSES, count): max(1, round(steps * count / max(counts))) for count in counts
    }


def trained(
    whole: Dataset,
    strangers: Dataset,
    sets: list[list[str]],
    plan: dict[tuple[str, int], int],
    options: argparse.Namespace,
    folder: Path,
) -> dict[tuple[str, int], Path]:
    """Prior folders by schedule and number of people; those in ``folder`` are not trained again."""
    found = {}
    for (schedule, count), steps in plan.items():
        kept = folder / f"{count}-people-{steps}-steps"
        if not (kept / "prior.json").exists():
            people = next(people for people in sets if len(people) == count)
            print(f"training on {count} people, {steps} steps", file=sys.stderr, flush=True)
            started = time.process_time()
            brief = [f"steps={steps}", f"optimiser.warmup={min(WARMUP, max(1, steps // 4))}"]
            train(whole.subset(people), strangers, [*options.changes, *brief], options.config, kept)
            print(f"{time.process_time() - started:.0f} s of processor time", file=sys.stderr, flush=True)
        found[schedule, count] = kept
    return found


def train(people: Dataset, strangers: Dataset, changes: list[str], config: str, kept: Path) -> None:
    """The product's training of a shipped configuration on ``people``, as a prior folder."""
    typed = load_config(ExpressionVisualConfig, f"pretrain/expression-visual/{config}", changes)
    task = ExpressionVisualTask(typed, people, strangers)
    with tempfile.TemporaryDirectory() as run:
        trainer = Trainer(task, run, Quiet())
        trainer.begin(None)
        for _ in range(typed.steps):
            trainer.train_step()
        trainer.close()
    task.conclude(trainer.average)
    write_prior(kept, task, trainer.average, {})


# --- the prior's own prediction -------------------------------------------------------------------------------------


def curve(strangers: Dataset, priors: dict[tuple[str, int], Path]) -> list[dict[str, Any]]:
    """Rows of the strangers' figures by number of people, schedule and frames given."""
    loaded: dict[Path, ExpressionVisualPrior] = {folder: load_prior(folder) for folder in priors.values()}
    size = next(iter(loaded.values())).size
    figures: dict[tuple[Path | None, str], list[dict[str, Any]]] = {}
    for run in runs(strangers):
        for stretch, clip in shown(strangers, run, size).items():
            comparison = Comparison(clip, size)
            any_prior = next(iter(loaded.values()))
            maps = {None: copied(any_prior, clip)} | {f: predicted(p, clip, clip.poses) for f, p in loaded.items()}
            for folder, heads in maps.items():
                values = comparison.figures(render(any_prior, heads, clip.person, clip.poses))
                figures.setdefault((folder, stretch), []).append(_line(run, clip, values))
        print(f"scored {run.clip}", file=sys.stderr, flush=True)
    return [
        line for key, folder in priors.items() for stretch in STRETCHES for line in _rows(key, folder, stretch, figures)
    ]


def runs(strangers: Dataset) -> Iterator[Run]:
    """The first run of every stranger that is long enough."""
    seen: set[str] = set()
    for run in sequences(strangers, None):
        if len(run) >= LEAST_FRAMES and run.identity not in seen:
            seen.add(run.identity)
            yield run


def chosen(run: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Frames given, by stretch, and frames compared; each stretch lies in the next."""
    first, count = narrowest(run, min(STRETCHES["5 s"], len(run.track["rotation"]) // 2))
    frames = np.arange(len(run.track["rotation"]))
    away = frames[(frames < first - GUARD) | (frames >= first + count + GUARD)]
    given, inner, start = {"5 s": spread(frames[first : first + count], SHOWN)}, (first, count), first
    for stretch in ("1 s", "1 frame"):
        part = {name: run.track[name][start : start + inner[1]] for name in ("rotation", "landmarks", "eyelids")}
        inner = narrowest(SimpleNamespace(track=part), STRETCHES[stretch])
        start += inner[0]
        given[stretch] = spread(frames[start : start + inner[1]], SHOWN)
    return {stretch: given[stretch] for stretch in STRETCHES}, spread(away, COMPARED)


def spread(frames: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` of ``frames``, evenly spread."""
    return frames[np.unique(np.linspace(0, len(frames) - 1, most).round().astype(int))] if len(frames) else frames


def shown(strangers: Dataset, run: Run, size: int) -> dict[str, PictureClip]:
    """A run's clips by stretch, with the same targets; none where too few frames are left to compare."""
    given, targets = chosen(run)
    if len(targets) < LEAST_COMPARED:
        return {}
    opening, frame = opening_of(strangers, run), given["1 frame"][0]
    clips = {}
    for stretch, frames in given.items():
        # The narrowest frame is first in all of them, since what is far is measured from it.
        sources = np.concatenate([[frame], frames[frames != frame]])[: max(1, len(frames))]
        clips[stretch] = picture_clip(strangers, run, size, sources, targets, opening)
    return clips


def _line(run: Run, clip: PictureClip, values: dict[str, float]) -> dict[str, Any]:
    """A stranger's figures; those of turned heads only where heads turn."""
    rotations = clip.pose["rotation"].numpy()
    away = relative_angles(rotations[clip.sources :], rotations[0])[clip.turned].mean()
    found: dict[str, Any] = {name: values[figure] for name, figure in FIGURES.items()}
    return {"identity": run.identity, **found, "turned": found["turned"] if away >= LEAST_TURN else float("nan")}


def _rows(
    key: tuple[str, int], folder: Path, stretch: str, figures: dict[Any, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    schedule, count = key
    mine, copies = figures[folder, stretch], figures[None, stretch]
    values, baseline = people_means(mine, list(FIGURES)), people_means(copies, list(FIGURES))
    rows = []
    for name in FIGURES:
        pairs = [(a[name], b[name]) for a, b in zip(mine, copies, strict=True) if np.isfinite(a[name])]
        better = sum(a > b for a, b in pairs)
        case = f"{count} people, {schedule}, {stretch} given"
        rows.append(row(case, f"{name}: prior", values[name], "dB", f"{baseline[name]:.2f} dB, the copy"))
        rows.append(
            row(case, f"{name}: gain", values[name] - baseline[name], "dB", f"better on {better} of {len(pairs)}")
        )
    return rows


# --- the rig's bases ------------------------------------------------------------------------------------------------


def bases(data: str, sets: list[list[str]], strangers: set[str]) -> list[dict[str, Any]]:
    """Errors of the strangers under bases that were learned on each set."""
    from shards.basis.basis import read_clips, reconstruction_error, shape_error
    from shards.tracking.shape_statistics import learn, posed

    clips, rows = list(read_clips(data)), []
    for people in sets:
        learned = learn([clip for clip in clips if clip.identity in people])
        errors: dict[str, list[float]] = {}
        for name in sorted(strangers):
            person = posed([clip for clip in clips if clip.identity == name], learned.mean)
            found = {"shape": shape_error(person, learned.identity, learned.mean)}
            motion = reconstruction_error(person, learned.expression, learned.eyelids, learned.mean)
            for figure, value in (found | {f"expression, {part}": error for part, error in motion.items()}).items():
                errors.setdefault(figure, []).append(value)
        rows += [
            row(f"bases, {len(people)} people", f"{figure}: error", float(np.mean(values)), "eye distances")
            for figure, values in errors.items()
        ]
        print(f"bases of {len(people)} people", file=sys.stderr, flush=True)
    return rows


# --- fitted avatars -------------------------------------------------------------------------------------------------


def avatars(options: argparse.Namespace, priors: dict[tuple[str, int], Path]) -> list[dict[str, Any]]:
    """Figures of avatars with the priors of the smallest and of the largest set and without one."""
    from adapt.clip import track_clip

    counts = sorted({count for _, count in priors})
    variants = {"no prior": "none"} | {f"{n} people": str(priors[STEPS, n]) for n in (counts[0], counts[-1])}
    rows, kinds = [], SimpleNamespace(budget=options.budget, set=[])
    for name in options.fitted:
        video = options.clips / f"{name}.mp4"
        with track_clip(video, size=256) as clip:
            for stretch in options.trained:
                first, count = narrowest(clip, STRETCHES[stretch])
                frames = tested(clip, first, count)
                for variant, prior in variants.items():
                    found, _ = fitted(video, clip, (first, count), frames, prior, kinds)
                    case = f"fitted, {name}, {stretch}, 256x256, {options.budget}"
                    rows += [row(case, f"{variant}: {figure}", value, "dB") for figure, value in found.items()]
                    print(case, variant, found, file=sys.stderr, flush=True)
    return rows


# --- the picture ----------------------------------------------------------------------------------------------------


def draw(rows: list[dict[str, Any]]) -> Path | None:
    """Gains over the number of people as ``docs/images/people.svg``; None without a curve."""
    from adapt.evaluate.charts import line_chart

    gains: dict[str, dict[str, list[list[float]]]] = {}
    for line in rows:
        part, _, kind = line["variant"].partition(": ")
        if part_of(line) == "curve" and kind == "gain":
            people, schedule, given = line["case"].split(", ")
            point = [float(people.split()[0]), line["value"]]
            if part == "face":
                gains.setdefault(f"Face: gain over the texture copy, dB ({schedule})", {}).setdefault(given, []).append(
                    point
                )
            if schedule == STEPS and given == "1 frame given" and part != "head":
                gains.setdefault("From one frame: gain by region, dB (equal steps)", {}).setdefault(part, []).append(
                    point
                )
    charts = [
        (title, line_chart({name: np.array(points) for name, points in lines.items()}, "people trained on", title))
        for title, lines in gains.items()
    ]
    return pictures.save("people", charts) if charts else None


if __name__ == "__main__":
    main()
