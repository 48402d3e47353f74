"""Second pass over a video: shots of one person, cut into segments with frames, mattes, tracks and sound."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from heads.rig.facemesh import CHIN, FOREHEAD, OVAL, STABLE
from shards.media.decode import read_video
from shards.media.rates import FPS, SAMPLES_PER_FRAME
from shards.tracking.ahead import ahead
from shards.tracking.av_offset import IN_STEP, AvOffset, SoundReader
from shards.tracking.background import BackgroundTracker
from shards.tracking.body import BodyTracker, brightness_of
from shards.tracking.coefficients import Fitter, fitter_of
from shards.tracking.first_pass import PICTURES_AHEAD, FirstPass, Run
from shards.tracking.models import PersonMatte
from shards.tracking.models.matte import own_matte
from shards.tracking.options import TrackOptions
from shards.tracking.pose import head_pose, intrinsics_for, reprojected
from shards.tracking.refinement import FaceTexture, PhotometricRefiner
from shards.tracking.smoothing import MARGIN, noise_level, pose_noise, smooth, smooth_pose

SEGMENT = 50  # most frames of a segment
SAMPLED_FRAMES, SAMPLED_RUN = 600, 50  # frames for the estimates of identity and noise, in runs of SAMPLED_RUN
CHUNK = 400  # frames whose tracks are computed at once
WHOLE = 0.88  # share of the picture's shorter side above which the crop takes all of it
HEAD_ROOM = 2.2  # side of the crop relative to the distance from forehead to chin


@dataclass(frozen=True)
class Segment:
    """Up to 50 frames of a shot with their mattes, track and sound."""

    frames: np.ndarray  # [T, H, W, 3] uint8 RGB
    matte: np.ndarray  # [T, H, W] uint8 person alpha
    track: dict[str, np.ndarray]  # float32 fields of shards.format.fields.TRACK_SHAPES
    audio: np.ndarray  # [T * 640] float32 in [-1, 1], 16 kHz
    first_frame: int  # in the video, at 25 fps
    crop_box: tuple[int, int, int, int]  # x0, y0, x1, y1 px of the source, upright
    has_audio: bool = True
    fps: int = FPS
    av_offset: AvOffset = IN_STEP  # by which the sound was late in the video; it is in step here
    texture: FaceTexture | None = None  # that its track was refined to

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class Crop:
    """A square of the first pass's picture (``x``, ``y``, ``side`` in its px), and the size in px to which it is scaled."""

    x: float
    y: float
    side: float
    size: int

    def landmarks(self, points: np.ndarray) -> np.ndarray:
        """Landmarks ``[..., 3]`` of the first pass's picture in px of the crop."""
        scale = self.size / self.side
        return np.multiply(points - np.array([self.x, self.y, 0], np.float32), np.float32(scale))


