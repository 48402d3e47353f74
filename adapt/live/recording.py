"""Records what a session shows into an MP4 whose container says that it is synthetic."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from adapt.live.engine import LiveFrame
from shards.media.encode import VideoWriter
from shards.media.rates import FPS

LONGEST = 5 * 60 * FPS  # frames


class Recording:
    """Writes frames and their sound as they come; a frame without a picture repeats the one before.

    Args:
        path: the ``.mp4``.
        size: side of the frames, px.
        tags: the statement in the container.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: Path, size: int, tags: Mapping[str, str]) -> None:
        self.path, self.frames = path, 0
        self._sound: deque[np.ndarray] = deque()
        self._picture: np.ndarray | None = None
        self._thread = ThreadPoolExecutor(1, "recording")
        self._writer = VideoWriter(path, size, size, tags=tags, sound=self._blocks())

    @property
    def full(self) -> bool:
        """Whether it is as long as a recording may be."""
        return self.frames >= LONGEST

    def write(self, frame: LiveFrame) -> None:
        """Append a frame; encoding happens on a thread of its own. Nothing is written before the first picture."""
        self._picture = frame.image if frame.image is not None else self._picture
        if self._picture is not None and not self.full:
            self.frames += 1
            self._thread.submit(self._write, self._picture, frame.sound)

    def _write(self, picture: np.ndarray, sound: np.ndarray) -> None:
        self._sound.append(sound)
        self._writer.write(picture)

    def close(self) -> bool:
        """Finish the file; ``False``, and no file, where nothing was written."""
        return self._thread.submit(self._close).result()

    def _close(self) -> bool:
        if not self._writer.frames:
            self._writer.abort()
            return False
        self._writer.close()
        return True

    def abort(self) -> None:
        """Discard the recording and its file."""
        self._thread.submit(self._writer.abort).result()
        self.path.unlink(missing_ok=True)

    def _blocks(self) -> Iterator[np.ndarray]:
        while self._sound:
            yield self._sound.popleft()
