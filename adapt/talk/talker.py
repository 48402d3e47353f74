"""An avatar as a stream: sound goes in as it arrives, and frames come out as soon as enough of it is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from adapt.avatar.avatar import Avatar
from adapt.avatar.body import BodyFrames
from adapt.drivers.base import Bounds, Driver, Expressions
from adapt.drivers.low_delay import heard_by, quickest
from adapt.drivers.prior import PriorDriver
from adapt.talk.activity import SpeechActivity
from adapt.talk.blinks import lids
from adapt.talk.poses import ClipPoses, Poses, PoseSource
from adapt.talk.silence import Resting, resting_expression
from adapt.talk.torso import Torso
from configs import InputError
from heads.person.inputs import AUDIO_CONTEXT, TRACK_CONTEXT, TRACKED, HeadInputs, row_vectors, window_inputs
from shards.features import open_feature
from shards.media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

# Frames that are rendered together.
BATCH = 4
Result = TypeVar("Result")
# Frame numbers ``[T]`` and their poses to gaze ``[T, 2, 2]``, radians.
Gaze = Callable[[np.ndarray, Poses], np.ndarray]


@dataclass(frozen=True)
class Motion:
    """Frames that are ready to be rendered: what drives them, and the clip frame ``source [B]`` behind each."""

    drive: HeadInputs
    source: np.ndarray


class Talker:
    """Feed sound, get frames.

    Args:
        avatar: an opened avatar.
        poses: where the head is; the training clip's poses by default.
        blink, controls, style, background, seed: see :func:`adapt.talk.talk.talk`; with ``blink="driver"`` eyelids and
            gaze are the driver's.
        gaze: where the eyes look, before the controls; by default as in the clip frame behind each frame.
        low_delay: answer as soon as the driver has enough sound: frames are made one at a time, and neighbours of a frame
            that are not known yet are predicted to equal the last known one.

    Attributes:
        frames: number of frames produced.
        stages: seconds spent by stage.
        offsets: what the controls add to expression, eyelids and gaze of the next frames; may be changed between feeds.
        emphasis: factor on the driven expression's distance from the clip's mean; may be changed between feeds.

    Raises:
        InputError: a wrong blink, control or style, or no body video for the background ``original``.
    """

    def __init__(
        self,
        avatar: Avatar,
        *,
        poses: PoseSource | None = None,
        blink: str | float = "natural",
        gaze: Gaze | None = None,
        controls: Mapping[str, float] | None = None,
        style: str | Path | None = None,
        background: str = "model",
        seed: int = 0,
        low_delay: bool = False,
    ) -> None:
        self.low_delay, self.batch = low_delay, 1 if low_delay else BATCH
        # Neighbours of a frame that must be known, or that the driver's look-ahead brings.
        self._neighbours = 0 if low_delay else TRACK_CONTEXT
        self.gaze = gaze
        self.avatar, self.background = avatar, background
        track = avatar.track
        self.poses = poses or ClipPoses(track)
        self.torso = Torso(track, _half_pictures(avatar)) if "body" in track else None
        self._still = avatar.model.backdrop.background_rest.cpu().numpy()
        self.blink = None if blink == "driver" else lids(blink, avatar.track["eyelids"], seed)
        self.offsets, self.emphasis = control_offsets(avatar, controls or {}), 1.0
        styled, self.bounds = _styled(avatar, style), Bounds(avatar.track["expression"])
        self._uses_audio = bool(avatar.model.uses_audio)
        record, own = avatar.document["features"], self._uses_audio
        self.driver = quickest(styled, record, any_feature=not own) if low_delay else styled
        record = heard_by(self.driver, record, any_feature=not own)
        feature = open_feature(record)
        self.sound, self.stream = feature.stream(), self.driver.stream()
        self.activity = SpeechActivity()
        self.resting = Resting(resting_expression(avatar.track)) if self.driver.by_sound else None
        self._speech = np.zeros(0, bool)
        self.body = BodyFrames(avatar) if background == "original" else None
        self.frames = 0
        self.stages: dict[str, float] = {}
        self._track: dict[str, np.ndarray] = {}
        self._source = np.zeros(0, np.int64)
        # Sound that is held back, how much of it the features have had already, and how far pieces reach past a frame.
        self._held, self._given = np.zeros(0, np.float32), 0
        self._ahead = feature.reach  # samples after a frame that its row needs
        self._reach = feature.reach % SAMPLES_PER_FRAME if low_delay else 0
        self._moved = 0
        self._rows: np.ndarray | None = None
        self._finished = False

    @property
    def lookahead(self) -> int:
        """Later frames whose sound a frame's expression needs."""
        return self.driver.lookahead + self._ahead // SAMPLES_PER_FRAME

    @property
    def delay(self) -> float:
        """Seconds from the first sample of a batch's first frame to the moment at which enough sound has come to make it."""
        ahead = self.driver.lookahead + self._neighbours
        if self._uses_audio and not self.low_delay:
            ahead = max(ahead, AUDIO_CONTEXT)
        return (ahead + self.batch) / FPS + self._ahead / SAMPLE_RATE

    def feed(self, sound: np.ndarray) -> Iterator[np.ndarray]:
        """Frames ``[H, W, 3]`` float in [0, 1] that became possible with ``sound [n]``, float32 mono at 16 kHz."""
        for motion in self.motions(sound):
            yield from self.render(motion)

    def finish(self) -> Iterator[np.ndarray]:
        """The last frames; nothing can be fed afterwards."""
        self._finished = True
        for motion in self._advance(self._timed("features", self._last_features)):
            yield from self.render(motion)

    def motions(self, sound: np.ndarray) -> Iterator[Motion]:
        """As :meth:`feed`, but not rendered yet, so that a caller that is late can leave frames out.

        Raises:
            ValueError: after :meth:`finish`.
        """
        if self._finished:
            raise ValueError("this Talker is finished; make a new one for new sound")
        yield from self._advance(self._timed("features", self._features, np.asarray(sound, np.float32)))

    def render(self, motion: Motion) -> np.ndarray:
        """The frames ``[B, H, W, 3]`` (4 channels for ``rgba``) float32 in [0, 1] of a motion."""
        return self._timed("render", self._render, motion)

    def _features(self, sound: np.ndarray) -> np.ndarray:
        """Feature rows that became complete. Sound goes in by whole frames, because a product over more rows rounds
        differently, and a stream must repeat bit for bit however its sound is cut. With a low delay the pieces end a
        little behind each frame, where its row becomes final, not a whole frame later."""
        self._held = np.concatenate([self._held, sound])
        rows, speech, end = [], [self._speech], SAMPLES_PER_FRAME + self._reach
        while len(self._held) >= end:
            rows.append(self.sound.push(self._held[self._given : end]))
            speech.append(self.activity.push(self._held[:SAMPLES_PER_FRAME]))
            self._held, self._given = self._held[SAMPLES_PER_FRAME:], self._reach
        self._speech = np.concatenate(speech)
        return _joined_rows(rows)

    def _last_features(self) -> np.ndarray:
        whole = len(self._held) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME
        self._speech = np.concatenate([self._speech, self.activity.push(self._held[:whole])])
        return _joined_rows([self.sound.push(self._held[self._given :]), self.sound.finish()])

    def _timed(self, stage: str, function: Callable[..., Result], *arguments: object) -> Result:
        start = time.monotonic()
        result = function(*arguments)
        self.stages[stage] = self.stages.get(stage, 0.0) + time.monotonic() - start
        return result

    def _advance(self, rows: np.ndarray) -> Iterator[Motion]:
        parts = [self._timed("expression", self.stream.push, rows)] if len(rows) else []
        if self._finished:
            parts.append(self._timed("expression", self.stream.finish))
        for part in parts:
            if len(part.get("expression", ())):
                self._extend(part)
        if self._finished and self._track and not self.low_delay:
            self._pad(after=True)
        if self._uses_audio:
            self._keep_rows(rows)
        while (count := self._possible()) > 0:
            yield self._timed("motion", self._next, min(count, self.batch))

    def _extend(self, part: Expressions) -> None:
        """Append what drives the next frames: the driver's expressions, poses, blinks and controls."""
        count = len(part["expression"])
        numbers = np.arange(self._moved, self._moved + count)
        self._moved += count
        poses: Poses = self.poses.at(numbers)
        expression, eyelids, gaze = self.offsets
        closed = part["eyelids"] if self.blink is None else self.blink(numbers, poses)
        seen = self._gaze_of(numbers, poses) if self.blink is not None else part["gaze"]
        rows = {
            "rotation": poses.rotation,
            "translation": poses.translation,
            "expression": self._rested(self.bounds(self._emphasised(part["expression"]))) + expression,
            "eyelids": np.clip(closed + eyelids, 0, 1),
            "gaze": seen + gaze,
        }
        first = not self._track
        rows = {name: rows[name].astype(np.float32) for name in TRACKED}
        rows["vectors"] = row_vectors(rows)
        if self.torso is not None:
            rows["body"] = self.torso(numbers, poses)
        if poses.background is not None:
            rows["background"] = poses.mixed(poses.background, self._still)
        for name, new in rows.items():
            self._track[name] = new if first else np.concatenate([self._track[name], new])
        self._source = np.concatenate([self._source, poses.source])
        if first:
            self._pad(after=False)

    def _gaze_of(self, numbers: np.ndarray, poses: Poses) -> np.ndarray:
        return self.avatar.track["gaze"][poses.source] if self.gaze is None else self.gaze(numbers, poses)

    def _emphasised(self, expression: np.ndarray) -> np.ndarray:
        mean = self.bounds.mean
        return expression if self.emphasis == 1.0 else mean + np.float32(self.emphasis) * (expression - mean)

    def _rested(self, expression: np.ndarray) -> np.ndarray:
        """The next frames' expressions, at rest in silence; an incomplete last frame counts as silent."""
        count = len(expression)
        speech = np.pad(self._speech[:count], (0, max(0, count - len(self._speech))))
        self._speech = self._speech[count:]
        return expression if self.resting is None else self.resting(expression, speech)

    def _pad(self, after: bool) -> None:
        """Repeat the first or last frame as its own neighbours."""
        for name, rows in self._track.items():
            edge = np.repeat(rows[-1:] if after else rows[:1], TRACK_CONTEXT, 0)
            self._track[name] = np.concatenate([rows, edge] if after else [edge, rows])

    def _keep_rows(self, rows: np.ndarray) -> None:
        if self._rows is None and len(rows):
            # The first row is repeated for the past of the first frame.
            self._rows = np.repeat(rows[:1], AUDIO_CONTEXT, 0)
        if len(rows):
            self._rows = np.concatenate([self._rows, rows])
        if self._finished and self._rows is not None and not self.low_delay:
            self._rows = np.concatenate([self._rows, np.repeat(self._rows[-1:], AUDIO_CONTEXT, 0)])

    def _possible(self) -> int:
        """Number of frames that can be made now; whole batches before the end, so that they do not depend on the feeds."""
        known = TRACK_CONTEXT + self._neighbours
        count = max(0, len(self._track["rotation"]) - known) if self._track else 0
        if self._uses_audio and not self.low_delay:
            count = min(count, max(0, (0 if self._rows is None else len(self._rows)) - 2 * AUDIO_CONTEXT))
        return count if self._finished else count // self.batch * self.batch

    def _next(self, count: int) -> Motion:
        drive = self._next_drive(count)
        source, self._source = self._source[:count], self._source[count:]
        self.frames += count
        return Motion(drive, source)

    def _render(self, motion: Motion) -> np.ndarray:
        if self.body is None:
            return self.avatar.render(motion.drive, background=self.background)
        original, head = self._timed("body", self.body, motion.source)
        return self.avatar.render(motion.drive, background="original", original=original, head=head)

    def _next_drive(self, count: int) -> HeadInputs:
        known = count + TRACK_CONTEXT + self._neighbours
        window = {name: _lasting(rows[:known], count + 2 * TRACK_CONTEXT) for name, rows in self._track.items()}
        self._track = {name: rows[count:] for name, rows in self._track.items()}
        drive = window_inputs(window, TRACK_CONTEXT)
        if not self._uses_audio:
            return drive
        assert self._rows is not None
        heard = self._rows
        if self.low_delay:
            # What the driver has heard by then, whatever was fed.
            heard = _lasting(heard[: count + AUDIO_CONTEXT + self.driver.lookahead], count + 2 * AUDIO_CONTEXT)
        windows = np.lib.stride_tricks.sliding_window_view(heard, 2 * AUDIO_CONTEXT + 1, 0)[:count]
        self._rows = self._rows[count:]
        return drive.with_(features=torch.from_numpy(windows.transpose(0, 2, 1).copy()))


