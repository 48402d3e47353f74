"""First pass over a video: landmarks of every frame, spooled to a temporary file, and the runs that can be tracked.

A run is a stretch of frames of one shot that shows exactly one face, large enough, tracked with gaps of at most
``LONGEST_GAP`` frames. Memory does not grow with the video: landmarks go to disk, only runs and refusals are kept.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from configs.scratch import Spool
from heads.rig.facemesh import CHIN, FOREHEAD, IRIS_LEFT, IRIS_RIGHT, N_LANDMARKS
from shards.media.decode import read_video
from shards.media.probe import video_info
from shards.media.rates import FPS
from shards.tracking.ahead import ahead
from shards.tracking.models import FaceFinder, MirroredLandmarks
from shards.tracking.options import Refusal, TrackOptions

THUMBNAIL = 48  # px, side of the picture on which cuts are detected
CUT_DIFFERENCE, CUT_RATIO = 18.0, 4.0  # least mean change at a cut: grey levels, and times the running mean
CENSUS_EVERY = 12  # frames between counts of all faces
RIVAL = 0.35  # area relative to the main face's above which a second face counts
LONGEST_GAP = 3  # frames without a face that are bridged
KEPT = 512 * 2**20  # bytes of pictures that are kept for the second pass, on disk; a longer video is decoded twice
PICTURES_AHEAD = 4  # pictures that may wait for the landmarks
LYING = 60.0  # degrees of roll from which a face lies on its side: its mesh is right, but it is lost again and again (guess)
UPSIDE_DOWN = "face upside down; turn the video, such as by ffmpeg -i IN -vf hflip,vflip OUT"


@dataclass
class Run:
    """Frames ``start`` to ``end`` (exclusive) of one face in one shot; indices on the 25 fps grid."""

    start: int
    end: int


@dataclass
class FirstPass:
    """What the first pass found. Landmarks are px of the decoded picture, whose size is ``width`` x ``height``."""

    clip: str
    width: int = 0
    height: int = 0
    frames: int = 0
    runs: list[Run] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    spool: Spool = field(default_factory=Spool)  # landmarks of every frame, NaN where there is no face
    pictures: Spool | None = None  # of every frame, for the second pass; None: it decodes again

    def landmarks(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Landmarks ``[T, 478, 3]`` of frames ``start`` to ``end``, and in which a face was seen ``[T]``; gaps are interpolated."""
        values = np.array(self.spool.rows[start:end])
        seen = np.isfinite(values[:, 0, 0])
        return (values if seen.all() else _bridged(values, seen)), seen

    def close(self) -> None:
        """Free the disk."""
        self.spool.close()
        self.forget_pictures()

    def forget_pictures(self) -> None:
        """Free the disk that the pictures take; they are decoded again."""
        if self.pictures is not None:
            self.pictures.close()
            self.pictures = None


def run_first_pass(path: Path, options: TrackOptions, stop: Callable[[], bool] | None = None) -> FirstPass:
    """Runs the first pass.

    Args:
        stop: called after each frame; once it returns True, the rest of the video is left out.

    Raises:
        InputError: the file is no readable video.
    """
    found = FirstPass(path.stem)
    length = min(options.seconds or math.inf, video_info(path).seconds - options.start) * FPS
    try:
        watch = _Watch(found, options)
        for picture in _pictures(path, options):
            _keep(found, picture, length, options.size)
            watch.see(picture)
            if stop is not None and stop():
                break
        watch.finish()
    except BaseException:
        found.close()
        raise
    return found


def _keep(found: FirstPass, picture: np.ndarray, length: float, size: int) -> None:
    """Keeps a picture of a video of about ``length`` frames, if all of them take at most ``KEPT``.

    Pictures with both sides above that of the frames, ``size`` px, are decoded again: at a smaller scale, if the crop allows it.
    """
    if found.frames == 0 and length * picture.nbytes <= KEPT and min(picture.shape[:2]) <= size:
        found.pictures = Spool()
    if found.pictures is not None:
        if (found.frames + 1) * picture.nbytes > KEPT:  # it is longer than it claims
            found.forget_pictures()
        else:
            found.pictures.append(picture[None])


