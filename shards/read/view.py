"""Views: what a training task reads of a sample. A view decodes only the members that it needs.

A :class:`View` gives a dict of numpy arrays and numbers for a sample; :class:`shards.read.reader.Reader` stacks them into
a batch. All randomness comes from ``rng``, which depends only on the seed, the epoch and the position in it.
Images are float32 RGB in [0, 1], ``[H, W, 3]``; intrinsics and landmarks are in px of the returned image.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from configs import InputError
from shards.format.groups import MIXED, WIDE, group_name, openness, turned
from shards.format.schema import MAX_FRAMES, Sample, frame_name, matte_name
from shards.read.dataset import Dataset

NEAR = 2  # pictures at the beginning of a group that a source is drawn from
PER_FRAME = ("expression", "eyelids", "gaze", "rotation", "translation", "quality")


class View(Protocol):
    """What :class:`shards.read.reader.Reader` needs of a view; plain attributes, dataclass fields or properties.

    Attributes:
        features: name of the audio features that it reads, None where it reads none.
        window: frames of one segment that it needs at once.
        needs_sound: whether samples of clips without sound are left out.
    """

    @property
    def features(self) -> str | None: ...

    @property
    def window(self) -> int: ...

    @property
    def needs_sound(self) -> bool: ...

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Mapping[str, object]:
        """One sample's entries of a batch: arrays, numbers and texts with equal names and shapes for all samples."""
        ...


@dataclass(frozen=True)
class PlainView:
    """A view made of a function; by default it needs nothing of the dataset."""

    function: Callable[[Sample, np.random.Generator], Mapping[str, object]]
    features: str | None = None
    window: int = 1
    needs_sound: bool = False

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Mapping[str, object]:
        return self.function(sample, rng)


class Frame(NamedTuple):
    """A frame of a sample, and its row in a track of that sample."""

    sample: Sample
    track: Mapping[str, np.ndarray]
    number: int
    row: int


