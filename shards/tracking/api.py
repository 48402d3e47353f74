"""Entry points of tracking: a whole video, the one person of a video, landmarks of finished frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from configs import InputError, progress
from heads.rig.facemesh import N_LANDMARKS
from heads.rig.registry import DEFAULT
from shards.media.probe import video_info
from shards.media.rates import FPS, SAMPLE_RATE
from shards.media.sound import stream_audio
from shards.tracking.av_offset import IN_STEP, AvOffset, estimate_offset
from shards.tracking.first_pass import FirstPass, run_first_pass
from shards.tracking.models import FaceLandmarks
from shards.tracking.options import FIRST_FRAMES, MATTE_EVERY, Behind, Refusal, TrackOptions
from shards.tracking.refinement import FaceTexture
from shards.tracking.segments import Segment, Shot, Source

USED = 0.95  # share of a video below which a message says what is used
OTHER_LENGTH = 1.0  # s by which a separate sound file may be longer or shorter than the pictures (guess)
SILENCE = 1e-4  # RMS, of full scale, below which sound is silence


class VideoTrack:
    """A video after its first pass: iterate for its shots; ``refusals`` and ``av_offset`` are known already.

    Shots must be iterated in order, each at most once; close it (or use ``with``) to free the temporary file.
    """

    def __init__(self, path: Path, found: FirstPass, options: TrackOptions, source: Source) -> None:
        self.path, self.options, self._first_pass, self._source = path, options, found, source
        self.frames = found.frames
        self.has_audio, self.av_offset = source.has_audio, source.av_offset
        self.refusals: list[Refusal] = list(found.refusals)

    @property
    def shots(self) -> list[Shot]:
        return [
            Shot(k, run, self._first_pass, self.options, self._source) for k, run in enumerate(self._first_pass.runs)
        ]

    @property
    def tracked_frames(self) -> int:
        return sum(run.end - run.start for run in self._first_pass.runs)

    def __iter__(self) -> Iterator[Shot]:
        yield from self.shots
        self.close()

    def __enter__(self) -> VideoTrack:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._first_pass.close()


def track_video(
    path: str | Path, options: TrackOptions | None = None, stop: Callable[[], bool] | None = None
) -> VideoTrack:
    """Tracks a video: one pass now finds faces, cuts and refusals; shots are decoded again as they are iterated.

    Args:
        path: any video that FFmpeg's libraries read.
        options: see :class:`TrackOptions`.
        stop: called after each frame of the first pass; once it returns True, the rest of the video is left out.

    Returns:
        An iterable of :class:`Shot`, each an iterable of :class:`Segment`; ``.refusals`` lists what was left out.

    Raises:
        InputError: not a readable video, fewer than two frames, or a separate sound of another length.
    """
    options = options or TrackOptions()
    options.check()
    path = Path(path)
    info = video_info(path)
    _check_length(path, options, info.seconds)
    found = run_first_pass(path, options, stop)
    if found.frames < 2:
        found.close()
        held = "one frame" if found.frames else "no frame"
        where = f" from {options.start:g} s on" if options.start else ""
        raise InputError(f"{path}: holds {held}{where}, expected at least {options.min_seconds:g} s of video")
    has_audio = info.has_audio or bool(options.sound)
    reason = _sound_trouble(path, has_audio, options, found.frames)
    if reason:
        found.runs.clear()
        found.refusals = [Refusal(path.stem, 0, found.frames, reason)]
    offset = _av_offset(path, found, options, has_audio)
    return VideoTrack(path, found, options, Source(path, found, options, info.width, has_audio, offset))


def track_frames(
    path: str | Path,
    *,
    seconds: float | None = None,
    start: float = 0.0,
    size: int | None = None,
    crop_box: tuple[int, int, int, int] | None = None,
    identity: np.ndarray | None = None,
    rig: str = DEFAULT,
    matte_every: int = MATTE_EVERY,
    av_offset: float | None = None,
    behind: Behind = FIRST_FRAMES,
    refine: bool = True,
    texture: FaceTexture | None = None,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Segment]:
    """Yields segments of the one person that a video shows, from its longest shot.

    Args:
        seconds: most seconds of the video; ``None`` for all.
        start: where to begin, s.
        size: side of the frames in px, at most the crop's own; ``None``: 512.
        crop_box: x0, y0, x1, y1 px of the source, as an earlier segment of the same video reports.
        identity: ``[K_id]`` coefficients of an earlier segment, which make expressions comparable with it.
        rig: name or path of the rig whose coefficients are given.
        matte_every: frames from one computed matte to the next, see :class:`TrackOptions`; 0: no mattes.
        av_offset: s by which the sound is late and is moved back; ``None``: estimated; 0: left as it is.
        behind: what torso and background are registered to; by default the shot's first frames.
        refine: whether tracks are refined on the pixels (:mod:`shards.tracking.refinement.photometric`).
        texture: what faces are aligned to; ``None``: the shot's first frames.
        stop: called after each frame of the first pass; once it returns True, the rest of the video is left out.

    Raises:
        InputError: no face, two faces, too small, too short; the sentence says which and where.
    """
    options = TrackOptions(
        size=size or 512,
        start=start,
        seconds=seconds,
        crop_box=None if crop_box is None else (int(crop_box[0]), int(crop_box[1]), int(crop_box[2]), int(crop_box[3])),
        identity=None if identity is None else tuple(float(v) for v in np.asarray(identity).ravel()),
        min_seconds=min(1.0, seconds or 1.0) * 0.9,
        rig=rig,
        matte=matte_every > 0,
        matte_every=max(1, matte_every),
        ahead=(os.cpu_count() or 1) > 1,
        av_offset=av_offset,
        behind=behind,
        refine=refine,
        texture=texture,
    )
    if options.crop_box is not None:
        _check_inside(path, options.crop_box)
    video = track_video(path, options, stop)
    with video:
        shots = video.shots
        if not shots:
            raise InputError(f"{path}: {_worst(video.refusals, start)}; give a video of one person's face")
        chosen = max(shots, key=len)
        _say_what_is_used(path, video, chosen, start)
        if av_offset is None and video.av_offset.seconds:
            progress.say(f"{path}: {video.av_offset}")
        yield from chosen


def _check_inside(path: str | Path, box: tuple[int, int, int, int]) -> None:
    """Refuse a video that a given crop does not fit into; its pictures would have other sizes than asked for."""
    info = video_info(path)
    if min(box) < -1 or box[2] > info.width + 1 or box[3] > info.height + 1:  # boxes are rounded
        raise InputError(
            f"{path}: is {info.width}x{info.height} px, and the earlier clip's pictures were cut from {box[0]} to {box[2]} px "
            f"across and {box[1]} to {box[3]} px down; give a video of the same size and framing"
        )


def _say_what_is_used(path: str | Path, video: VideoTrack, chosen: Shot, start: float) -> None:
    """One sentence if the longest shot is not nearly all of the video."""
    if len(chosen) < USED * video.frames:
        used = f"{start + chosen.start / FPS:.1f} to {start + chosen.end / FPS:.1f} s"
        why = f"; {_worst(video.refusals, start)}" if video.refusals else ""
        shots = f" in {len(video.shots)} shots" if len(video.shots) > 1 else ""
        progress.say(
            f"{path}: of {video.frames / FPS:.1f} s{shots}, {used} are used, the longest shot of one face{why}"
        )


def detect_landmarks(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks of consecutive finished pictures, unsmoothed; no state is kept between calls.

    Args:
        frames: ``[T, H, W, 3]`` uint8 RGB.

    Returns:
        Landmarks ``[T, 478, 3]`` float32 px (zeros where no face was found), and found ``[T]`` bool.
    """
    mesh = FaceLandmarks()
    try:
        points = [mesh(frame) for frame in frames]
    finally:
        mesh.close()
    found = np.array([p is not None for p in points], bool)
    empty = np.zeros((N_LANDMARKS, 3), np.float32)
    return np.stack([empty if p is None else p for p in points]) if points else empty[None][:0], found