def _joined_rows(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([part for part in parts if len(part)] or [np.zeros((0, 0), np.float32)])


def _lasting(rows: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` rows; the last one is repeated where there are fewer."""
    missing = max(0, count - len(rows))
    return np.concatenate([rows, np.repeat(rows[-1:], missing, 0)])[:count] if missing else rows[:count]


def _half_pictures(avatar: Avatar) -> float:
    """Half pictures per rig unit at the head's median distance."""
    focal = float(avatar.model.intrinsics[1, 1])
    return 2 * focal / (avatar.size * float(np.median(avatar.track["translation"][:, 2])))


def control_offsets(avatar: Avatar, controls: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of the named controls: expression ``[K]``, eyelids ``[2]``, gaze ``[2, 2]``."""
    total = [np.zeros(avatar.rig.n_expression, np.float32), np.zeros(2, np.float32), np.zeros((2, 2), np.float32)]
    for name, amount in controls.items():
        deltas = avatar.rig.control(name, amount)
        for i, key in enumerate(("expression", "eyelids", "gaze")):
            total[i] = total[i] + deltas[key].cpu().numpy()
    return total[0], total[1], total[2]


def _styled(avatar: Avatar, style: str | Path | None) -> Driver:
    """The avatar's driver with the style asked for.

    Raises:
        InputError: the driver has no styles, or not a style file.
    """
    if style is None or str(style) == "own":
        return avatar.driver
    if not isinstance(avatar.driver, PriorDriver):
        raise InputError(
            f"style '{style}': this avatar is driven by {avatar.driver.name}, which has no styles; "
            "adapt with an audio-expression prior"
        )
    if str(style) == "mean":
        return avatar.driver.with_style(None)
    path = Path(str(style))
    if path.suffix != ".npy" or not path.is_file():
        raise InputError(f"style '{style}': expected own, mean or an .npy file with a style vector")
    return avatar.driver.with_style(np.load(path, allow_pickle=False).astype(np.float32))
