"""``talk``: any speech through an avatar into a video; and :class:`Talker`, the same as a stream.

``talk`` pushes the sound through a :class:`Talker` block by block, so the streamed frames and the offline video's are
the same by construction, and memory does not grow with the sound.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapt.avatar.avatar import BACKGROUNDS, Avatar, load_avatar
from adapt.avatar.body import BodyFrames
from adapt.avatar.video import FPS, FrameFolderWriter, VideoWriter
from adapt.drivers.driving import Bounds, Expressions
from adapt.models.drive import AUDIO_CONTEXT, DRIVEN, TRACK_CONTEXT, Drive, drive_of
from adapt.outputs import claim
from adapt.talk.poses import AnglePoses, Blinks, ClipPoses, FixedPose, GeneratedPoses, Poses
from cluster.storage.staging import staged
from configs import InputError

RATE = 16_000
SAMPLES = RATE // FPS
# Sound is read, and frames are rendered, in blocks of this many seconds and frames.
BLOCK_SECONDS = 1.0
BATCH = 4
SILENT = 1e-4


@staged(reads=("avatar", "audio", "pose_from", "style"), writes="out")
def talk(
    avatar: str | Path,
    audio: str | Path,
    out: str | Path,
    *,
    pose_from: str | Path | None = None,
    yaw: float | None = None,
    pitch: float | None = None,
    roll: float | None = None,
    pose: str = "clip",
    blink: str | float = "natural",
    controls: Iterable[str] | Mapping[str, float] | None = None,
    style: str | Path | None = None,
    background: str | None = None,
    device: str = "auto",
    prior: str | Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Let an avatar speak a sound file.

    Args:
        avatar: its folder; this, ``audio``, ``out``, ``pose_from`` and ``style`` may be ``s3://`` URLs.
        audio: WAV, FLAC, MP3 or a video; any sample rate, channels and length.
        out: an ``.mp4`` (H.264 + AAC); for ``background="rgba"`` a folder of PNG frames with the sound beside them.
        pose_from: a video (or another avatar) whose head poses to follow, to and fro.
        yaw, pitch, roll: degrees; any of them holds the head still at that angle.
        pose: without the above: ``clip`` (the training clip's poses), ``generated`` or ``still``.
        blink: ``natural``, ``none``, ``clip`` (as in the training clip) or a fixed closure from 0 to 1.
        controls: ``["smile=0.4", "gaze_x=-0.5"]`` or a mapping: the rig's named controls.
        style: ``own``, ``mean``, or an ``.npy`` file with a style vector, where an audio-expression prior drives.
        background: ``original`` (the clip's body and background through the inpainter; the default where the poses are
            the clip's own, frame for frame), ``model`` (the avatar's own body layer, which follows any pose; the default
            elsewhere), ``plain`` or ``rgba``.
        prior: where the avatar's audio-expression prior is now, if it moved.

    Returns:
        ``video, frames, fps`` (rendering speed, sound and file included), ``driver``, ``seconds``, ``stages`` (seconds
        by stage), ``delay_seconds`` (of the stream behind its sound).

    Raises:
        InputError: no sound, silence, a wrong option; nothing is left half-written.
    """
    from shards.media.sound import stream_audio

    own_poses = pose == "clip" and pose_from is None and yaw is None and pitch is None and roll is None
    background = background or ("original" if own_poses else "model")
    if background not in BACKGROUNDS:
        raise InputError(f"background '{background}': expected one of {', '.join(BACKGROUNDS)}")
    out = claim(out, suffix=None if background == "rgba" else ".mp4", overwrite=overwrite)
    check_sound(audio)
    opened = load_avatar(avatar, device, prior=prior)
    talker = Talker(
        opened,
        poses=make_poses(opened, pose_from, yaw, pitch, roll, pose, seed),
        blink=blink,
        controls=parse_controls(controls),
        style=style,
        background=background,
        seed=seed,
    )
    provenance = opened.provenance(Path(str(audio)).name)
    start = time.monotonic()
    if background == "rgba":
        writer: Any = FrameFolderWriter(out, provenance=provenance, sound=audio)
    else:
        writer = VideoWriter(out, opened.size, opened.size, provenance=provenance, sound=audio)
    with writer:
        for block in stream_audio(audio, round(BLOCK_SECONDS * RATE)):
            _write(writer, talker, talker.feed(block))
        _write(writer, talker, talker.finish())
        if not talker.frames:
            raise InputError(f"{audio}: shorter than one frame (40 ms); give a longer sound")
    spent = time.monotonic() - start
    return {
        "video": str(out),
        "frames": talker.frames,
        "fps": round(talker.frames / spent, 2),
        "seconds": round(spent, 2),
        "driver": opened.driver.name,
        "background": background,
        "delay_seconds": round(talker.delay, 3),
        "stages": {name: round(value, 3) for name, value in talker.stages.items()},
    }