def _pictures(path: Path, options: TrackOptions) -> Iterator[np.ndarray]:
    pictures = read_video(
        path, start=options.start, seconds=options.seconds, max_side=options.max_side, threads=options.decoder_threads
    )
    return ahead(pictures, PICTURES_AHEAD) if options.ahead else pictures


class _Watch:
    """Processes the pictures in order, and opens and closes runs."""

    def __init__(self, found: FirstPass, options: TrackOptions) -> None:
        self._found, self._options = found, options
        self._mesh, self._finder = MirroredLandmarks(parallel=options.ahead), FaceFinder()
        self._thumbnail: np.ndarray | None = None
        self._usual_change = 2.0
        self._run: Run | None = None
        self._trouble: tuple[int, str] | None = None  # since when, and what
        self._missing = 0
        self._window: tuple[int, int, int, int] | None = None  # where to look, x0 y0 x1 y1; None: everywhere
        self._crowd = self._turned = False
        self._lying = ""  # what is said of a face that lies on its side, until one is upright
        self._since_census = CENSUS_EVERY

    def see(self, picture: np.ndarray) -> None:
        found = self._found
        found.height, found.width = picture.shape[:2]
        if self._is_cut(picture):
            self._close("cut")
            self._mesh.forget()
            self._lying = ""
            self._window, self._since_census = None, CENSUS_EVERY
        points = self._follow(picture)
        self._record(points)
        self._judge(points)
        found.frames += 1

    def finish(self) -> None:
        self._close("end")
        self._mesh.close()

    def _follow(self, picture: np.ndarray) -> np.ndarray | None:
        """Landmarks of the largest face, searched again with the face detector when they are lost."""
        self._since_census += 1
        if self._since_census > CENSUS_EVERY:
            self._since_census = 1
            self._census(picture)
        points = self._landmarks_in_window(picture)
        if points is None and self._missing == 0 and self._since_census > 1:
            self._census(picture)
            points = self._landmarks_in_window(picture)
        return points

    def _landmarks_in_window(self, picture: np.ndarray) -> np.ndarray | None:
        if self._window is None:
            return self._mesh(picture)
        x0, y0, x1, y1 = self._window
        points = self._mesh(picture[y0:y1, x0:x1])
        return None if points is None else points + np.array([x0, y0, 0], np.float32)

    def _census(self, picture: np.ndarray) -> None:
        """Counts faces; narrows the search to the largest if there are others, or if it is small."""
        boxes = self._finder(picture)
        self._crowd = False
        self._turned = len(boxes) > 0 and self._finder.upside_down(picture)
        if len(boxes) == 0:
            return
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        self._crowd = len(boxes) > 1 and area[1] > RIVAL * area[0]
        small = np.sqrt(area[0]) < 0.12 * max(picture.shape[:2])
        if len(boxes) > 1 or small:
            self._narrow(boxes[0], picture.shape)
        elif self._window is not None and not self._holds(boxes[0]):
            self._window = None
            self._mesh.forget()

    def _narrow(self, box: np.ndarray, shape: tuple[int, ...]) -> None:
        if self._window is not None and self._holds(box):
            return
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        reach = 1.1 * max(box[2] - box[0], box[3] - box[1])
        low, high = np.maximum([x - reach, y - reach], 0), np.minimum([x + reach, y + reach], [shape[1], shape[0]])
        self._window = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        self._mesh.forget()

    def _holds(self, box: np.ndarray) -> bool:
        if self._window is None:
            return False
        x0, y0, x1, y1 = self._window
        margin = 0.15 * (box[2] - box[0])
        return bool(x0 <= box[0] - margin and y0 <= box[1] - margin and x1 >= box[2] + margin and y1 >= box[3] + margin)

    def _is_cut(self, picture: np.ndarray) -> bool:
        rows, columns = (_thumbnail_lines(side) for side in picture.shape[:2])
        thumbnail = picture[rows[:, None], columns].sum(-1, dtype=np.int32) / np.float32(3)
        previous, self._thumbnail = self._thumbnail, thumbnail
        if previous is None:
            return False
        change = float(np.abs(thumbnail - previous).mean())
        cut = change > CUT_DIFFERENCE and change > CUT_RATIO * self._usual_change
        if not cut:
            self._usual_change += 0.1 * (change - self._usual_change)
        return cut

    def _record(self, points: np.ndarray | None) -> None:
        values = np.full((N_LANDMARKS, 3), np.nan, np.float32) if points is None else points
        self._found.spool.append(values[None].astype(np.float32))

    def _judge(self, points: np.ndarray | None) -> None:
        """Opens, continues or closes the run by what this frame shows."""
        reason = self._reason(points)
        if reason == "no face" and self._run is not None and self._missing < LONGEST_GAP:
            self._missing += 1  # may be bridged
            return
        if reason:
            self._close(reason)
            return
        if self._run is None:
            self._end_trouble(self._found.frames)
            self._run = Run(self._found.frames, self._found.frames)
        self._run.end, self._missing = self._found.frames + 1, 0

    def _reason(self, points: np.ndarray | None) -> str:
        if points is None:
            return self._lying or "no face"
        self._lying = _lying(points)
        if self._crowd:
            return "several faces"
        if self._lying:
            return self._lying
        if self._turned:
            return UPSIDE_DOWN
        apart = float(np.linalg.norm(points[IRIS_LEFT[0]] - points[IRIS_RIGHT[0]]))
        least = self._options.min_eye_distance
        return "" if apart >= least else f"face too small: eyes less than {least:g} px apart"

    def _close(self, reason: str) -> None:
        """Ends the run, if one is open, and remembers why the next frames cannot be used."""
        now = self._found.frames
        if self._run is not None:
            self._keep(self._run)
            last, self._run = self._run.end, None
        else:
            last = now
        self._missing = 0
        if reason in ("cut", "end"):
            self._end_trouble(now)
        elif self._trouble is None or self._trouble[1] != reason:
            self._end_trouble(last)
            self._trouble = (last, reason)

    def _keep(self, run: Run) -> None:
        least = round(self._options.min_seconds * FPS)
        if run.end - run.start >= least:
            self._found.runs.append(run)
        else:
            reason = f"shorter than {self._options.min_seconds:g} s"
            self._found.refusals.append(Refusal(self._found.clip, run.start, run.end, reason))

    def _end_trouble(self, now: int) -> None:
        if self._trouble is not None and now > self._trouble[0]:
            self._found.refusals.append(Refusal(self._found.clip, self._trouble[0], now, self._trouble[1]))
        self._trouble = None