def _worst(refusals: list[Refusal], start: float) -> str:
    """The reason that cost most frames, and where in the video, whose first ``start`` s were skipped."""
    lost: dict[str, int] = {}
    for refusal in refusals:
        lost[refusal.reason] = lost.get(refusal.reason, 0) + refusal.end - refusal.start
    if not lost:
        return "no face found"
    reason = max(lost, key=lambda key: lost[key])
    first = next(r for r in refusals if r.reason == reason)
    return f"{reason} (from {start + first.start / FPS:.1f} to {start + first.end / FPS:.1f} s)"


def _check_length(path: Path, options: TrackOptions, seconds: float) -> None:
    """Refuse a separate sound file whose length differs from that of the pictures."""
    if not options.sound:
        return
    length = sum(map(len, stream_audio(options.sound))) / SAMPLE_RATE
    if abs(length - seconds) > OTHER_LENGTH:
        raise InputError(
            f"{path}: its sound lasts {length:.1f} s and its pictures {seconds:.1f} s; give the sound of the whole video"
        )


def _av_offset(path: Path, found: FirstPass, options: TrackOptions, has_audio: bool) -> AvOffset:
    """The given offset, or the one estimated from sound and lips."""
    if options.av_offset is not None:
        return AvOffset(options.av_offset)
    sound = Path(options.sound or path)
    if not (has_audio and found.runs):
        return IN_STEP
    return estimate_offset(sound, found, options.start, options.feature)


def _sound_trouble(path: Path, has_audio: bool, options: TrackOptions, frames: int) -> str:
    """Why the sound rules the video out, if sound is required; reads no more of it than the options ask for."""
    if not options.require_audio:
        return ""
    if not has_audio:
        return "no audio"
    end = round((options.start + frames / FPS) * SAMPLE_RATE)
    power, count = 0.0, 0
    for block in stream_audio(options.sound or path):
        power, count = power + float((block.astype(np.float64) ** 2).sum()), count + len(block)
        if count >= end:
            break
    return "silent audio" if count == 0 or np.sqrt(power / count) < SILENCE else ""
