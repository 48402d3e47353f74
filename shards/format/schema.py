"""The sample, schema version 1: which members a segment has, their shapes and units, and the lazy object that reads it.

A segment is up to 50 consecutive frames at 25 fps of one person in one clip. Its WebDataset key is
``IDENTITY/CLIP-00007``; ``docs/dataset-format.md`` lists the members. Frames, track, audio and features of one sample
always have the same length T: this module refuses anything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from configs import InputError
from shards.format import codecs as members
from shards.format import groups, small
from shards.format.fields import OPTIONAL_TRACK_SHAPES, TRACK_SHAPES, known_fields
from shards.media.rates import FPS, MOST_OFFSET, SAMPLES_PER_FRAME

SCHEMA = 1
MAX_FRAMES = 50
MAX_NAME = 100  # a longer member name needs a second tar header, which ranged reads do not expect
MAX_META = 1 << 20  # bytes of meta.json

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_KEY = re.compile(r"(?P<identity>[A-Za-z0-9_-]+)/(?P<clip>[A-Za-z0-9_-]+)-(?P<number>\d{5,})")


class BrokenSample(InputError):
    """A sample that cannot be used: which shard, which key, which member, and why."""

    def __init__(self, key: str, member: str, reason: str, shard: str = "") -> None:
        self.key, self.member, self.reason, self.shard = key, member, reason, shard
        where = f"{shard}: " if shard else ""
        super().__init__(f"{where}sample '{key}', member '{member}': {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.key, self.member, self.reason, self.shard)

    def as_dict(self) -> dict[str, str]:
        """What ``shards verify --json`` prints about it."""
        return {"shard": self.shard, "key": self.key, "member": self.member, "reason": self.reason}


def clean_name(text: str) -> str:
    """A name that is safe in keys, tars and file systems: at most 36 letters, digits, ``_`` and ``-``."""
    cleaned = re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_-")
    return cleaned[:36] or "unnamed"


def sample_key(identity: str, clip: str, number: int) -> str:
    """``IDENTITY/CLIP-00007`` for the segment ``number`` of a clip.

    Raises:
        InputError: a name with other characters than letters, digits, ``_`` and ``-``, or too long for a tar header.
    """
    for what, name in (("identity", identity), ("clip", clip)):
        if not _NAME.fullmatch(name):
            raise InputError(f"{what} '{name}': expected letters, digits, '_' and '-'; pass it through clean_name()")
    key = f"{identity}/{clip}-{number:05d}"
    if len(key) > MAX_NAME - 16:
        raise InputError(f"key '{key}' has {len(key)} characters, at most {MAX_NAME - 16} fit; use shorter names")
    return key


def split_key(key: str) -> tuple[str, str, int]:
    """Identity, clip and segment number of a key.

    Raises:
        InputError: not ``IDENTITY/CLIP-00007``; this is where ``../`` in a foreign tar ends.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise InputError(f"key '{key}': expected IDENTITY/CLIP-00007 of letters, digits, '_' and '-'")
    return match["identity"], match["clip"], int(match["number"])


def frame_name(index: int) -> str:
    """Member of the RGB frame ``index``."""
    return f"f{index:03d}.jpg"


def matte_name(index: int) -> str:
    """Member of the person matte of frame ``index``."""
    return f"m{index:03d}.png"


def feature_name(name: str) -> str:
    """Member of the audio features called ``name``."""
    return f"audio.{name}.npy"


def is_picture(name: str) -> bool:
    """Whether a member is an RGB frame or a matte."""
    return re.fullmatch(r"f\d{3}\.jpg|m\d{3}\.png", name) is not None


def is_member(name: str) -> bool:
    """Whether a sample may have a member of this name: data of a known kind, perhaps of a later version that adds to it."""
    return re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.(jpg|png|flac|npy|npz|json)", name) is not None


