"""The synchronous half of a live session: sound in, frames out, one call at a time, on any thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adapt.avatar.avatar import Avatar
from adapt.live.motion import FOLLOW, MODES, MOST_PITCH, MOST_YAW, LiveGaze, LivePoses
from adapt.talk.blinks import lids
from adapt.talk.options import check_controls
from adapt.talk.talker import Motion, Talker, control_offsets
from configs import InputError
from shards.media.encode import as_uint8
from shards.media.rates import FPS, SAMPLES_PER_FRAME

BACKGROUNDS = ("model", "plain")  # those that follow any pose
# Speaking styles: factor on the driven expression's distance from the clip's mean · guess
STYLES = {"own": 1.0, "calm": 0.6, "lively": 1.4}
# Seconds between two pictures at most, however slow the machine is.
LONGEST_GAP = 0.25


@dataclass(frozen=True)
class LiveFrame:
    """One frame of a session's timeline.

    Attributes:
        number: from 0.
        sound: ``[640]`` float32 at 16 kHz, to be heard while the frame is shown.
        image: ``[H, W, 3]`` uint8; ``None`` if the machine was too slow for a picture.
        speaking: whether the sound came from the caller (pushed or said) and is not the session's own silence.
        live: whether it was pushed.
        heard: number of samples that had been pushed up to the end of the frame's sound.
        delay: seconds between the arrival of the frame's last sample and its picture.
    """

    number: int
    sound: np.ndarray
    image: np.ndarray | None
    speaking: bool
    live: bool
    heard: int
    delay: float

    @property
    def time(self) -> float:
        """Seconds from the session's first frame."""
        return self.number / FPS


@dataclass(frozen=True)
class Chunk:
    """Sound for the engine.

    Attributes:
        sound: ``[n]`` float32 at 16 kHz.
        arrived: ``time.monotonic()`` when it came.
        live: whether it came from :meth:`adapt.live.session.LiveSession.push`.
        spoken: whether it came from the caller; False for silence that fills a pause.
        late: seconds that the session is behind its clock.
        pushed: number of samples that had been pushed up to the chunk's end.
    """

    sound: np.ndarray
    arrived: float
    live: bool = False
    spoken: bool = False
    late: float = 0.0
    pushed: int = 0


@dataclass(frozen=True)
class Look:
    """What may be changed while a session runs.

    Attributes:
        controls: amounts by the names of the rig's controls, within ``±MOST_CONTROL``.
        turn: yaw and pitch in degrees, within ``±MOST_YAW`` and ``±MOST_PITCH``.
        pose: ``still``, ``generated`` or ``clip``.
        blink: ``natural``, ``none``, ``clip`` or a closure from 0 to 1.
        background: ``model`` or ``plain``.
        style: ``own``, ``calm`` or ``lively``, see ``STYLES``.
    """

    controls: Mapping[str, float]
    turn: tuple[float, float] = (0.0, 0.0)
    pose: str = "generated"
    blink: str | float = "natural"
    background: str = "model"
    style: str = "own"

    def checked(self, avatar: Avatar) -> Look:
        """This look, if the avatar can have it.

        Raises:
            InputError: a number out of range, or an unknown name.
        """
        control_offsets(avatar, check_controls(self.controls))
        for name, angle, most in (("yaw", self.turn[0], MOST_YAW), ("pitch", self.turn[1], MOST_PITCH)):
            if not abs(angle) <= most:
                raise InputError(f"{name} {angle:g}: expected degrees from -{most:g} to {most:g}")
        if self.background not in BACKGROUNDS:
            raise InputError(f"background '{self.background}': a live head has {' or '.join(BACKGROUNDS)}")
        if self.pose not in MODES:
            raise InputError(f"pose '{self.pose}': a live head has {', '.join(MODES)}")
        if self.style not in STYLES:
            raise InputError(f"style '{self.style}': a live head speaks {', '.join(STYLES)}")
        lids(self.blink, avatar.track["eyelids"])
        return self


