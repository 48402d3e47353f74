"""``export``: an avatar's head as a file that other programs open, one moment of it or speaking."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import torch

from adapt.avatar.avatar import Avatar, load_avatar
from adapt.avatar.export.axes import checked_axes, moved
from adapt.avatar.export.cloud import MEAN_EYE_DISTANCE, Cloud
from adapt.avatar.export.ply import AXES as PLY_AXES
from adapt.avatar.export.registry import animated_suffixes, animates, format_of
from adapt.avatar.export.sequence import DOCUMENT as SEQUENCE
from adapt.avatar.export.sequence import write_frames
from adapt.avatar.provenance import Provenance
from adapt.marking.certificates import load_credentials
from adapt.marking.finished import sign_export
from adapt.marking.sign import SIDECAR_SUFFIX, sidecar_of
from adapt.outputs import claim
from adapt.talk.level import gain_for
from adapt.talk.options import check_sound, parse_controls
from adapt.talk.poses import ClipPoses, FixedPose, GeneratedPoses, PoseSource, still_pose
from adapt.talk.talker import Motion, Talker
from cluster.storage.staging import staged
from configs import InputError
from heads.geometry.rotation import euler_to_rotation
from heads.person.inputs import TRACK_CONTEXT, TRACKED, HeadInputs, head_inputs
from shards.media.rates import FPS
from shards.media.sound import stream_audio

POSES = ("still", "clip", "generated")


class Exported(TypedDict):
    """The file or folder, its format and axes, Gaussians per frame, number of frames, and total bytes."""

    out: str
    format: str
    axes: str
    gaussians: int
    frames: int
    bytes: int


@staged(
    reads=("avatar", "audio", "style"),
    writes="out",
    mark=lambda given: SEQUENCE if given["as_frames"] else None,
    sidecar=SIDECAR_SUFFIX,
)
def export(
    avatar: str | Path,
    out: str | Path,
    *,
    as_frames: bool = False,
    frame: int | None = None,
    audio: str | Path | None = None,
    controls: Iterable[str] | Mapping[str, float] | None = None,
    yaw: float | None = None,
    pitch: float | None = None,
    roll: float | None = None,
    pose: str = "still",
    blink: str | float = "natural",
    style: str | Path | None = None,
    axes: str | None = None,
    device: str = "cpu",
    prior: str | Path | None = None,
    seed: int = 0,
    sign: tuple[str | Path, str | Path] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write an avatar's head in the format that the suffix of ``out`` names.

    Args:
        avatar: the avatar's folder; this, ``audio``, ``style`` and ``out`` may be ``s3://`` URLs.
        out: ``.ply``, ``.glb``, ``.spz``, ``.usdc`` or ``.usdz``; a folder with ``as_frames``.
        as_frames: write a folder of ``.ply`` files, one per frame of ``audio``, or of the training clip without one.
        frame: a frame of the clip that the avatar was adapted to; ``None`` is the neutral head.
        audio: let the head speak: time samples of a USD file, or the frames of a folder.
        controls: ``["smile=0.4"]`` or a mapping: the rig's named controls, added to every frame.
        yaw, pitch, roll: degrees by which the head is turned; it looks straight at the viewer without them.
        pose: how the head moves while it speaks: ``still``, ``clip`` or ``generated``.
        blink, style, prior, seed: as in ``talk``, for a speaking head.
        axes: ``opencv`` or ``opengl``; by default what the format's standard says.
        sign: certificate chain and private key (PEM files) for a signed manifest beside the file, ``FILE.c2pa``; by
            default those that ``HEADSTART_SIGN_CERT`` and ``HEADSTART_SIGN_KEY`` name, if they are set.
        overwrite: replace an existing file, or a folder of frames.

    Returns:
        See :class:`Exported`.

    Raises:
        InputError: an unknown suffix, option or frame, audio for a format that holds one frame, or no sound.
    """
    chosen = None if as_frames else format_of(out)
    axes = checked_axes(axes, PLY_AXES if chosen is None else chosen.AXES)
    _check_motion(out, chosen, audio, frame, pose)
    out = claim(out, overwrite=overwrite, mark=SEQUENCE if as_frames else None)
    if audio is not None:
        check_sound(audio)
    credentials = load_credentials(*(sign or ()))
    opened = load_avatar(avatar, device, prior=prior, speaks=audio is not None)
    given = parse_controls(controls)
    turn = _turn(yaw, pitch, roll)
    made = opened.provenance("" if audio is None else Path(str(audio)).name)
    if audio is not None:
        clouds = spoken_clouds(opened, audio, pose=pose, blink=blink, controls=given, style=style, seed=seed)
    elif as_frames:
        clouds = (still_cloud(opened, i, given) for i in range(len(opened.track["rotation"])))
    else:
        clouds = iter([still_cloud(opened, frame, given)])
    clouds = (cloud if turn is None else moved(cloud, turn) for cloud in clouds)
    first = next(clouds, None)
    if first is None:
        raise InputError(f"{audio}: shorter than one frame (40 ms); give a longer sound")
    count = _write(chosen, out, first, clouds, _record(made), axes)
    # A manifest left from an earlier file would report this one as altered.
    sidecar_of(out).unlink(missing_ok=True)
    if credentials is not None:
        sign_export(out, credentials, opened, made)
    return {
        "out": str(out),
        "format": "ply frames" if chosen is None else Path(out).suffix.lower()[1:],
        "axes": axes,
        "gaussians": first.n,
        "frames": count,
        "bytes": sum(path.stat().st_size for path in (out.iterdir() if out.is_dir() else [out])),
    }