def check_track(key: str, track: Mapping[str, np.ndarray], length: int) -> dict[str, int]:
    """Check known fields, shapes, dtype and finiteness of a track of ``length`` frames; returns the coefficient counts I and K.

    Raises:
        BrokenSample: the first field that is missing, of another shape, not float32, or not finite.
    """
    sizes: dict[str, int] = {"T": length}
    shapes = {**TRACK_SHAPES, **{name: shape for name, shape in OPTIONAL_TRACK_SHAPES.items() if name in track}}
    for name, shape in shapes.items():
        if name not in track:
            raise BrokenSample(key, "track.npz", f"field '{name}' is missing; track the clip again")
        value = np.asarray(track[name])
        if value.dtype != np.float32:
            raise BrokenSample(key, "track.npz", f"'{name}' is {value.dtype}, expected float32")
        if len(value.shape) == len(shape):
            sizes = {letter: axis for axis, letter in zip(value.shape, shape) if isinstance(letter, str)} | sizes
        expected = tuple(sizes.get(n, 0) if isinstance(n, str) else n for n in shape)
        if value.shape != expected:
            raise BrokenSample(key, "track.npz", f"'{name}' has shape {value.shape}, expected {expected}")
        if not np.isfinite(value).all():
            raise BrokenSample(key, "track.npz", f"'{name}' holds values that are not finite; track the clip again")
    return {"identity": sizes["I"], "expression": sizes["K"]}


def check_meta(key: str, meta: Mapping[str, object]) -> None:
    """Check that a ``meta.json`` is of this schema and belongs to ``key``.

    Raises:
        BrokenSample: naming the entry that is wrong.
    """
    identity, clip, _ = split_key(key)
    if meta.get("schema") != SCHEMA:
        cure = "install a newer version" if str(meta.get("schema")) > str(SCHEMA) else "build the dataset again"
        raise BrokenSample(key, "meta.json", f"schema {meta.get('schema')!r}, expected {SCHEMA}; {cure}")
    for name, expected in (("identity", identity), ("clip", clip)):
        if meta.get(name) != expected:
            raise BrokenSample(key, "meta.json", f"'{name}' is {meta.get(name)!r}, the key says {expected!r}")
    length, size = meta.get("frames"), meta.get("size")
    if not isinstance(length, int) or not 1 <= length <= MAX_FRAMES:
        raise BrokenSample(key, "meta.json", f"'frames' is {length!r}, expected 1 to {MAX_FRAMES}")
    if not isinstance(offset := meta.get("av_offset", 0.0), int | float) or not abs(offset) <= MOST_OFFSET:
        raise BrokenSample(
            key, "meta.json", f"'av_offset' is {offset!r}, expected at most {MOST_OFFSET:g} s either way"
        )
    if meta.get("fps") != FPS:
        raise BrokenSample(key, "meta.json", f"'fps' is {meta.get('fps')!r}, expected {FPS}")
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) for n in size)) or not all(
        1 <= n <= members.MAX_SIDE for n in size
    ):
        raise BrokenSample(key, "meta.json", f"'size' is {size!r}, expected [width, height] in px")


def check_features(key: str, name: str, value: np.ndarray, length: int, size: int | None = None) -> None:
    """Check that a feature matrix is float16 ``[T, C]``, finite, one row per frame.

    Raises:
        BrokenSample: naming what is wrong.
    """
    member = feature_name(name)
    if value.dtype != np.float16 or value.ndim != 2:
        raise BrokenSample(key, member, f"is {value.dtype} {value.shape}, expected float16 (T, C)")
    if len(value) != length or (size is not None and value.shape[1] != size):
        expected = (length, size if size is not None else value.shape[1])
        raise BrokenSample(key, member, f"has shape {value.shape}, expected {expected}: one row per frame")
    if not np.isfinite(value).all():
        raise BrokenSample(key, member, "holds values that are not finite; extract the features again")


def member_names(length: int, features: Iterable[str]) -> list[str]:
    """All members of a sample of ``length`` frames, in the order in which they lie in the tar."""
    # Small members first and frame beside matte: one ranged read serves audio and track, one serves a picture pair.
    names = ["audio.flac", *(feature_name(name) for name in sorted(features)), "meta.json", "track.npz"]
    for index in range(length):
        names += [frame_name(index), matte_name(index)]
    return names