def _write(writer: Any, talker: Talker, frames: Iterator[np.ndarray]) -> None:
    for frame in frames:
        start = time.monotonic()
        writer.write(frame)
        talker.stages["write"] = talker.stages.get("write", 0.0) + time.monotonic() - start


def check_sound(audio: str | Path) -> None:
    """Refuse what cannot be spoken: no file, no sound, nothing but silence.

    Raises:
        InputError: says which.
    """
    from shards.media.sound import stream_audio

    heard = 0
    for block in stream_audio(audio):
        heard += len(block)
        if len(block) and float(np.abs(block).max()) > SILENT:
            return
    if not heard:
        raise InputError(f"{audio}: holds no sound at all (zero length); give a recording of speech")
    raise InputError(f"{audio}: is silent from beginning to end; give a recording of speech")


def parse_controls(controls: Iterable[str] | Mapping[str, float] | None) -> dict[str, float]:
    """``["smile=0.4"]`` -> ``{"smile": 0.4}``.

    Raises:
        InputError: not ``name=number``.
    """
    if controls is None or isinstance(controls, Mapping):
        return dict(controls or {})
    parsed = {}
    for text in controls:
        name, found, amount = text.partition("=")
        try:
            parsed[name] = float(amount)
        except ValueError:
            found = ""
        if not found:
            raise InputError(f"control '{text}': expected NAME=AMOUNT, for example smile=0.4")
    return parsed


def make_poses(
    avatar: Avatar,
    pose_from: str | Path | None,
    yaw: float | None,
    pitch: float | None,
    roll: float | None,
    pose: str,
    seed: int,
) -> Any:
    """The source of head poses that the options ask for.

    Raises:
        InputError: contradicting or unknown options.
    """
    rotation, translation = avatar.track["rotation"], avatar.track["translation"]
    angles = [value for value in (yaw, pitch, roll) if value is not None]
    if pose_from is not None and angles:
        raise InputError("--pose-from and --yaw/--pitch/--roll contradict each other; give one of them")
    if any(abs(value) > 90 for value in angles):
        raise InputError(f"angle {max(angles, key=abs):g}: expected degrees from -90 to 90")
    if angles:
        return FixedPose(rotation, translation, yaw=yaw, pitch=pitch, roll=roll)
    if pose_from is not None:
        return _foreign_poses(avatar, pose_from)
    if pose == "still":
        return FixedPose(rotation, translation)
    if pose == "generated":
        return GeneratedPoses(rotation, translation, seed)
    if pose == "clip":
        return ClipPoses(rotation, translation)
    raise InputError(f"pose '{pose}': expected clip, generated or still")


def _foreign_poses(avatar: Avatar, source: str | Path) -> AnglePoses | ClipPoses:
    """Poses of another video: its angles, around the place where the avatar's own head is."""
    from adapt.clip import track_clip
    from adapt.talk.poses import rotation_to_euler

    if (Path(str(source)) / "avatar.json").is_file():
        rotation = load_avatar(source, "cpu").track["rotation"]
    else:
        with track_clip(source, size=256) as clip:
            rotation = clip.track["rotation"].copy()
    degrees = np.degrees(rotation_to_euler(rotation))
    return AnglePoses(avatar.track["rotation"], avatar.track["translation"], degrees)