def _check_motion(out: str | Path, chosen: object, audio: object, frame: int | None, pose: str) -> None:
    """Refuse options that contradict each other.

    Raises:
        InputError: says which.
    """
    if pose not in POSES:
        raise InputError(f"pose '{pose}': expected {', '.join(POSES)}")
    if audio is not None and chosen is not None and not animates(chosen):
        raise InputError(
            f"output '{out}': this format stores a single frame; --audio needs {' or '.join(animated_suffixes())}, "
            "or --frames DIR for a folder of .ply files"
        )
    if frame is not None and (audio is not None or chosen is None):
        other = "--audio" if audio is not None else "--frames"
        raise InputError(f"--frame and {other} contradict each other: one moment, or many")
    if pose != "still" and audio is None:
        raise InputError(f"--pose {pose} moves a speaking head; give --audio too, or turn the head with --yaw")


def _record(made: Provenance) -> dict[str, object]:
    """What the file says about itself."""
    return {**made.as_dict(), "statement": made.statement().replace("Synthetic video", "Synthetic head")}


def _turn(yaw: float | None, pitch: float | None, roll: float | None) -> np.ndarray | None:
    """The rotation ``[3, 3]`` of the angles that are given, ``None`` without any."""
    angles = [angle or 0.0 for angle in (yaw, pitch, roll)]
    if any(not abs(angle) <= 180 for angle in angles):
        raise InputError(f"angle {max(angles, key=abs):g}: expected degrees from -180 to 180")
    return euler_to_rotation(*(np.radians([angle]) for angle in angles))[0] if any(angles) else None


def _write(chosen: Any, out: Path, first: Cloud, rest: Iterator[Cloud], record: Mapping[str, object], axes: str) -> int:
    """Write a still or a sequence; the number of frames."""
    if chosen is None:
        return write_frames(out, itertools.chain([first], rest), record, axes, fps=FPS, replace=True)
    if animates(chosen):
        return chosen.write_sequence(out, itertools.chain([first], rest), record, axes, fps=FPS)
    chosen.write(out, first, record, axes)
    return 1


# --- clouds of an avatar --------------------------------------------------------------------------------------------


