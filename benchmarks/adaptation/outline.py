"""What gives an avatar away: its outline, its closed lips, and what it shows when it turns further than the clip did.

    python -m benchmarks outline --people stock_sweaterman may --budget 300it --variant coverage --set coverage=0.05

Trained on the first 10/11 of a clip, tested on the rest with the test frames' own tracks, and turned by 20 and 40 degrees
to either side of the clip's middle pose, alone. Figures:

* ``face``, ``whole frame``, ``outline`` (within a fiftieth of the side of the matte's edge, the torso excluded), dB;
* ``lips``: error of the inner lips' distance, tracked in rendered and in real frames, on frames whose real lips touch;
  and ``inner mouth``, dB, on frames with an open mouth;
* ``background colours``: share of the turned head's pixels whose colour is four times as frequent in the clip's
  background as on its person; beside it the same share of the clip's own heads, which is the classifier's error;
* ``torso colours``: the same with colours that are four times as frequent on the clip's torso as on its head above the mouth;
* ``holes``: share of the filled silhouette that is less than half covered; ``detached``: share of the covered pixels that
  do not belong to the largest connected region;
* ``specks``: share of the turned face's pixels, eyes and lips excluded, whose brightness is more than ``SPECK`` of 255 levels
  from the median around them; beside it the same share of the clip's own faces.

Rows of a ``--variant`` that are stored are not measured again.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import ConvexHull

from benchmarks.adaptation.recipes import PEOPLE, means, people_parser
from benchmarks.results import row, stored, write
from heads.masks import fill_polygons, region_masks
from heads.rig import facemesh
from shards.tracking.pose import reprojected

TURNS = (-40, -20, 20, 40)  # degrees
CLOSED = 0.03  # eye distances
BINS = 16  # a side of the colour histograms
RATIO = 4.0
FRAMES = 250
TESTED = 40
NOSE = (1, 4, 48, 278)
MIDDLE = list(facemesh.BROW_LEFT + facemesh.BROW_RIGHT + facemesh.EYE_CORNERS + facemesh.LIPS_OUTER + NOSE)
SPECK, AROUND = 13, 5  # levels of brightness; px, side of the square whose median is compared


def main() -> None:
    """Measure what is not stored yet and write the result after every person."""
    options = _parse()
    rows = [r for r in stored("outline") if not r["case"].startswith("mean of ")]
    for person in options.people:
        case = f"{person}, {options.size}x{options.size}, {options.budget}"
        if not any(r["case"] == case and r["variant"].startswith(f"{options.variant}: ") for r in rows):
            found = measure(options.clips / f"{person}.mp4", options)
            print(case, options.variant, {k: round(v, 3) for k, (v, _) in found.items()}, file=sys.stderr, flush=True)
            rows += [row(case, f"{options.variant}: {name}", v, unit) for name, (v, unit) in found.items()]
            _write(rows, echo=False)
    _write(rows, echo=True)


def _parse() -> argparse.Namespace:
    parser = people_parser(__doc__, PEOPLE)
    parser.add_argument("--prior", default="none")
    parser.add_argument("--set", nargs="*", default=[], help="key=value of the recipe")
    parser.add_argument("--variant", default="default", help="name of these settings")
    parser.add_argument("--keep", type=Path, help="keep pictures here: real and rendered frames, and turned heads")
    return parser.parse_args()


def measure(video: Path, options: argparse.Namespace) -> dict[str, tuple[float, str]]:
    """All figures of one person."""
    from adapt.avatar.avatar import load_avatar
    from adapt.clip import track_clip
    from adapt.evaluate.drives import track_drive
    from benchmarks.adapting import adapt

    with track_clip(video, frames=FRAMES, size=options.size) as clip, tempfile.TemporaryDirectory() as folder:
        length = len(clip) * 10 // 11
        with clip.stretch(0, length) as part:
            adapt(video, Path(folder) / "a", prior=options.prior, budget=options.budget, set=options.set, clip=part)
        avatar = load_avatar(Path(folder) / "a")
        drive, _ = track_drive(avatar, clip)
        assert drive is not None
        tested = np.unique(np.linspace(length, len(clip) - 1, TESTED).round().astype(int))
        shown = np.concatenate([avatar.render(drive.pick([int(i)])) for i in tested])
        turned, landmarks = _turned(avatar)
        found = {
            **_pictures(clip, tested, shown),
            **_lips(clip, tested, shown),
            **_alone(clip, length, turned),
            **_specks(clip, length, turned, landmarks),
        }
        if options.keep:
            _save(clip, tested, shown, turned, options.keep / f"{video.stem}-{options.variant}.png")
        return found


def _turned(avatar: Any) -> tuple[np.ndarray, np.ndarray]:
    """The head alone ``[N, H, W, 4]``, straight alpha, at the poses of ``TURNS``, and its landmarks ``[N, 478, 3]`` px."""
    from adapt.talk.poses import AnglePoses
    from heads.geometry.rotation import rotation_to_euler
    from heads.person.inputs import TRACKED, head_inputs

    rotation, translation = avatar.track["rotation"], avatar.track["translation"]
    middle = np.degrees(np.median(rotation_to_euler(rotation), 0))
    poses = AnglePoses(rotation, translation, middle + np.array([[turn, 0, 0] for turn in TURNS]))
    at = poses.at(np.arange(len(TURNS)))
    track = {name: np.repeat(avatar.track[name][poses.source][None], len(TURNS), 0) for name in TRACKED}
    track |= {"rotation": at.rotation.astype(np.float32), "translation": at.translation}
    # One at a time: as neighbours in time they would be a fast turn.
    each = [
        head_inputs({name: values[[i]] for name, values in track.items()}, avatar.device) for i in range(len(TURNS))
    ]
    rig, identity = avatar.model.rig, avatar.model.talking.identity.detach()
    moves = (torch.from_numpy(np.float32(track[name])) for name in ("expression", "eyelids", "gaze"))
    local = rig.landmarks(rig.vertices(identity[None], *moves)).numpy()
    landmarks = reprojected(local, track["rotation"], track["translation"], avatar.model.intrinsics.numpy())
    return np.concatenate([avatar.render(one, background="rgba") for one in each]), landmarks


def _pictures(clip: Any, tested: np.ndarray, shown: np.ndarray) -> dict[str, tuple[float, str]]:
    from heads.measures.image import psnr

    values: dict[str, list[float]] = {name: [] for name in ("face", "whole frame", "outline", "inner mouth")}
    for i, image in zip(tested, shown):
        real, masks = clip.frames([i])[0] / np.float32(255), {k: v[0] for k, v in clip.masks([i]).items()}
        values["face"].append(psnr(image, real, masks["face"]))
        values["whole frame"].append(psnr(image, real))
        values["outline"].append(psnr(image, real, _edge(clip.mattes([i])[0], masks["head"])))
        inside = masks["mouth_inside"]
        if inside.sum() > 2e-4 * inside.size:
            values["inner mouth"].append(psnr(image, real, inside))
    return {name: (float(np.nanmean(v)) if v else float("nan"), "dB") for name, v in values.items()}


def _edge(matte: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Mask ``[H, W]`` of the pixels near the person's edge, in and around the head's region."""
    reach = max(2, matte.shape[0] // 50)
    person = matte > 0.5
    near = ndimage.binary_dilation(person, iterations=reach) & ~ndimage.binary_erosion(person, iterations=reach)
    return (near & ndimage.binary_dilation(head > 0.5, iterations=reach)).astype(np.float32)


def _lips(clip: Any, tested: np.ndarray, shown: np.ndarray) -> dict[str, tuple[float, str]]:
    from heads.measures.face import inner_lip_distance, lip_gap
    from shards.tracking import detect_landmarks

    there, seen = detect_landmarks((shown * 255 + 0.5).astype(np.uint8))
    true, also = detect_landmarks(clip.frames(tested))
    closed = seen & also & (lip_gap(true[..., :2]) < CLOSED)
    if not closed.any():
        return {}
    apart = [inner_lip_distance(points[closed][..., :2]) * 512 / clip.size for points in (there, true)]
    return {"lips": (float(np.abs(apart[0] - apart[1]).mean()), "px at 512"),
            "lips, signed": (float((apart[0] - apart[1]).mean()), "px at 512")}  # fmt: skip


def _alone(clip: Any, length: int, turned: np.ndarray) -> dict[str, tuple[float, str]]:
    """What the turned heads ``[N, H, W, 4]`` show that no head has."""
    some = np.unique(np.linspace(0, length - 1, 20).round().astype(int))
    frames, mattes, heads = clip.frames(some), clip.mattes(some), clip.masks(some)["head"]
    own = (mattes > 0.95) & (heads > 0.5)
    landmarks, rows = clip.track["landmarks"][some], np.arange(frames.shape[1])[None, :, None]
    above = own & (rows < landmarks[:, facemesh.LIP_CORNERS, 1].min(1)[:, None, None])
    torso = (mattes > 0.95) & (heads < 0.05) & (rows > landmarks[:, facemesh.CHIN, 1][:, None, None])
    background = _frequency(frames[mattes < 0.05]) > RATIO * _frequency(frames[mattes > 0.95])
    clothes = _frequency(frames[torso]) > RATIO * _frequency(frames[above])

    def share(colours: np.ndarray, foreign: np.ndarray) -> float:
        return 100 * float(foreign[tuple((colours.astype(int) * BINS // 256).T)].mean())

    covered = turned[..., 3] > 0.5
    shown = (turned[covered][:, :3] * 255).clip(0, 255)
    filled = np.stack([_hull(one) for one in covered])
    largest = np.stack([_largest(one) for one in covered])
    return {
        "background colours": (share(shown, background), "%"),
        "background colours in real heads": (share(frames[own], background), "%"),
        "torso colours": (share(shown, clothes), "%"),
        "torso colours in real heads": (share(frames[above], clothes), "%"),
        "holes": (100 * float((filled & ~covered).sum() / filled.sum()), "%"),
        "detached": (100 * float((covered & ~largest).sum() / covered.sum()), "%"),
    }


def _specks(clip: Any, length: int, turned: np.ndarray, landmarks: np.ndarray) -> dict[str, tuple[float, str]]:
    """Single dark or light pixels of turned faces, and of real ones."""
    some = np.unique(np.linspace(0, length - 1, 20).round().astype(int))
    premultiplied = turned[..., :3].clip(0, 1) * turned[..., 3:] * 255
    return {
        "specks": (_speckled(premultiplied, landmarks), "%"),
        "specks in real faces": (_speckled(clip.frames(some), clip.track["landmarks"][some]), "%"),
    }


def _speckled(pictures: np.ndarray, landmarks: np.ndarray) -> float:
    """Share of the cheeks', jaw's and forehead's pixels that differ from those around them, %."""
    face = region_masks(landmarks, *pictures.shape[1:3], ("face",))["face"]
    middle = np.stack(
        [fill_polygons(_hull_of(points)[None], *pictures.shape[1:3])[0] for points in landmarks[:, MIDDLE, :2]]
    )
    skin = (ndimage.minimum_filter(face, (1, AROUND, AROUND)) > 0.5) & (
        ndimage.maximum_filter(middle, (1, AROUND, AROUND)) < 0.5
    )
    brightness = pictures.astype(np.float32) @ np.array([0.3, 0.59, 0.11], np.float32)
    away = np.abs(brightness - ndimage.median_filter(brightness, (1, AROUND, AROUND)))
    return 100 * float((away[skin] > SPECK).mean())


def _hull_of(points: np.ndarray) -> np.ndarray:
    return points[ConvexHull(points).vertices]


def _frequency(colours: np.ndarray) -> np.ndarray:
    """Smoothed colour histogram ``[BINS, BINS, BINS]``, sum 1, of uint8 ``[N, 3]``."""
    counts, _ = np.histogramdd(colours, bins=BINS, range=[(0, 256)] * 3)
    smooth = ndimage.gaussian_filter(counts, 0.7)
    return smooth / max(smooth.sum(), 1) + 1e-6


def _hull(covered: np.ndarray) -> np.ndarray:
    """The silhouette with its gaps closed and its holes filled."""
    reach = max(2, covered.shape[0] // 40)
    grown = ndimage.binary_closing(np.pad(covered, reach), iterations=reach)[reach:-reach, reach:-reach]
    return ndimage.binary_fill_holes(grown | covered)


def _largest(covered: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(covered)
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]) if count else covered


def _save(clip: Any, tested: np.ndarray, shown: np.ndarray, turned: np.ndarray, path: Path) -> None:
    """Three real frames over the rendered ones, over the heads turned, on green."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    some = np.linspace(0, len(tested) - 1, len(turned)).astype(int)
    green = np.array([0.1, 0.7, 0.2], np.float32)
    alone = turned[..., :3].clip(0, 1) * turned[..., 3:] + green * (1 - turned[..., 3:])
    lines = [clip.frames(tested[some]) / 255, shown[some], alone]
    picture = np.concatenate([np.concatenate(list(line), 1) for line in lines])
    Image.fromarray((picture * 255 + 0.5).astype(np.uint8)).save(path)


def _write(rows: list[dict[str, Any]], echo: bool) -> None:
    notes = "recipe headstart; benchmarks/adaptation/outline.py says what the figures are; means over frames"
    write("outline", rows + means(rows), notes, command=shlex.join(["outline", *sys.argv[1:]]), echo=echo)


if __name__ == "__main__":
    main()