class Shot:
    """One continuous shot of one person; iterate it for its segments, once, in the order of the shots."""

    def __init__(
        self,
        number: int,
        run: Run,
        found: FirstPass,
        options: TrackOptions,
        source: Source,
        fitter: Fitter | None = None,
    ) -> None:
        self.number, self.start, self.end = number, run.start, run.end
        self._first_pass, self._options, self._source = found, options, source
        self._fitter = fitter or fitter_of(options.rig)
        self._accelerations = np.zeros((2, 2))  # sums of squares and counts, before and after smoothing

    def __len__(self) -> int:
        return self.end - self.start

    @cached_property
    def crop(self) -> Crop:
        if self._options.crop_box is not None:
            return _given_crop(self._options, self._source)
        return _crop_around(self._sample, self._first_pass, self._options, self._source)

    @property
    def crop_box(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 px of the source, upright."""
        scale = self._source.scale
        x, y, side = self.crop.x * scale, self.crop.y * scale, self.crop.side * scale
        return round(x), round(y), round(x) + round(side), round(y) + round(side)

    @property
    def size(self) -> int:
        """Side of the frames in px."""
        return self.crop.size

    @cached_property
    def intrinsics(self) -> np.ndarray:
        return intrinsics_for(self.size)

    @cached_property
    def identity_coefficients(self) -> np.ndarray:
        """``[K_id]`` float32."""
        if self._options.identity is not None:
            return np.asarray(self._options.identity, np.float32)
        sample = np.concatenate(self._sample)
        return self._fitter.identity_of(self.crop.landmarks(sample), self.intrinsics)

    @cached_property
    def _sample(self) -> list[np.ndarray]:
        """Stretches of landmarks over the shot: enough to estimate identity and noise, bounded for long shots."""
        length = len(self)
        if length <= SAMPLED_FRAMES:
            return [self._first_pass.landmarks(self.start, self.end)[0]]
        starts = np.linspace(self.start, self.end - SAMPLED_RUN, SAMPLED_FRAMES // SAMPLED_RUN).astype(int)
        return [self._first_pass.landmarks(s, s + SAMPLED_RUN)[0] for s in starts]

    @cached_property
    def _noise(self) -> tuple[np.ndarray, np.ndarray]:
        """Noise of the pose ``[12]`` and of each landmark in head space ``[478]``: the median over the stretches."""
        poses, points = [], []
        for stretch in self._sample:
            rotation, translation, local = self._posed(self.crop.landmarks(stretch))
            poses.append(pose_noise(rotation, translation))
            points.append(noise_level(local))
        return np.median(poses, axis=0), np.median(points, axis=0)

    @property
    def jitter(self) -> dict[str, float]:
        """RMS acceleration of the stable landmarks before and after smoothing, px per frame squared; valid after iteration."""
        squares, counts = self._accelerations.T
        before, after = np.sqrt(squares / np.maximum(counts, 1))
        return {"before": float(before), "after": float(after)}

    def _posed(self, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shape = self._fitter.neutral(self.identity_coefficients)
        return head_pose(landmarks, self.intrinsics, shape, np.array(STABLE))

    def tracks(self) -> Iterator[dict[str, np.ndarray]]:
        """Tracks of the whole shot in chunks; a chunk's values do not depend on where chunks are cut."""
        for start in range(self.start, self.end, CHUNK):
            end = min(start + CHUNK, self.end)
            low, high = max(self.start, start - MARGIN), min(self.end, end + MARGIN)
            raw, seen = self._first_pass.landmarks(low, high)
            raw = self.crop.landmarks(raw)
            chunk = self._track(raw, seen)
            inside = slice(start - low, end - low)
            self._accelerations += [_acceleration(raw[inside]), _acceleration(chunk["landmarks"][inside])]
            fixed = ("intrinsics", "identity")
            yield {k: v if k in fixed else np.ascontiguousarray(v[inside]) for k, v in chunk.items()}

    def _track(self, raw: np.ndarray, seen: np.ndarray) -> dict[str, np.ndarray]:
        rotation, translation, local = self._posed(raw)
        if self._options.smooth:
            pose_sigma, point_sigma = self._noise
            local = smooth(local, point_sigma)
            rotation, translation = smooth_pose(rotation, translation, pose_sigma)
        identity, fitter = self.identity_coefficients, self._fitter
        landmarks = reprojected(local, rotation, translation, self.intrinsics)
        expression, eyelids = fitter.expression_of(local, identity)
        gaze = fitter.gaze_of(landmarks, rotation, translation, self.intrinsics, identity, eyelids)
        if self._options.smooth:
            gaze = smooth(gaze, np.maximum(noise_level(gaze), 0.01)).astype(np.float32)
        model = fitter.vertices(identity, expression, eyelids, gaze)
        return {
            "landmarks": landmarks.astype(np.float32),
            "rotation": rotation.astype(np.float32),
            "translation": translation.astype(np.float32),
            "intrinsics": self.intrinsics,
            "identity": identity,
            "expression": expression,
            "eyelids": eyelids,
            "gaze": gaze,
            "quality": _quality(model, local, rotation, landmarks, seen, self.size),
        }

    def __iter__(self) -> Iterator[Segment]:
        segments = self._segments()
        yield from ahead(segments, 1) if self._options.ahead else segments

    def _segments(self) -> Iterator[Segment]:
        tracks, first = _Buffer(self.tracks()), self.start
        behind = None
        if self._options.matte:
            behind = BodyTracker(self._options.behind.body), BackgroundTracker(self._options.behind.background)
        refiner = self._refiner()
        with closing(self._pictures()) as pictures, ThreadPoolExecutor(1, "matte") as beside:
            for length in _even_lengths(len(self), SEGMENT):
                frames = np.stack([next(pictures) for _ in range(length)])
                made = beside.submit(self._source.matte, frames) if self._options.ahead else None
                audio = self._source.audio(first, length)
                track = tracks.take(length)
                measured = track["landmarks"]
                if refiner is not None:
                    track |= refiner(frames, track)
                matte = own_matte(self._source.matte(frames) if made is None else made.result(), measured)
                if behind is not None:
                    brightness = brightness_of(frames)
                    track |= behind[0](brightness, matte, track["landmarks"]) | behind[1](brightness, matte)
                where, offset = self.crop_box, self._source.av_offset
                texture = None if refiner is None else refiner.texture
                yield Segment(
                    frames, matte, track, audio, first, where, self._source.has_audio, av_offset=offset, texture=texture
                )
                first += length

    def _refiner(self) -> PhotometricRefiner | None:
        if not self._options.refine:
            return None
        identity, texture = self.identity_coefficients, self._options.texture
        return PhotometricRefiner(self._fitter, identity, self.intrinsics, self.size, texture)

    def _pictures(self) -> Generator[np.ndarray, None, None]:
        """The shot's crops ``[size, size, 3]``."""
        crop = self.crop
        pictures = (self._source.frame(k, crop) for k in range(self.start, self.end))
        return ahead(pictures, PICTURES_AHEAD) if self._options.ahead else pictures


class Source:
    """The second decoding of a video: frames in increasing order, their mattes, and the sound with them."""

    def __init__(
        self,
        path: Path,
        found: FirstPass,
        options: TrackOptions,
        width: int,
        has_audio: bool,
        av_offset: AvOffset = IN_STEP,
    ) -> None:
        self._path, self._options, self._found, self.av_offset = path, options, found, av_offset
        self.scale = width / found.width  # source px per px of the first pass's picture
        self.width, self.height = width, round(found.height * self.scale)
        self.has_audio = has_audio
        self._frames: Iterator[np.ndarray] | None = None
        self._next, self._decoded_scale = 0, 1.0
        sound = Path(options.sound or path)
        self._sound = SoundReader(sound, options.start + av_offset.seconds) if has_audio else None
        self._matte: PersonMatte | None = None

    def frame(self, index: int, crop: Crop) -> np.ndarray:
        """The crop ``[size, size, 3]`` of frame ``index``; indices must increase."""
        from PIL import Image

        if self._frames is None:
            self._frames = self._decode(crop)
        picture = next(self._frames)
        self._next += 1
        while self._next <= index:
            picture = next(self._frames)
            self._next += 1
        s = self._decoded_scale
        x0, y0, side = crop.x * s, crop.y * s, crop.side * s
        if abs(side - crop.size) < 0.5 and x0.is_integer() and y0.is_integer():
            return picture[int(y0) : int(y0) + crop.size, int(x0) : int(x0) + crop.size]
        box = (x0, y0, min(x0 + side, picture.shape[1]), min(y0 + side, picture.shape[0]))
        resized = Image.fromarray(picture).resize((crop.size, crop.size), Image.Resampling.BICUBIC, box, 2.0)
        return np.asarray(resized)

    def _decode(self, crop: Crop) -> Iterator[np.ndarray]:
        """The pictures that the first pass kept, or else decoded no larger than the crop needs, which is cheap for 4K and 8K."""
        needed = min(self.scale, max(crop.size / crop.side, 1e-3))
        longest = max(self.width, self.height)
        max_side = longest if needed >= self.scale * 0.999 else max(1, round(longest / self.scale * needed))
        self._decoded_scale = max_side / (longest / self.scale)
        options, kept = self._options, self._found.pictures
        if kept is not None and self._decoded_scale == 1:
            return iter(kept.rows)
        return read_video(
            self._path,
            start=options.start,
            seconds=options.seconds,
            max_side=max_side,
            threads=options.decoder_threads,
        )

    def matte(self, frames: np.ndarray) -> np.ndarray:
        """``[T, H, W]`` uint8 person alpha of frames ``[T, H, W, 3]``; 255 everywhere if mattes are switched off."""
        if not self._options.matte:
            return np.full(frames.shape[:3], 255, np.uint8)
        if self._matte is None:
            self._matte = PersonMatte()
        out = np.empty(frames.shape[:3], np.uint8)
        made = sorted({*range(0, len(frames), self._options.matte_every), len(frames) - 1})
        for frame in made:
            out[frame] = self._matte(frames[frame])
        for first, last in pairwise(made):
            for frame in range(first + 1, last):
                out[frame] = _between(out[first], out[last], frame - first, last - first)
        return out

    def audio(self, first: int, length: int) -> np.ndarray:
        """Samples ``[length * 640]`` of the frames from ``first`` on; zeros where there is no sound."""
        if self._sound is None:
            return np.zeros(length * SAMPLES_PER_FRAME, np.float32)
        return self._sound.take(first * SAMPLES_PER_FRAME, length * SAMPLES_PER_FRAME)


def _between(a: np.ndarray, b: np.ndarray, step: int, steps: int) -> np.ndarray:
    """The uint8 picture at ``step / steps`` of the way from ``a`` to ``b``, interpolated linearly."""
    import cv2  # MediaPipe's own dependency

    return np.asarray(cv2.addWeighted(a, 1 - step / steps, b, step / steps, 0))


class _Buffer:
    """Regroups chunks of tracks into pieces of other lengths."""

    def __init__(self, chunks: Iterator[dict[str, np.ndarray]]) -> None:
        self._chunks = chunks
        self._held: dict[str, np.ndarray] | None = None

    def take(self, length: int) -> dict[str, np.ndarray]:
        while self._held is None or len(self._held["rotation"]) < length:
            chunk = next(self._chunks)
            self._held = chunk if self._held is None else _joined(self._held, chunk)
        head = {k: v if k in ("intrinsics", "identity") else v[:length] for k, v in self._held.items()}
        self._held = {k: v if k in ("intrinsics", "identity") else v[length:] for k, v in self._held.items()}
        return head


def _joined(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: v if k in ("intrinsics", "identity") else np.concatenate([v, b[k]]) for k, v in a.items()}


def _even_lengths(total: int, longest: int) -> list[int]:
    """Lengths as even as possible, none above ``longest``, so that no stub of a few frames remains."""
    parts = -(-total // longest)
    return [total * (k + 1) // parts - total * k // parts for k in range(parts)]


def _acceleration(landmarks: np.ndarray) -> tuple[float, int]:
    """Sum of squared accelerations (px per frame squared) of the stable landmarks, and their number."""
    points = landmarks[:, list(STABLE), :2].astype(np.float64)
    second = points[2:] - 2 * points[1:-1] + points[:-2]
    return float((second**2).sum()), second[..., 0].size


def _quality(
    model: np.ndarray, local: np.ndarray, rotation: np.ndarray, landmarks: np.ndarray, seen: np.ndarray, size: int
) -> np.ndarray:
    """``[T]`` 0..1: how well the rig explains the landmarks, less for profile views and faces that leave the crop."""
    surface = slice(0, len(model[0]) - 10)
    error = np.sqrt(((model[:, surface, :2] - local[:, surface, :2]) ** 2).sum(-1).mean(-1))
    fit = np.exp(-((error / 0.05) ** 2))
    facing = np.clip((rotation[:, 2, 2] - 0.2) / 0.5, 0, 1)
    xy = landmarks[:, list(OVAL), :2]
    inside = ((xy > 0) & (xy < size)).all(-1).mean(-1)
    return (fit * facing * inside * seen).astype(np.float32)


def _given_crop(options: TrackOptions, source: Source) -> Crop:
    assert options.crop_box is not None
    x0, y0, x1, y1 = options.crop_box
    side = min(x1 - x0, y1 - y0)
    return Crop(x0 / source.scale, y0 / source.scale, side / source.scale, _even(min(options.size, side)))


def _crop_around(sample: list[np.ndarray], found: FirstPass, options: TrackOptions, source: Source) -> Crop:
    """A square around head and shoulders that contains the face throughout the shot."""
    points = np.concatenate(sample)
    tall = float(np.median(np.linalg.norm(points[:, CHIN, :2] - points[:, FOREHEAD, :2], axis=-1)))
    low = np.quantile(points[:, list(OVAL), :2].min(1), 0.01, axis=0)
    high = np.quantile(points[:, list(OVAL), :2].max(1), 0.99, axis=0)
    side = max(HEAD_ROOM * tall, float((high - low).max()) + 0.6 * tall)
    shorter = min(found.width, found.height)
    side = shorter if side > WHOLE * shorter else side
    middle = (low + high) / 2 - np.array([0, 0.06 * tall])
    x = float(np.clip(middle[0] - side / 2, 0, found.width - side))
    y = float(np.clip(middle[1] - side / 2, 0, found.height - side))
    size = _even(min(options.size, round(side * source.scale)))
    if abs(side * source.scale - size) <= 1:  # whole pixels: no resampling
        x, y, side = round(x * source.scale) / source.scale, round(y * source.scale) / source.scale, size / source.scale
    return Crop(x, y, side, size)


def _even(size: float) -> int:
    return max(2, int(size) // 2 * 2)