class Talker:
    """Feed sound, get frames.

    Args:
        avatar: an opened avatar.
        poses: where the head is; the training clip's poses by default.
        blink, controls, style, background, seed: see :func:`talk`.

    Attributes:
        frames: how many came out; delay: seconds of sound that must follow a frame before it can be made;
        stages: seconds spent by stage.
    """

    def __init__(
        self,
        avatar: Avatar,
        *,
        poses: Any = None,
        blink: str | float = "natural",
        controls: Mapping[str, float] | None = None,
        style: str | Path | None = None,
        background: str = "model",
        seed: int = 0,
    ) -> None:
        from shards.features import FeatureStream

        self.avatar, self.background = avatar, background
        self.poses = poses or ClipPoses(avatar.track["rotation"], avatar.track["translation"])
        self.blink = _blinks(avatar, blink, seed)
        self.offsets = _control_offsets(avatar, controls or {})
        self.driver, self.bounds = _styled(avatar, style), Bounds(avatar.track["expression"])
        self.sound, self.stream = FeatureStream(avatar.document["features"]["name"]), self.driver.stream()
        self.body = BodyFrames(avatar) if background == "original" else None
        self.frames = 0
        self.stages: dict[str, float] = {}
        self._track: dict[str, np.ndarray] = {}
        self._source = np.zeros(0, np.int64)
        self._held = np.zeros(0, np.float32)
        self._moved = 0
        self._rows: np.ndarray | None = None
        self._finished = False
        self._hears = bool(avatar.model.uses_audio)

    @property
    def delay(self) -> float:
        """Seconds between a frame's sound and the moment at which enough sound has come to make it."""
        ahead = max(self.driver.lookahead + TRACK_CONTEXT, AUDIO_CONTEXT if self._hears else 0)
        return (ahead + BATCH) / FPS + 0.0075  # a batch of frames, and what a log-mel window looks ahead

    def feed(self, sound: np.ndarray) -> Iterator[np.ndarray]:
        """Frames ``[H, W, 3]`` float in [0, 1] that became possible with ``sound [n]``, float32 mono at 16 kHz."""
        if self._finished:
            raise ValueError("this Talker is finished; make a new one for new sound")
        yield from self._advance(self._timed("features", self._features, np.asarray(sound, np.float32)))

    def finish(self) -> Iterator[np.ndarray]:
        """The last frames: the end of the sound is continued as silence."""
        self._finished = True
        yield from self._advance(self._timed("features", self._last_features))

    def _features(self, sound: np.ndarray) -> np.ndarray:
        """Feature rows that became complete. Sound goes in by whole frames, because a product over more rows rounds
        differently, and a stream must repeat bit for bit however its sound is cut."""
        self._held = np.concatenate([self._held, sound])
        whole = len(self._held) // SAMPLES * SAMPLES
        rows = [self.sound.push(self._held[i : i + SAMPLES]) for i in range(0, whole, SAMPLES)]
        self._held = self._held[whole:]
        return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)

    def _last_features(self) -> np.ndarray:
        rows = self.sound.push(self._held), self.sound.finish()
        return np.concatenate([part for part in rows if len(part)] or [np.zeros((0, 0), np.float32)])

    def _timed(self, stage: str, function: Any, *arguments: Any) -> Any:
        start = time.monotonic()
        result = function(*arguments)
        self.stages[stage] = self.stages.get(stage, 0.0) + time.monotonic() - start
        return result

    def _advance(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        parts = [self._timed("expression", self.stream.push, rows)] if len(rows) else []
        if self._finished:
            parts.append(self._timed("expression", self.stream.finish))
        for part in parts:
            if len(part.get("expression", ())):
                self._extend(part)
        if self._finished and self._track:
            self._pad(after=True)
        if self._hears:
            self._keep_rows(rows)
        while (count := self._possible()) > 0:
            yield from self._timed("render", self._render, min(count, BATCH))

    def _extend(self, part: Expressions) -> None:
        """Append what drives the next frames: the driver's expressions, poses, blinks and controls."""
        count = len(part["expression"])
        numbers = np.arange(self._moved, self._moved + count)
        self._moved += count
        poses: Poses = self.poses.at(numbers)
        expression, eyelids, gaze = self.offsets
        lids = self.blink(numbers, poses, part) + eyelids
        rows = {
            "rotation": poses.rotation,
            "translation": poses.translation,
            "expression": self.bounds(part["expression"]) + expression,
            "eyelids": np.clip(lids, 0, 1),
            "gaze": self.avatar.track["gaze"][poses.source] + gaze,
        }
        first = not self._track
        for name in DRIVEN:
            new = rows[name].astype(np.float32)
            self._track[name] = new if first else np.concatenate([self._track[name], new])
        self._source = np.concatenate([self._source, poses.source])
        if first:
            self._pad(after=False)

    def _pad(self, after: bool) -> None:
        """Repeat the first or last frame as its own neighbours."""
        for name, rows in self._track.items():
            edge = np.repeat(rows[-1:] if after else rows[:1], TRACK_CONTEXT, 0)
            self._track[name] = np.concatenate([rows, edge] if after else [edge, rows])

    def _keep_rows(self, rows: np.ndarray) -> None:
        if self._rows is None and len(rows):
            # The past of the first frame is silence like its own first row.
            self._rows = np.repeat(rows[:1], AUDIO_CONTEXT, 0)
        if len(rows):
            self._rows = np.concatenate([self._rows, rows])
        if self._finished and self._rows is not None:
            self._rows = np.concatenate([self._rows, np.repeat(self._rows[-1:], AUDIO_CONTEXT, 0)])

    def _possible(self) -> int:
        """Frames that can be made now; only whole batches before the end, so that batches never depend on blocks."""
        count = max(0, len(self._track["rotation"]) - 2 * TRACK_CONTEXT) if self._track else 0
        if self._hears:
            count = min(count, max(0, (0 if self._rows is None else len(self._rows)) - 2 * AUDIO_CONTEXT))
        return count if self._finished else count // BATCH * BATCH

    def _render(self, count: int) -> np.ndarray:
        drive = self._next_drive(count)
        source, self._source = self._source[:count], self._source[count:]
        self.frames += count
        if self.body is None:
            return self.avatar.render(drive, background=self.background)
        original, head = self._timed("body", self.body, source)
        return self.avatar.render(drive, background="original", original=original, head=head)

    def _next_drive(self, count: int) -> Drive:
        window = {name: rows[: count + 2 * TRACK_CONTEXT] for name, rows in self._track.items()}
        self._track = {name: rows[count:] for name, rows in self._track.items()}
        drive = drive_of(window, cut=TRACK_CONTEXT)
        if not self._hears:
            return drive
        windows = np.lib.stride_tricks.sliding_window_view(self._rows, 2 * AUDIO_CONTEXT + 1, 0)[:count]
        self._rows = self._rows[count:]
        return drive.with_(features=torch.from_numpy(np.ascontiguousarray(windows.transpose(0, 2, 1))))


def _blinks(avatar: Avatar, blink: str | float, seed: int) -> Any:
    """A function of (frame numbers, poses, expressions) that gives eyelids ``[T, 2]``."""
    if blink == "natural":
        generator = Blinks(seed=seed)
        return lambda numbers, poses, moved: generator.at(numbers)
    if blink == "none":
        return lambda numbers, poses, moved: np.zeros((len(numbers), 2), np.float32)
    if blink == "clip":
        return lambda numbers, poses, moved: avatar.track["eyelids"][poses.source]
    try:
        closure = float(blink)
    except ValueError:
        raise InputError(f"blink '{blink}': expected natural, none, clip or a closure from 0 to 1") from None
    if not 0 <= closure <= 1:
        raise InputError(f"blink {closure:g}: expected a closure from 0 (open) to 1 (closed)")
    return lambda numbers, poses, moved: np.full((len(numbers), 2), closure, np.float32)


def _control_offsets(avatar: Avatar, controls: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of the named controls: expression ``[K]``, eyelids ``[2]``, gaze ``[2, 2]``."""
    total = [np.zeros(avatar.rig.n_expression, np.float32), np.zeros(2, np.float32), np.zeros((2, 2), np.float32)]
    for name, amount in controls.items():
        deltas = avatar.rig.control(name, amount)
        for i, key in enumerate(("expression", "eyelids", "gaze")):
            total[i] = total[i] + deltas[key].cpu().numpy()
    return tuple(total)


def _styled(avatar: Avatar, style: str | Path | None) -> Any:
    """The avatar's driver with the style asked for.

    Raises:
        InputError: a style without a prior that has styles, or an unreadable file.
    """
    from adapt.drivers.driving import PriorDriver

    if style is None or str(style) == "own":
        return avatar.driver
    if not isinstance(avatar.driver, PriorDriver):
        raise InputError(
            f"style '{style}': this avatar speaks by {avatar.driver.name}, which has no styles; adapt with one"
        )
    if str(style) == "mean":
        return avatar.driver.with_style(None)
    path = Path(str(style))
    if path.suffix != ".npy" or not path.is_file():
        raise InputError(f"style '{style}': expected own, mean or an .npy file with a style vector")
    return avatar.driver.with_style(np.load(path, allow_pickle=False).astype(np.float32))
