"""The body behind the head: the training clip's own frames, kept as one video in the avatar's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adapt.avatar.avatar import Avatar
from adapt.avatar.provenance import Provenance
from adapt.avatar.writer import BODY
from adapt.clip import Clip
from configs import InputError
from heads.masks import region_masks
from shards.media.decode import read_video
from shards.media.encode import VideoWriter
from shards.media.rates import FPS

# Frames of the clip that an avatar keeps at most: one minute, so that it stays a few MB.
BODY_FRAMES = 1500
# H.264's constant rate factor and x264's preset: 41.8 dB at 512 px and 38.3 at 256, 0.07 and 0.03 MB a second. With 20 and
# `veryfast` it is 0.4 to 0.8 dB less, files are 0.6 to 0.7 as large, and the processor time is 1.6 times as much.
QUALITY, PRESET = 22, "superfast"


def write_body(path: Path, clip: Clip, frames: int, provenance: Provenance) -> None:
    """Write the clip's first ``frames`` frames as H.264; ``talk`` shows them behind the head."""
    with VideoWriter(path, clip.size, clip.size, tags=provenance.tags(), crf=QUALITY, preset=PRESET) as writer:
        for frame in range(frames):
            writer.write(clip.frames([frame])[0])


class BodyFrames:
    """The training clip's frames and head regions by number, for ``background='original'``.

    Frames are decoded from the avatar's ``body.mp4`` on demand, a window around the requested one at a time. The last
    window is kept, so playing back and forth costs little and memory stays constant.

    Args:
        keep: length of that window, frames.

    Raises:
        InputError: the avatar has no such video, or (on a call) the video ends before the frame.
    """

    def __init__(self, avatar: Avatar, keep: int = 64) -> None:
        self.avatar, self.keep = avatar, keep
        path = avatar.path / BODY if avatar.path is not None else None
        if path is None or not path.is_file():
            raise InputError(
                f"avatar '{avatar.name}' contains no {BODY}, which is written at the end of an adaptation; finish it with "
                "adapt --resume, or use --background model"
            )
        self.path = path
        self.held: dict[int, np.ndarray] = {}

    def __call__(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Frames ``[n, H, W, 3]`` uint8 and dilated head regions ``[n, H, W]`` in [0, 1]."""
        frames = np.stack([self._frame(int(index)) for index in indices])
        return frames, self._heads(indices)

    def _heads(self, indices: np.ndarray) -> np.ndarray:
        size = self.avatar.size
        unique, back = np.unique(indices, return_inverse=True)
        return region_masks(self.avatar.track["landmarks"][unique], size, size, ("head",))["head"][back]

    def _frame(self, index: int) -> np.ndarray:
        if index not in self.held:
            self._decode_around(index)
        return self.held[index]

    def _decode_around(self, index: int) -> None:
        first = max(0, index - self.keep // 2)
        pictures = read_video(self.path, start=first / FPS, seconds=self.keep / FPS)
        self.held = dict(enumerate(pictures, first))
        if index not in self.held:
            raise InputError(f"avatar '{self.avatar.name}': {BODY} ends before frame {index}; adapt again")
