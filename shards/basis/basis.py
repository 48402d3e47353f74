"""Learns the rig's bases from any dataset or folder of videos, and tests them on held-out people.

python -m shards.basis learn /path/to/dataset_or_videos --out my_rig.npz
python -m shards.basis leave-one-out /path/to/dataset_or_videos --components 32
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from configs import InputError
from heads.rig import facemesh, load_rig
from heads.rig.assemble import assemble, write
from shards.media.decode import read_video
from shards.read.dataset import open_dataset
from shards.tracking.models import FaceLandmarks, tessellation, version
from shards.tracking.shape_statistics import (
    SURFACE,
    LandmarkClip,
    Person,
    align,
    closures,
    expression_basis,
    eyelid_basis,
    landmark_weights,
    learn,
    lid_gap,
    moments,
)

VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
FEWEST_PEOPLE = 3
FRAMES_PER_CLIP = 170  # evenly spread; more would only repeat


def learn_basis(
    source: str | Path,
    out: str | Path,
    *,
    n_identity: int = 64,
    n_expression: int = 32,
    keep_atlas: bool = True,
    frames_per_clip: int = FRAMES_PER_CLIP,
) -> dict[str, object]:
    """Learns a rig on the FaceMesh topology and writes it with a record of how it was made.

    Args:
        source: a dataset (folder or URL with ``dataset.json``), or a folder of videos; for videos a ``consent.csv``
            in the folder names their identities, otherwise every file is a person.
        out: the rig file, ``.npz``; the record goes beside it as ``.json``.
        n_identity: size of the identity basis.
        n_expression: size of the expression basis.
        keep_atlas: reuse the shipped rig's UV atlas, so that maps fit both rigs; otherwise a new one is computed.
        frames_per_clip: most frames taken of a clip, evenly spread.

    Returns:
        The record.

    Raises:
        InputError: no usable clips, fewer than three people, more expressions than a quarter of the frames.
    """
    clips = list(read_clips(source, frames_per_clip))
    people = sorted({clip.identity for clip in clips})
    frames = sum(len(clip.landmarks) for clip in clips)
    if len(people) < FEWEST_PEOPLE:
        raise InputError(f"{source}: holds {len(people)} people, a basis needs at least {FEWEST_PEOPLE}")
    if n_expression > frames // 4:
        raise InputError(f"{source}: {frames} frames are too few for {n_expression} expressions; request fewer")
    bases = learn(clips, n_identity, n_expression)
    atlas = _shipped_atlas() if keep_atlas else None
    name = f"mediapipe-{facemesh.N_LANDMARKS}/1"
    arrays = assemble(name, bases.mean, _triangles(), bases.identity, bases.expression, bases.eyelids, atlas)
    record = {
        "rig": name,
        "made_by": "python -m shards.basis learn SOURCE --out FILE"
        + f" --identity {n_identity} --expression {n_expression}",
        "people": len(people),
        "clips": len(clips),
        "frames": frames,
        "n_identity": n_identity,
        "n_expression": n_expression,
        "vertices": len(arrays["mean"]),
        "triangles": len(arrays["faces"]),
        "tracker": _tracker(),
        "model": "identity: sample covariance and a smooth kernel; expression: weighted PCA, mirrored, no eyelids",
    }
    write(Path(out), arrays, record)
    return record


def leave_one_out(
    source: str | Path | list[LandmarkClip], components: int = 32, frames_per_clip: int = FRAMES_PER_CLIP
) -> dict[str, object]:
    """Reconstructs every person with an expression basis learned on all others.

    Returns:
        ``components``; ``all``, ``lips``, ``eyes``: root mean square errors in eye distances, in the image plane, mean over
        people; ``worst``: the person with the largest lip error; ``people``: the errors of each.
    """
    clips = source if isinstance(source, list) else list(read_clips(source, frames_per_clip))
    mean, partner, people = align(clips)
    names = sorted({clip.identity for clip in clips})
    figures, motion = {}, [moments(person, mean) for person in people]
    for k, name in enumerate(names):
        eyelids = eyelid_basis(people[:k] + people[k + 1 :], mean, partner)
        basis = expression_basis(motion[:k] + motion[k + 1 :], eyelids, partner, components)
        figures[name] = reconstruction_error(people[k], basis, eyelids, mean)
    result: dict[str, object] = {
        part: float(np.mean([figure[part] for figure in figures.values()])) for part in ("all", "lips", "eyes")
    }
    worst = max(figures, key=lambda name: figures[name]["lips"])
    return {"components": components, **result, "worst": worst, "people": figures}


def shape_error(person: Person, basis: np.ndarray, mean: np.ndarray) -> float:
    """Root mean square distance over landmarks between a person's neutral face and its projection on an identity basis.

    Args:
        basis: shapes ``[K, 478, 3]``.
        mean: landmarks ``[478, 3]`` of the head that it belongs to.

    Returns:
        In the person's eye distances, in the image plane.
    """
    change = (person.neutral - mean)[:SURFACE].ravel()
    flat = basis[:, :SURFACE].reshape(len(basis), -1)
    rest = (change - np.linalg.lstsq(flat.T, change, rcond=None)[0] @ flat).reshape(SURFACE, 3)
    return float(np.sqrt((rest[:, :2] ** 2).sum(-1).mean()) / _eye_distance(person))


def reconstruction_error(person: Person, basis: np.ndarray, eyelids: np.ndarray, mean: np.ndarray) -> dict[str, float]:
    """Root mean square distances over frames and landmarks between a person's motion and its projection.

    Args:
        basis: expressions ``[K, 478, 3]``.
        eyelids: displacements ``[2, 478, 3]`` that close each eye.
        mean: landmarks ``[478, 3]`` of the head that both belong to.

    Returns:
        ``all``, ``lips``, ``eyes``: in the person's eye distances, in the image plane.
    """
    weights = landmark_weights()
    scale = lid_gap(person.neutral) / lid_gap(mean)
    lids = np.tensordot(closures(person.frames, person.neutral) * scale, eyelids, 1)
    change = (person.frames - person.neutral - lids)[:, :SURFACE]
    weighted = (basis[:, :SURFACE] * weights).reshape(len(basis), -1)
    coefficients = np.linalg.lstsq(weighted.T, (change * weights).reshape(len(change), -1).T, rcond=None)[0]
    rest = change - np.tensordot(coefficients.T, basis[:, :SURFACE], 1)
    error = (rest[..., :2] ** 2).sum(-1) / _eye_distance(person) ** 2
    parts = {
        "all": list(range(SURFACE)),
        "lips": list(facemesh.LIPS_OUTER + facemesh.LIPS_INNER),
        "eyes": list(facemesh.EYE_LEFT + facemesh.EYE_RIGHT),
    }
    return {part: float(np.sqrt(error[:, index].mean())) for part, index in parts.items()}


def _eye_distance(person: Person) -> float:
    return float(np.linalg.norm(person.neutral[facemesh.IRIS_LEFT[0]] - person.neutral[facemesh.IRIS_RIGHT[0]]))


# ---------------------------------------------------------------------------------------------------- sources


def read_clips(source: str | Path, frames_per_clip: int = FRAMES_PER_CLIP) -> Iterator[LandmarkClip]:
    """Landmarks of a dataset's clips, or of a folder's videos.

    Raises:
        InputError: neither a dataset nor a folder with videos.
    """
    folder = Path(source)
    if folder.is_dir() and not (folder / "dataset.json").exists():
        yield from _tracked_videos(folder, frames_per_clip)
    else:
        yield from _dataset_clips(source, frames_per_clip)


def _tracked_videos(folder: Path, frames_per_clip: int) -> Iterator[LandmarkClip]:
    videos = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEOS)
    if not videos:
        raise InputError(f"{folder}: holds no videos ({', '.join(VIDEOS)}) and no dataset.json")
    owners = _owners(folder)
    for path in videos:
        mesh, found, size = FaceLandmarks(), [], 0
        for picture in read_video(path, max_side=1280):
            points, size = mesh(picture), max(picture.shape[:2])
            if points is not None:
                found.append(points + _centring(picture))
        mesh.close()
        if len(found) > 10:
            yield LandmarkClip(owners.get(path.stem, path.stem), _spread(np.stack(found), frames_per_clip), size)


def _centring(picture: np.ndarray) -> np.ndarray:
    """Shift ``[3]`` px from a picture to the square around it, whose centre is the principal point."""
    height, width = picture.shape[:2]
    longest = max(height, width)
    return np.array([(longest - width) / 2, (longest - height) / 2, 0], np.float32)


def _dataset_clips(source: str | Path, frames_per_clip: int) -> Iterator[LandmarkClip]:
    dataset = open_dataset(str(source))
    held: dict[tuple[str, str, int], list[np.ndarray]] = {}
    for index in range(len(dataset.samples)):
        sample = dataset.read(index)
        meta = sample.meta
        size = meta["size"] if isinstance(meta["size"], int) else meta["size"][0]
        good = sample.track["quality"] > 0
        every = max(1, sample.length // 12)
        held.setdefault((meta["identity"], meta["clip"], size), []).append(sample.track["landmarks"][good][::every])
    for (identity, _, size), parts in held.items():
        yield LandmarkClip(identity, _spread(np.concatenate(parts), frames_per_clip), size)


def _spread(landmarks: np.ndarray, count: int) -> np.ndarray:
    return landmarks[np.unique(np.linspace(0, len(landmarks) - 1, count).astype(int))]


def _owners(folder: Path) -> dict[str, str]:
    table = folder / "consent.csv"
    if not table.exists():
        return {}
    with table.open(newline="", encoding="utf-8") as file:
        return {row["clip"]: row["identity"] for row in csv.DictReader(file)}


def _triangles() -> np.ndarray:
    """The face's triangles: from the shipped rig, or from MediaPipe where none is shipped yet."""
    try:
        rig = load_rig()
    except InputError:
        return facemesh.triangles_of(tessellation())
    skin = (rig.faces < SURFACE).all(1) & (rig.face_regions != rig.regions["mouth_inside"])
    return rig.faces[skin].numpy()


def _shipped_atlas() -> dict[str, np.ndarray] | None:
    try:
        rig = load_rig()
    except InputError:
        return None
    return {key: getattr(rig, key).numpy() for key in ("faces", "face_regions", "face_uvs")}


def _tracker() -> str:
    return version()


def main(arguments: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m shards.basis", description=__doc__)
    parser.add_argument("what", choices=("learn", "leave-one-out"))
    parser.add_argument("source")
    parser.add_argument("--out", default="rig.npz")
    parser.add_argument("--identity", type=int, default=64)
    parser.add_argument("--expression", "--components", type=int, default=32)
    parser.add_argument("--new-atlas", action="store_true")
    given = parser.parse_args(arguments)
    try:
        if given.what == "learn":
            result = learn_basis(
                given.source,
                given.out,
                n_identity=given.identity,
                n_expression=given.expression,
                keep_atlas=not given.new_atlas,
            )
        else:
            result = leave_one_out(given.source, given.expression)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(result, indent=2))
    return 0