class Sample:
    """One segment, decoded member by member on demand.

    Args:
        key: ``IDENTITY/CLIP-00007``.
        length: T, frames.
        fetch: returns the raw bytes of the members asked for, verified against the index.
        members: names of the members it has, in file order.
        shard: name of its shard, for messages.
        siblings: gives other samples of the same person from the same shard (for source-target pairs).
        epoch: seed of the run and number of the epoch, for choices on which all samples of an epoch agree; empty outside one.
    """

    def __init__(
        self,
        key: str,
        length: int,
        fetch: Callable[..., dict[str, bytes]],
        members: Iterable[str],
        *,
        shard: str = "",
        identity_index: int = 0,
        siblings: Callable[[], Sequence[Callable[[], Sample]]] | None = None,
        epoch: Sequence[int] = (),
    ) -> None:
        self.key, self.length, self.shard = key, length, shard
        self._in_order = tuple(members)
        self.members = frozenset(self._in_order)
        self.identity_index = identity_index
        self.identity, self.clip, self.number = split_key(key)
        self._fetch = fetch
        self._raw: dict[str, bytes] = {}
        self._decoded: dict[str, object] = {}
        self._siblings, self.epoch = siblings, epoch
        self._group_size: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"Sample({self.key!r}, {self.length} frames)"

    def prefetch(self, names: Iterable[str], within: Sequence[str] = ()) -> None:
        """Read several members in as few ranged reads as possible; later accesses decode from memory.

        Args:
            within: see :meth:`shards.read.store.Store.fetch`.
        """
        wanted = [name for name in dict.fromkeys(names) if name not in self._raw and name not in self._decoded]
        for name in wanted:
            if name not in self.members:
                raise self.broken(name, "is missing in this sample; run headstart shards verify")
        if wanted:
            self._raw.update(self._fetch(wanted, within) if within else self._fetch(wanted))

    def raw(self, name: str) -> bytes:
        """The bytes of a member, which are then released: a frame is not kept in memory twice."""
        self.prefetch([name])
        return self._raw.pop(name)

    def forget(self) -> None:
        """Free what was read and decoded; it is read again when asked for again."""
        self._raw, self._decoded = {}, {}

    def broken(self, member: str, reason: str) -> BrokenSample:
        """The error that names this sample."""
        return BrokenSample(self.key, member, reason, self.shard)

    @property
    def meta(self) -> dict[str, Any]:
        """``meta.json``: schema, identity, clip, first frame, fps, size, crop box, source, consent, tool versions."""
        return self._once("meta.json", _decode_meta)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames in px; as a group of pictures states it where one was read."""
        width, height = self._group_size or self.meta["size"]
        return width, height

    @cached_property
    def groups(self) -> list[list[int]]:
        """Frames of each group of pictures as they lie in the tar, see :mod:`shards.format.groups`; empty if there are none."""
        found = groups.groups_in(self._in_order)
        return found if groups.cover(found, self.length) else []

    def group(self, number: int) -> dict[str, np.ndarray]:
        """A track as :attr:`track` of one group's ``frames [n]``, landmarks within a ``step`` px; ``size [2]``, as :attr:`size`."""
        return self._once(groups.group_name(number), self._decode_group)

    @property
    def track(self) -> dict[str, np.ndarray]:
        """The tracked head, float32; fields, shapes and units in :data:`shards.format.fields.TRACK_SHAPES`."""
        return self._once("track.npz", self._decode_track)

    @property
    def lips(self) -> dict[str, np.ndarray]:
        """``jpeg [n]`` uint8 of the crops, ``shape [T, 3]``, ``loudness []``, see :mod:`shards.format.small`."""
        return self._once(small.LIPS, lambda data: small.decode_lips(data, self.length))

    def lip_crops(self) -> np.ndarray:
        """``[T, h, w, 3]`` uint8 RGB lips of every frame, if the sample has ``lips.npz``; decoded by each call."""
        jpeg = self.lips["jpeg"].tobytes()
        return self._try(small.LIPS, lambda data: small.decode_crops(data, self.length), jpeg)

    @property
    def motion(self) -> dict[str, np.ndarray]:
        """The track without landmarks, and ``loudness []`` of the sound, if the sample has ``motion.npz``."""
        return self._once(small.MOTION, lambda data: small.decode_motion(data, self.length))

    @property
    def audio(self) -> np.ndarray:
        """``[T * 640]`` float32 in [-1, 1], 16 kHz mono, sample-aligned with frame 0."""
        expected = self.length * SAMPLES_PER_FRAME
        return self._once("audio.flac", lambda data: members.decode_flac(data, expected))

    def features(self, name: str) -> np.ndarray:
        """``[T, C]`` float32 audio features, row t centred on the 40 ms of frame t."""
        return self._once(feature_name(name), lambda data: self._decode_features(name, data)).astype(np.float32)

    def frame(self, index: int, min_side: int = 0, out: np.ndarray | None = None) -> np.ndarray:
        """``[H, W, 3]`` uint8 RGB of a frame.

        Args:
            min_side: px; scaled as :func:`codecs.decode_jpeg` does.
            out: contiguous array of the full size to decode into.
        """
        name = frame_name(self._index(index))
        return self._try(name, lambda data: members.decode_jpeg(data, self.size, min_side, out), self.raw(name))

    def frames(self, indices: Iterable[int] | None = None, min_side: int = 0) -> np.ndarray:
        """``[N, H, W, 3]`` uint8 RGB of the frames asked for (all without ``indices``); only these are read and decoded."""
        chosen = [self._index(i) for i in (range(self.length) if indices is None else indices)]
        self.prefetch(["meta.json", *map(frame_name, chosen)])
        if min_side or not chosen:
            return np.stack([self.frame(i, min_side) for i in chosen]) if chosen else np.zeros((0, 0, 0, 3), np.uint8)
        width, height = self.size
        pictures = np.empty((len(chosen), height, width, 3), np.uint8)  # decoded in place: a copy costs a third more
        for place, index in zip(pictures, chosen):
            self.frame(index, out=place)
        return pictures

    def matte(self, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """``[H, W]`` uint8 alpha of the person in one frame, decoded into ``out`` if it is given."""
        name = matte_name(self._index(index))
        return self._try(name, lambda data: members.decode_png(data, self.size, out), self.raw(name))

    def sibling(self, rng: np.random.Generator) -> Sample:
        """A random sample of the same person from the same shard, possibly this one; cheap, as the shard is open."""
        options = self._siblings() if self._siblings is not None else ()
        return options[int(rng.integers(len(options)))]() if options else self

    def _index(self, index: int) -> int:
        if not 0 <= index < self.length:
            raise IndexError(f"sample '{self.key}' has frames 0 to {self.length - 1}, got {index}")
        return int(index)

    def _once(self, name: str, decode: Callable[[bytes], object]) -> Any:
        if name not in self._decoded:
            self._decoded[name] = self._try(name, decode, self.raw(name))
        return self._decoded[name]

    def _try(self, name: str, decode: Callable[[bytes], object], data: bytes) -> Any:
        try:
            return decode(data)
        except BrokenSample as error:
            raise self.broken(error.member, error.reason) from None
        except members.BadMember as error:
            raise self.broken(name, str(error)) from None

    def _decode_track(self, data: bytes) -> dict[str, np.ndarray]:
        track = known_fields(members.decode_npz(data))
        check_track(self.key, track, self.length)
        return track

    def _decode_group(self, data: bytes) -> dict[str, np.ndarray]:
        values = groups.decode_group(data)
        track = {field: value for field, value in values.items() if field not in ("frames", "size", "step")}
        try:
            check_track(self.key, track, len(values["frames"]))
        except BrokenSample as error:
            raise members.BadMember(error.reason) from None
        width, height = values["size"].tolist()
        self._group_size = (width, height)
        return values

    def _decode_features(self, name: str, data: bytes) -> np.ndarray:
        value = members.decode_npy(data)
        check_features(self.key, name, value, self.length)
        return value


def _decode_meta(data: bytes) -> dict[str, object]:
    if len(data) > MAX_META:
        raise members.BadMember(f"has {len(data)} bytes, at most {MAX_META} are expected")
    try:
        meta = json.loads(data)
    except ValueError as error:
        raise members.BadMember(f"not readable as JSON ({error})") from None
    if not isinstance(meta, dict):
        raise members.BadMember(f"holds a {type(meta).__name__}, expected an object")
    return meta
