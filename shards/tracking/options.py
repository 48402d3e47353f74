"""Options of tracking, and its refusals of parts of a video."""

from __future__ import annotations

import math
from dataclasses import dataclass

from configs import InputError
from heads.person.image_registration import Reference
from shards.features.base import Feature
from shards.media.rates import MOST_OFFSET
from shards.tracking.refinement import FaceTexture

# Frames from one computed matte to the next. The intersection over union of an interpolated matte and the frame's own is 0.987
# to 0.999 (means of seven people, 3 s each).
MATTE_EVERY = 4


@dataclass(frozen=True)
class Behind:
    """What torso and background are registered to, pictures of 128 px; ``None``: the shot's first frames."""

    body: Reference | None = None
    background: Reference | None = None


FIRST_FRAMES = Behind()


@dataclass(frozen=True, kw_only=True)
class TrackOptions:
    """How a video is tracked."""

    size: int = 512  # px, side of the output frames; never larger than the source's crop
    start: float = 0.0  # s, where to begin
    seconds: float | None = None  # most seconds of the video; None: all
    min_seconds: float = 1.0  # shorter runs are refused
    min_eye_distance: float = 24.0  # px between the eyes in the source below which a face is too small
    max_side: int = 1920  # px, longer side to which larger pictures are scaled for the first pass
    smooth: bool = True  # temporal smoothing (shards.tracking.smoothing)
    refine: bool = True  # tracks are refined on the pixels (shards.tracking.refinement.photometric)
    require_audio: bool = False  # refuse videos without sound or with silence
    matte: bool = True  # False: alpha is 255 everywhere
    matte_every: int = MATTE_EVERY  # frames from one computed matte to the next; those between are interpolated
    decoder_threads: int = 1  # 0: one per core
    ahead: bool = False  # decode, crop and compute mattes in threads: for one video at a time
    crop_box: tuple[int, int, int, int] | None = None  # x0, y0, x1, y1 in the source; None: around head and shoulders
    rig: str = "mediapipe"  # name or path of the rig whose coefficients are given
    identity: tuple[float, ...] | None = None  # known identity coefficients; None: estimated per shot
    behind: Behind = FIRST_FRAMES  # what torso and background are registered to
    texture: FaceTexture | None = None  # what faces are aligned to; None: the shot's first frames
    sound: str = ""  # file whose sound replaces the video's own; it starts at the first picture
    # Of the clip's sound: by Whisper tiny.en, offsets of the sound are told more finely.
    feature: Feature | None = None
    av_offset: float | None = None  # s by which the sound is late and is moved back; None: estimated; 0: left as it is

    def check(self) -> None:
        if self.size < 64 or self.size % 2:
            raise InputError(f"size is {self.size}, expected an even number of at least 64 px")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise InputError(f"seconds is {self.seconds}, expected more than 0")
        if self.matte_every < 1:
            raise InputError(f"matte_every is {self.matte_every}, expected at least 1 frame")
        if not 0 <= self.start < math.inf:
            raise InputError(f"start is {self.start:g}, expected a number of seconds from 0 on")
        if not self.min_seconds > 0:
            raise InputError(f"min_seconds is {self.min_seconds:g}, expected more than 0")
        if self.av_offset is not None and not abs(self.av_offset) <= MOST_OFFSET:
            raise InputError(f"av_offset is {self.av_offset:g} s, expected at most {MOST_OFFSET:g} s either way")


@dataclass(frozen=True)
class Refusal:
    """Frames ``start`` to ``end`` (exclusive, on the 25 fps grid) that are not used, and why."""

    clip: str
    start: int
    end: int
    reason: str
