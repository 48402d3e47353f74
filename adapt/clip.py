"""One person's clip, tracked while it is read: frames on disk, tracks in memory, usable from the first segment on.

Units and axes are those of a dataset sample (docs/dataset-format.md): landmarks in px, rotation and translation
head -> camera in rig units, eyelids 0 open .. 1 closed, gaze in radians.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from configs import InputError
from configs.devices import to_device
from configs.progress import Task
from configs.scratch import Spool
from heads.masks import region_masks
from heads.person.inputs import TRACKED
from heads.person.layers import Window
from heads.raster.kernels.layering import to_floats
from heads.rig.registry import DEFAULT
from shards import tracking
from shards.features import Feature, open_feature
from shards.media.rates import FPS, SAMPLES_PER_FRAME
from shards.tracking.av_offset import IN_STEP, AvOffset
from shards.tracking.background import camera_moves
from shards.tracking.options import FIRST_FRAMES, MATTE_EVERY, Behind
from shards.tracking.refinement import FaceTexture

TRACK_FIELDS = ("landmarks", "rotation", "translation", "expression", "eyelids", "gaze", "quality")
BEHIND_FIELDS = ("body", "body_quality", "background", "background_quality")  # of clips that were tracked with mattes
LEAST_BODY = 0.4  # median quality from which the torso's track is used · guess
# Everything of a track that an audio-expression prior may have learned to predict.
DRIVEN_BY_SOUND = ("expression", "eyelids", "gaze", "rotation", "translation")
MASKS = ("face", "eyes", "mouth_inside", "lips", "head", "sure_head")
LEAST_FRAMES = 25  # shorter videos, of less than one second, are refused


class Stretch(Protocol):
    """Consecutive tracked frames, such as :class:`shards.tracking.Segment`.

    ``frames [T, H, W, 3]`` and ``matte [T, H, W]`` are uint8, ``audio`` is float32 at 16 kHz, ``track`` also holds the
    clip's ``intrinsics [3, 3]`` and ``identity [K_id]``, ``crop_box`` is left, top, right, bottom in the video, px.
    """

    @property
    def frames(self) -> np.ndarray: ...
    @property
    def matte(self) -> np.ndarray: ...
    @property
    def track(self) -> dict[str, np.ndarray]: ...
    @property
    def audio(self) -> np.ndarray: ...
    @property
    def crop_box(self) -> Sequence[float]: ...
    @property
    def av_offset(self) -> AvOffset: ...
    @property
    def texture(self) -> FaceTexture | None: ...


@dataclass
class _Part:
    frames: np.ndarray
    matte: np.ndarray
    track: dict[str, np.ndarray]
    audio: np.ndarray
    crop_box: Sequence[float]
    av_offset: AvOffset = IN_STEP
    texture: FaceTexture | None = None


@dataclass
class Batch:
    """Some frames of a clip, on a device.

    Attributes:
        index: ``[B]`` frame numbers within the clip.
        image: ``[B, H, W, 3]`` RGB in [0, 1].
        matte: ``[B, H, W, 1]`` coverage of the person in [0, 1].
        masks: region of :data:`MASKS` -> ``[B, H, W, 1]`` in [0, 1].
        track: field of the clip's track -> ``[B, ...]``, see the module's docstring.
    """

    index: torch.Tensor
    image: torch.Tensor
    matte: torch.Tensor
    masks: dict[str, torch.Tensor]
    track: dict[str, torch.Tensor]

    @property
    def head(self) -> torch.Tensor:
        """``[B, H, W, 1]`` coverage of what is surely the head's: the matte in the region ``sure_head``."""
        return self.matte * self.masks["sure_head"]