class Engine:
    """A low-delay :class:`Talker` that remembers which sound belongs to which frame.

    Attributes:
        dropped: number of pictures left out.
        talker: the stream itself.
    """

    def __init__(self, avatar: Avatar, look: Look, seed: int = 0) -> None:
        self.avatar, self.seed, self.dropped = avatar, seed, 0
        self.poses = LivePoses(avatar.track, look.pose, seed)
        gaze = LiveGaze(avatar.track["gaze"], self.poses, seed)
        self.talker = Talker(avatar, poses=self.poses, gaze=gaze, seed=seed, low_delay=True)
        self._target, self._number, self._rendered = self.talker.offsets, 0, 0.0
        self._chunks: deque[tuple[int, Chunk]] = deque()
        self._end = 0
        self.look = look
        self.change(look)
        self.talker.offsets, self.talker.emphasis = self._target, STYLES[look.style]

    def change(self, look: Look) -> None:
        """Change to another look; poses, controls and style change gradually."""
        self.talker.blink = lids(look.blink, self.avatar.track["eyelids"], self.seed)
        self.talker.background = look.background
        self.poses.hold(look.pose)
        self.poses.turn = look.turn
        self._target = control_offsets(self.avatar, look.controls)
        self.look = look

    def rest(self) -> None:
        """Close the lips now, without waiting to see whether speech continues."""
        if self.talker.resting is not None:
            self.talker.resting.pause(self.talker.lookahead + 1)

    def step(self, chunk: Chunk) -> list[LiveFrame]:
        """The frames that ``chunk`` makes possible. If there are several, or the session is late, pictures are left out."""
        self._chunks.append((self._end, chunk))
        self._end += len(chunk.sound)
        self._follow()
        motions = list(self.talker.motions(chunk.sound))
        starved = time.monotonic() - self._rendered > LONGEST_GAP
        newest = len(motions) - 1 if chunk.late <= 0 or starved else len(motions)
        return [self._frame(motion, i == newest) for i, motion in enumerate(motions)]

    def _follow(self) -> None:
        """Move controls and style a part of the way to their targets."""
        pairs = zip(self.talker.offsets, self._target, strict=True)
        expression, eyelids, gaze = (
            now + FOLLOW * (goal - now) if np.abs(goal - now).max() > 1e-4 else goal for now, goal in pairs
        )
        self.talker.offsets = expression, eyelids, gaze
        goal, now = STYLES[self.look.style], self.talker.emphasis
        self.talker.emphasis = now + FOLLOW * (goal - now) if abs(goal - now) > 1e-3 else goal

    def _frame(self, motion: Motion, render: bool) -> LiveFrame:
        sound, chunk, heard = self._sound_of(self._number)
        image = None
        if render:
            image = as_uint8(self.talker.render(motion)[0])
            self._rendered = time.monotonic()
        else:
            self.dropped += 1
        delay = time.monotonic() - chunk.arrived
        frame = LiveFrame(self._number, sound, image, chunk.spoken, chunk.live, heard, delay)
        self._number += 1
        return frame

    def _sound_of(self, number: int) -> tuple[np.ndarray, Chunk, int]:
        """A frame's sound, the chunk with its last sample, and the number of live samples up to there."""
        first, end = number * SAMPLES_PER_FRAME, (number + 1) * SAMPLES_PER_FRAME
        while self._chunks[0][0] + len(self._chunks[0][1].sound) <= first:
            self._chunks.popleft()
        parts = []
        for start, chunk in self._chunks:
            parts.append(chunk.sound[max(0, first - start) : end - start])
            after = start + len(chunk.sound) - end
            if after >= 0:
                return np.concatenate(parts), chunk, max(0, chunk.pushed - after)
        raise RuntimeError(f"frame {number} came before its sound")


def changed(look: Look, avatar: Avatar, changes: Mapping[str, Any]) -> Look:
    """A look with some of its fields replaced; the changes come from a page and are checked.

    Raises:
        InputError: an unknown field, a wrong type, or what :meth:`Look.checked` refuses.
    """
    unknown = set(changes) - set(PARSED)
    if unknown:
        raise InputError(f"no setting '{sorted(unknown)[0]}'; a live head has {', '.join(PARSED)}")
    parsed = {}
    for name, value in changes.items():
        try:
            parsed[name] = PARSED[name](value)
        except (TypeError, ValueError, AttributeError):
            raise InputError(f"setting '{name}': cannot read {str(value)[:80]!r}") from None
    return replace(look, **parsed).checked(avatar)


def _two_numbers(value: Any) -> tuple[float, float]:
    first, second = value
    return float(first), float(second)


def _blink(value: Any) -> str | float:
    return value if isinstance(value, str) else float(value)


# Settings and how each is read.
PARSED: dict[str, Callable[[Any], Any]] = {
    "controls": lambda value: {str(name): float(amount) for name, amount in value.items()},
    "turn": _two_numbers,
    "pose": str,
    "blink": _blink,
    "background": str,
    "style": str,
}