@functools.lru_cache(maxsize=16)
def _thumbnail_lines(side: int) -> np.ndarray:
    """Rows or columns ``[THUMBNAIL]`` of a picture that its thumbnail shows."""
    return np.linspace(0, side - 1, THUMBNAIL).astype(int)


def _lying(points: np.ndarray) -> str:
    """How to turn a video whose face, landmarks ``[478, 3]`` px, lies on its side; empty where it is upright."""
    up = points[FOREHEAD, :2] - points[CHIN, :2]
    roll = float(np.degrees(np.arctan2(up[0], -up[1])))  # positive: the head's top to the right
    if abs(roll) < LYING:
        return ""
    if abs(roll) > 180 - LYING:
        return UPSIDE_DOWN
    return f"face on its side; turn the video, such as by ffmpeg -i IN -vf transpose={1 if roll < 0 else 2} OUT"


def _bridged(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Linear interpolation over the frames that were not seen."""
    times, known = np.arange(len(values)), np.where(seen)[0]
    if len(known) == 0:
        return np.zeros_like(values)
    right = np.clip(np.searchsorted(known, times), 0, len(known) - 1)
    left = np.where(known[right] > times, np.maximum(right - 1, 0), right)
    a, b = known[left], known[right]
    share = np.where(b > a, (times - a) / np.maximum(b - a, 1), 0)[:, None, None]
    return (values[a] * (1 - share) + values[b] * share).astype(np.float32)