@torch.no_grad()
def still_cloud(avatar: Avatar, frame: int | None = None, controls: Mapping[str, float] | None = None) -> Cloud:
    """One moment of the head in head space, metres.

    Args:
        frame: of the training clip; ``None`` is the neutral head.
        controls: amounts by the names of the rig's controls.

    Raises:
        InputError: no such frame or control.
    """
    if not controls:
        return Cloud.of_head(avatar.gaussians(frame))
    if frame is not None:
        avatar.gaussians(frame)  # refuses a frame that is not there
    rows = _moment(avatar, frame)
    for name, amount in controls.items():
        for key, delta in avatar.rig.control(name, amount).items():
            rows[key] = rows[key] + delta.cpu().numpy()
    rows["eyelids"] = np.clip(rows["eyelids"], 0, 1)
    # The frame is repeated as its own neighbours, which the inputs' vectors contain.
    window = {name: np.repeat(row[None].astype(np.float32), 2 * TRACK_CONTEXT + 1, 0) for name, row in rows.items()}
    return Cloud.of_head(avatar.model.gaussians(head_inputs(window, avatar.device, cut=TRACK_CONTEXT)))


def _moment(avatar: Avatar, frame: int | None) -> dict[str, np.ndarray]:
    """What drives a frame; for ``None`` a face at rest in the clip's middle pose."""
    track = avatar.track
    if frame is not None:
        return {name: track[name][frame] for name in TRACKED}
    rows = {name: np.zeros_like(track[name][0]) for name in ("expression", "eyelids", "gaze")}
    pose = still_pose(track["rotation"], track["translation"])
    return {"rotation": track["rotation"][pose], "translation": track["translation"][pose], **rows}


def spoken_clouds(
    avatar: Avatar,
    audio: str | Path,
    *,
    pose: str = "still",
    blink: str | float = "natural",
    controls: Mapping[str, float] | None = None,
    style: str | Path | None = None,
    seed: int = 0,
) -> Iterator[Cloud]:
    """The head while it speaks ``audio``, 25 clouds per second, in metres; memory does not grow with the length.

    Args:
        pose: ``still`` leaves the head in head space; ``clip`` and ``generated`` move it about the clip's middle place.
    """
    talker = SpeakingHead(avatar, pose=pose, blink=blink, controls=controls, style=style, seed=seed)
    gain = gain_for(audio, avatar.document["clip"].get("level"))
    for block in stream_audio(audio):
        yield from cast("Iterator[Cloud]", talker.feed(gain * block))
    yield from cast("Iterator[Cloud]", talker.finish())


class SpeakingHead(Talker):
    """A :class:`Talker` that yields clouds instead of images."""

    def __init__(self, avatar: Avatar, *, pose: str = "still", seed: int = 0, **options: Any) -> None:
        rotation, translation = avatar.track["rotation"], avatar.track["translation"]
        sources: dict[str, Callable[[], PoseSource]] = {
            "still": lambda: FixedPose(rotation, translation),
            "clip": lambda: ClipPoses(avatar.track),
            "generated": lambda: GeneratedPoses(rotation, translation, seed),
        }
        super().__init__(avatar, poses=sources[pose](), seed=seed, **options)
        self.moves = pose != "still"
        self.place = translation[still_pose(rotation, translation)]

    @torch.no_grad()
    def _render(self, motion: Motion) -> list[Cloud]:  # type: ignore[override]
        drive = motion.drive.to(self.avatar.device)
        return [self._cloud(drive.pick([i])) for i in range(len(drive))]

    def _cloud(self, drive: HeadInputs) -> Cloud:
        cloud = Cloud.of_head(self.avatar.model.gaussians(drive))
        if not self.moves:
            return cloud
        shift = (drive.translation[0].cpu().numpy() - self.place) * MEAN_EYE_DISTANCE
        return moved(cloud, drive.rotation[0].cpu().numpy(), shift)