class Clip:
    """Tracked frames of one take; grows while :meth:`read_in_background` runs.

    Args:
        size: side of the frames, px; the first segment's, once there is one.
        feature: audio feature that :meth:`features` extracts; log-mel by default.

    Attributes:
        track: field of :data:`TRACK_FIELDS`, and of :data:`BEHIND_FIELDS` if these were tracked -> ``[T, ...]`` float32.
        audio: ``[N]`` float32 at 16 kHz, in step with the frames.
        intrinsics: ``[3, 3]`` of the frames, px.
        identity: ``[K_id]`` coefficients of the rig.
        crop_box: left, top, right, bottom in the video, px.
        texture: what the faces were aligned to; ``None``: tracks were not refined on the pixels.
        expected: frames that were asked for; 0: as many as there are.
        done: whether reading has ended.

    Frames and mattes lie in temporary memory-mapped files, so a long clip does not fill the memory; use as a context
    manager, or call :meth:`close` to free the disk.
    """

    def __init__(self, size: int, feature: Feature | None = None) -> None:
        self.size = size
        self.listen_for(feature or open_feature("logmel"))
        self.intrinsics = np.zeros((3, 3), np.float32)
        self.identity: np.ndarray = np.zeros(0, np.float32)
        self.crop_box: tuple[float, ...] = ()
        self.texture: FaceTexture | None = None
        self.av_offset = 0.0  # s by which the sound was late in the video; it is in step here
        self.tracked_offset = 0.0  # the part of av_offset that tracking removed
        self.track: dict[str, np.ndarray] = {}
        self.audio: np.ndarray = np.zeros(0, np.float32)
        self.expected = 0
        self.done = False
        self.stopped = False
        self._frames, self._mattes = Spool(), Spool()
        self._lock = threading.Condition()
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return 0 if not self.track else len(self.track["rotation"])

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stop(self) -> None:
        """Read no further; the frames read so far stay."""
        self.stopped = True
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Stop reading and free the temporary files."""
        self.stop()
        self._frames.close()
        self._mattes.close()

    def append(self, segment: Stretch) -> None:
        """Add a tracked segment of the same take."""
        frames = np.asarray(segment.frames)
        self.size = frames.shape[1]
        self._frames.append(frames)
        self._mattes.append(np.asarray(segment.matte))
        with self._lock:
            if not self.track:
                self.intrinsics = np.asarray(segment.track["intrinsics"], np.float32)
                self.crop_box = tuple(float(v) for v in segment.crop_box)
                self.av_offset = self.tracked_offset = float(segment.av_offset.seconds)
                self.texture = segment.texture
            self.identity = np.asarray(segment.track["identity"], np.float32)
            for name in (*TRACK_FIELDS, *(name for name in BEHIND_FIELDS if name in segment.track)):
                rows = np.asarray(segment.track[name], np.float32)
                self.track[name] = np.concatenate([self.track[name], rows]) if name in self.track else rows
            self.audio = np.concatenate([self.audio, np.asarray(segment.audio, np.float32)])
            self._lock.notify_all()

    def read_in_background(self, segments: Iterator[Stretch]) -> None:
        """Let a thread append segments; errors surface in :meth:`wait`."""

        def work() -> None:
            try:
                for segment in segments:
                    self.append(segment)
                    if self.stopped:
                        break
            except BaseException as error:
                self._error = error
            finally:
                with self._lock:
                    self.done = True
                    self._lock.notify_all()

        self._thread = threading.Thread(target=work, daemon=True, name="clip-reader")
        self._thread.start()

    def wait(self, frames: int | None = None, task: Task | None = None) -> int:
        """Block until ``frames`` frames (``None``: all) have been read, or reading has ended; returns how many there are.

        Args:
            task: is told the number of frames as they arrive.

        Raises:
            InputError: what the tracker says about the clip.
        """
        with self._lock:
            while not (self.done or (frames is not None and len(self) >= frames)):
                self._lock.wait()
                if task is not None:
                    task.update(len(self))
        self.check()
        return len(self)

    def check(self) -> None:
        """Raise what stopped the reader, if anything did."""
        if self._error is not None:
            raise self._error

    def frames(self, indices: np.ndarray | list[int]) -> np.ndarray:
        """RGB uint8 ``[n, H, W, 3]``."""
        return np.asarray(self._frames.rows[np.asarray(indices, np.int64)])

    def mattes(self, indices: np.ndarray | list[int]) -> np.ndarray:
        """Person alpha, float32 in [0, 1], ``[n, H, W]``."""
        return np.asarray(self._mattes.rows[np.asarray(indices, np.int64)]).astype(np.float32) / 255.0

    def masks(self, indices: np.ndarray | list[int], names: Sequence[str] = MASKS) -> dict[str, np.ndarray]:
        """Region masks by name, float32 in [0, 1], each ``[n, H, W]``; not cached."""
        return region_masks(self.track["landmarks"][np.asarray(indices)], self.size, self.size, names, levels=255)

    def _numbers(self, rows: np.ndarray, indices: np.ndarray, window: Window, shrink: int) -> np.ndarray:
        """A window of some frames ``[T, H, W, 3]`` or mattes ``[T, H, W]`` as float32 in [0, 1], ``[n, h, w, C]``.

        Pixels are means over squares of ``shrink`` px.
        """
        (top, left, height, width), channels = window, 1 if rows.ndim == 3 else 3
        out = np.empty((len(indices), height // shrink, width // shrink, channels), np.float32)
        for k, i in enumerate(indices):
            to_floats(
                np.asarray(rows[i]).reshape(-1), self.size, channels, top, left, *out.shape[1:3], shrink,
                out[k].reshape(-1),
            )  # fmt: skip
        return out

    def batch(
        self,
        indices: np.ndarray | list[int],
        device: torch.device | str = "cpu",
        window: Window | None = None,
        shrink: int = 1,
    ) -> Batch:
        """Frames with everything about them as tensors.

        Args:
            window: only this part of the frames; landmarks shift with it, poses stay those of the whole frame.
            shrink: divisor of the frames' side, and of the window's sides: pixels are means over squares, landmarks shrink too.
        """
        indices, device = np.asarray(indices, np.int64), torch.device(device)
        part = window or (0, 0, self.size, self.size)
        top, left, height, width = (side // shrink for side in part)

        def put(array: np.ndarray) -> torch.Tensor:
            return to_device(torch.from_numpy(np.ascontiguousarray(array)), device)

        track = {name: rows[indices] for name, rows in self.track.items()}
        track["landmarks"] = track["landmarks"] / np.float32(shrink)
        masks = region_masks(track["landmarks"], height, width, MASKS, levels=255, corner=(top, left))
        track["landmarks"] = track["landmarks"] - np.array([left, top, 0], np.float32)
        return Batch(
            index=put(indices),
            image=put(self._numbers(self._frames.rows, indices, part, shrink)),
            matte=put(self._numbers(self._mattes.rows, indices, part, shrink)),
            masks={name: put(mask)[..., None] for name, mask in masks.items()},
            track={name: put(rows) for name, rows in track.items()},
        )

    def stretch(self, first: int, count: int) -> Clip:
        """Some consecutive frames as a clip of its own (a copy), with their sound and the whole clip's camera and shape.

        Raises:
            InputError: the clip does not have these frames.
        """
        if first < 0 or count < 1 or first + count > len(self):
            raise InputError(f"frames {first} to {first + count - 1} of a clip that has frames 0 to {len(self) - 1}")
        rows = np.arange(first, first + count)
        track = {name: values[rows] for name, values in self.track.items()}
        part = _Part(
            frames=self.frames(rows),
            matte=np.asarray(self._mattes.rows[rows]),
            track={**track, "intrinsics": self.intrinsics, "identity": self.identity},
            audio=self.audio[first * SAMPLES_PER_FRAME : (first + count) * SAMPLES_PER_FRAME],
            crop_box=self.crop_box,
            av_offset=AvOffset(self.av_offset),
            texture=self.texture,
        )
        clip = Clip(self.size, self.feature)
        clip.append(part)
        clip.expected, clip.done = count, True
        return clip

    def listen_for(self, feature: Feature) -> None:
        """Extract this audio feature from now on; rows of the one before are dropped."""
        self.feature, self._features = feature, np.zeros((0, 0), np.float32)

    def features(self) -> np.ndarray:
        """Audio feature rows ``[T, C]`` of the frames read so far; cached until more frames arrive."""
        if len(self._features) != len(self):
            # A speech model's last rows depend on the sound that follows them: all rows are computed again.
            self._features = self.feature.extract(self.audio)[: len(self)]
        return self._features

    def motion(self) -> dict[str, np.ndarray]:
        """What moved the head, and what is :attr:`behind` it, in the frames read so far, a copy."""
        with self._lock:
            return {name: self.track[name].copy() for name in (*TRACKED, *self.behind)}

    @property
    def behind(self) -> tuple[str, ...]:
        """``body`` if the torso was tracked well enough to be followed, ``background`` if the camera moves."""
        body = "body" in self.track and float(np.median(self.track["body_quality"])) >= LEAST_BODY
        used = {"body": body, "background": camera_moves(self.track)}
        return tuple(name for name, moves in used.items() if moves)

    @property
    def has_sound(self) -> bool:
        """Whether the audio has a peak above 1e-4 of full scale."""
        return bool(len(self.audio)) and float(np.abs(self.audio).max()) > 1e-4


def track_clip(
    video: str | Path,
    *,
    start: int = 0,
    frames: int | None = None,
    size: int | None = None,
    crop_box: tuple[int, int, int, int] | None = None,
    identity: np.ndarray | None = None,
    background: bool = False,
    feature: Feature | None = None,
    rig: str = DEFAULT,
    matte_every: int = MATTE_EVERY,
    av_offset: float | None = None,
    behind: Behind = FIRST_FRAMES,
    refine: bool = True,
    texture: FaceTexture | None = None,
) -> Clip:
    """Track a stretch of a video into a :class:`Clip`.

    Args:
        start, frames: which frames (25 fps); ``None``: to the end.
        size: side of the frames, px; ``None``: 512 or the source's if smaller.
        crop_box, identity: those of an earlier clip of the same person and place, so that both are comparable.
        background: return at once and track in a thread.
        feature: audio feature of the clip; log-mel by default.
        rig: name or source of the rig whose coefficients are given.
        matte_every: frames from one computed matte to the next; those between are interpolated.
        av_offset: s by which the sound is late and is moved back; ``None``: estimated; 0: left as it is.
        behind: what torsos and the background are registered to; by default the first frames.
        refine: whether tracks are refined on the pixels.
        texture: what faces are aligned to; ``None``: the first frames.

    Raises:
        InputError: no face, two faces, or unreadable; from :meth:`Clip.wait` if ``background`` is set.
    """
    clip = Clip(size or 512, feature)
    clip.expected = frames or 0
    segments = tracking.track_frames(
        video,
        seconds=None if frames is None else frames / FPS,
        start=start / FPS,
        size=size,
        crop_box=crop_box,
        identity=identity,
        rig=rig,
        matte_every=matte_every,
        av_offset=av_offset,
        behind=behind,
        refine=refine,
        texture=texture,
        stop=lambda: clip.stopped,
    )
    clip.read_in_background(iter(segments))
    if not background:
        try:
            clip.wait()
        except BaseException:
            clip.close()
            raise
    return clip