@dataclass(frozen=True, kw_only=True)
class PairView:
    """Two frames of one person (expression-visual): the prior sees the source and must draw the target.

    Entries, each with the prefix ``source_`` and ``target_``, with S = ``size``: ``image`` ``[S, S, 3]``, ``matte``
    ``[S, S]``, ``landmarks`` ``[478, 3]`` px, ``intrinsics`` ``[3, 3]`` px, ``rotation`` ``[3, 3]``, ``translation``
    ``[3]``, ``identity`` ``[I]``, ``expression`` ``[K]``, ``eyelids`` ``[2]``, ``gaze`` ``[2, 2]``, ``quality`` ``[]``, as in
    :data:`shards.format.fields.TRACK_SHAPES`; and ``identity_index``.

    Attributes:
        size: side S of the returned images, px.
        across: probability that the target comes from a random segment of the same person in the same shard.
        targets: number of targets; with more than one, target arrays get a leading axis.
        wide: probability that a target is drawn from the quarter of frames with the widest open mouth or, with equal
            chance, with the head turned farthest from the source's. Both are rare in speech and shown least by the source.
        bytes: images and mattes as uint8, a quarter of the memory to move; else float32 in [0, 1].
        grouped: take all targets of a sample from one group of pictures (:mod:`shards.format.groups`), which one ranged read
            fetches, and the source of another segment from the first two pictures of a group. ``wide`` is then the probability
            that all come from a group of wide frames. In an epoch of a reader a segment shows the same group to all samples,
            and from a store the processes of a machine fetch it once. Segments without groups, as in datasets of earlier
            versions, are read as without this.
    """

    size: int = 256
    across: float = 0.5
    targets: int = 1
    wide: float = 0.0
    bytes: bool = False
    grouped: bool = False
    features: ClassVar[str | None] = None
    window: ClassVar[int] = 1
    needs_sound: ClassVar[bool] = False

    def __call__(self, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        source, targets = self.chosen(sample, rng)
        frames = [source, *targets]
        image, matte = pictures(frames, self.size, self.bytes)
        batch: dict[str, object] = {"identity_index": sample.identity_index}
        for name, value in {"image": image, "matte": matte, **tracked(frames, self.size)}.items():
            batch[f"source_{name}"] = value[0]
            batch[f"target_{name}"] = value[1:] if self.targets > 1 else value[1]
        return batch

    def chosen(self, sample: Sample, rng: np.random.Generator) -> tuple[Frame, list[Frame]]:
        """A source of ``sample`` and the targets; reads what the choice needs, but decodes no picture."""
        other = sample.sibling(rng) if rng.random() < self.across else sample
        if self.grouped and sample.groups and other.groups:
            return self._grouped(sample, other, rng)
        for segment in (sample, other):
            segment.prefetch(["meta.json", "track.npz"])
        source = int(rng.integers(sample.length))
        targets = rng.choice(other.length, self.targets, replace=self.targets > other.length)
        if self.wide:
            targets = self._widened(targets, sample.track["rotation"][source], other.track, rng)
        return Frame(sample, sample.track, source, source), [Frame(other, other.track, int(i), int(i)) for i in targets]

    def _grouped(self, sample: Sample, other: Sample, rng: np.random.Generator) -> tuple[Frame, list[Frame]]:
        """A source of ``sample`` and targets of ``other``: one ranged read for each, or for both if they are one segment."""
        number, _ = self._groups(other, rng)
        places = rng.permutation(len(other.groups[number])).tolist()
        if other.key == sample.key:
            source, *rest = places
            targets = np.resize(rest or places, self.targets).tolist()
            group = _of_group(other, number, [source, *targets])
            return group[0], group[1:]
        targets = np.resize(places, self.targets).tolist()  # repeats where the group has fewer
        shown = _of_group(other, number, targets)
        its, own = self._groups(sample, rng)
        source = int(rng.integers(min(NEAR, len(sample.groups[own]))))
        return _of_group(sample, own, [source], shared=own == its)[0], shown

    def _groups(self, sample: Sample, rng: np.random.Generator) -> tuple[int, int]:
        return drawn_groups(len(sample.groups), self.wide, rng, sample.key, sample.epoch)

    def _widened(
        self, targets: np.ndarray, rotation: np.ndarray, track: Mapping[str, np.ndarray], rng: np.random.Generator
    ) -> np.ndarray:
        """Frame numbers in which each is replaced by one of the widest with the probability ``wide``."""
        measures = openness(track["landmarks"]), turned(track["rotation"], rotation)
        widest = [np.argsort(measure)[-max(1, len(measure) // 4) :] for measure in measures]
        chosen = [
            rng.choice(widest[int(rng.random() < 0.5)]) if rng.random() < self.wide else target for target in targets
        ]
        return np.array(chosen)


def drawn_groups(
    count: int, often: float, rng: np.random.Generator, key: str = "", epoch: Sequence[int] = ()
) -> tuple[int, int]:
    """Numbers of a segment's groups that targets and that a source come from; the same unless the first is a wide one.

    In an epoch they depend on the segment alone, not on the sample that shows it: a segment's own sample and those that
    pair it with theirs share the bytes.

    Args:
        count: groups of the segment.
        often: probability that targets come from a wide one.
        rng: decides outside an epoch.
        key: of the segment.
        epoch: see :class:`shards.format.schema.Sample`.
    """
    if epoch:
        rng = np.random.default_rng([*epoch, zlib.crc32(key.encode())])
    wide = WIDE if count >= MIXED else 0
    shown = int(rng.integers(wide) if wide and rng.random() < often else rng.integers(wide, count))
    return shown, shown if shown >= wide else int(rng.integers(wide, count))


def _of_group(sample: Sample, number: int, places: Sequence[int], shared: bool = True) -> list[Frame]:
    """The frames at some places of a group; one ranged read fetches their pictures and all before them.

    Args:
        shared: whether other samples of the epoch show this group too, so that a machine fetches all of it from a store.
    """
    numbers = sample.groups[number]
    members = [group_name(number), *(name(i) for i in numbers for name in (frame_name, matte_name))]
    sample.prefetch(members[: 2 * max(places) + 3], within=members if shared and sample.epoch else ())
    group = sample.group(number)
    if group["frames"].tolist() != numbers:
        raise sample.broken(group_name(number), "lists other frames than those behind it; run headstart shards verify")
    return [Frame(sample, group, numbers[place], place) for place in places]


def tracked(frames: Sequence[Frame], size: int) -> dict[str, np.ndarray]:
    """Entries of :class:`PairView` without prefix for frames with pictures of ``size`` px: ``[n, ...]`` each, no pictures."""
    scales = [_scale(frame.sample, size) for frame in frames]
    return {
        "landmarks": np.stack([frame.track["landmarks"][frame.row] * scale for frame, scale in zip(frames, scales)]),
        "intrinsics": np.stack([_scaled(frame.track["intrinsics"], scale) for frame, scale in zip(frames, scales)]),
        "identity": np.stack([frame.track["identity"] for frame in frames]),
        **{name: np.stack([frame.track[name][frame.row] for frame in frames]) for name in PER_FRAME},
    }


def pictures(frames: Sequence[Frame | None], size: int, plain: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images ``[n, S, S, 3]`` and mattes ``[n, S, S]`` of frames, zeros for ``None``; each is decoded once.

    Args:
        size: S, px.
        plain: as uint8; else float32 in [0, 1].
    """
    count = len(frames)
    images, mattes = np.zeros((count, size, size, 3), np.uint8), np.zeros((count, size, size), np.uint8)
    wanted: dict[int, list[Frame]] = {}
    for frame in frames:
        if frame is not None:
            wanted.setdefault(id(frame.sample), []).append(frame)
    for here in wanted.values():
        numbers = sorted({frame.number for frame in here})
        here[0].sample.prefetch([name(i) for i in numbers for name in (frame_name, matte_name)])
    places: dict[tuple[int, int], int] = {}
    for place, frame in enumerate(frames):
        if frame is None:
            continue
        first = places.setdefault((id(frame.sample), frame.number), place)
        if first < place:
            images[place], mattes[place] = images[first], mattes[first]
        elif frame.sample.size == (size, size):  # in place: a copy costs a third more
            frame.sample.frame(frame.number, out=images[place])
            frame.sample.matte(frame.number, out=mattes[place])
        else:
            images[place] = _resized(frame.sample.frame(frame.number, size), size)
            mattes[place] = _resized(frame.sample.matte(frame.number), size)
    return (images, mattes) if plain else (_unit(images), _unit(mattes))


def _scale(sample: Sample, size: int) -> np.ndarray:
    """Factors for landmark x, y and z (which has the scale of x)."""
    width, height = sample.size
    return np.array([size / width, size / height, size / width], np.float32)


def _scaled(intrinsics: np.ndarray, scale: np.ndarray) -> np.ndarray:
    # Pixel coordinates are continuous with 0 at the image's edge, so resizing is a plain factor.
    return intrinsics * np.array([[scale[0]], [scale[1]], [1.0]], np.float32)


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 ``[h, w(, 3)]`` to ``[size, size(, 3)]``, area average when shrinking."""
    from PIL import Image

    if image.shape[:2] == (size, size):
        return image
    method = Image.Resampling.BOX if min(image.shape[:2]) >= size else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize((size, size), method))


def _unit(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / 255.0


def check_view(view: View, dataset: Dataset) -> None:
    """Check before the first step that the dataset holds what a view needs.

    Raises:
        TypeError: the view lacks an attribute of :class:`View`.
        InputError: features that the dataset was built without, or a window longer than a segment.
    """
    lacking = [name for name in ("features", "window", "needs_sound") if not hasattr(view, name)]
    if lacking:
        raise TypeError(f"the view {view!r} has no {' and no '.join(lacking)}; see shards.read.view.View")
    if view.features is not None:
        dataset.stored_features(view.features)
    if not 1 <= view.window <= MAX_FRAMES:
        raise InputError(f"window {view.window}: a segment has at most {MAX_FRAMES} frames, choose 1 to {MAX_FRAMES}")
