"""``talk``: any speech through an avatar into a video.

``talk`` pushes the sound through a :class:`adapt.talk.talker.Talker` block by block, so the streamed frames are those
of the offline video by construction, and memory does not grow with the sound.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from adapt.avatar.avatar import BACKGROUNDS, load_avatar
from adapt.drivers.arkit import arkit_map
from adapt.drivers.blendshapes import BlendshapeDriver, read_blendshapes
from adapt.marking.certificates import load_credentials
from adapt.marking.finished import sign_talk
from adapt.marking.marker import WITHOUT_WATERMARK, Marker
from adapt.outputs import claim
from adapt.talk.level import gain_for
from adapt.talk.options import check_sound, make_poses, parse_controls
from adapt.talk.talker import Talker
from cluster.storage.staging import staged
from configs import InputError, progress
from heads.raster.simd.compiling import compilations
from shards.media.encode import FrameFolderWriter, VideoWriter
from shards.media.inspect import FRAME_FOLDER
from shards.media.rates import SAMPLE_RATE
from shards.media.sound import stream_audio

# Length of the blocks in which sound is read, s.
BLOCK_SECONDS = 1.0


class Talked(TypedDict):
    """What :func:`talk` made.

    Attributes:
        video: the file or folder.
        frames: number of frames.
        fps: frames per second of processing, including audio and encoding.
        seconds: that processing took, without compiling kernels.
        driver: what moved the face.
        background: as requested or chosen.
        delay_seconds: delay of the stream behind its sound.
        stages: seconds by stage.
    """

    video: str
    frames: int
    fps: float
    seconds: float
    driver: str
    background: str
    delay_seconds: float
    stages: dict[str, float]


@staged(
    reads=("avatar", "audio", "pose_from", "style", "blendshapes"),
    writes="out",
    mark=lambda given: FRAME_FOLDER if given["background"] == "rgba" else None,
)
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
    blendshapes: str | Path | None = None,
    background: str | None = None,
    device: str = "auto",
    prior: str | Path | None = None,
    seed: int = 0,
    watermark: bool = True,
    label: str | None = None,
    sign: tuple[str | Path, str | Path] | None = None,
    overwrite: bool = False,
) -> Talked:
    """Make a video of an avatar that speaks an audio file.

    Args:
        avatar: its folder; this, ``audio``, ``out``, ``pose_from``, ``style`` and ``blendshapes`` may be ``s3://`` URLs.
        audio: WAV, FLAC, MP3 or a video; any sample rate, channels and length.
        out: an ``.mp4`` (H.264 + AAC); for ``background="rgba"`` a folder of PNG frames with the sound beside them.
        pose_from: a video (or another avatar) whose head poses to follow, forward and back.
        yaw, pitch, roll: degrees from -90 to 90; any of them fixes the head at that angle.
        pose: without the above: ``clip`` (the training clip's poses), ``generated`` or ``still``.
        blink: ``natural``, ``none``, ``clip`` (as in the training clip) or a fixed closure from 0 to 1.
        controls: ``["smile=0.4", "gaze_x=-0.5"]`` or a mapping: the rig's named controls.
        style: ``own``, ``mean``, or an ``.npy`` file with a style vector, if an audio-expression prior drives.
        blendshapes: 52 ARKit weights over time (``.csv`` of Live Link Face, ``.json`` of Audio2Face or LAM) that drive
            face, eyelids and gaze instead of the audio; the last weights are held, and ``blink`` has no effect.
        background: ``original`` (the clip's body and background through the inpainter; the default where the poses are
            the clip's own, frame for frame), ``model`` (the avatar's own body layer, which follows any pose; the default
            elsewhere), ``plain`` or ``rgba``.
        device: ``auto``, ``cpu``, ``cuda``, or another that torch knows.
        prior: new location of the avatar's audio-expression prior, if it was moved.
        seed: of blinks and generated poses.
        watermark: embed the imperceptible watermark in every frame (``docs/marking.md``).
        label: text of a visible label, such as ``AI``.
        sign: certificate chain and private key (PEM files) with which every file is signed (C2PA); by default those that
            ``HEADSTART_SIGN_CERT`` and ``HEADSTART_SIGN_KEY`` name, if they are set.
        overwrite: replace existing output.

    Returns:
        See :class:`Talked`.

    Raises:
        InputError: no sound, silence, a wrong option; nothing is left half-written.
    """
    own_poses = pose == "clip" and pose_from is None and yaw is None and pitch is None and roll is None
    background = background or ("original" if own_poses else "model")
    if background not in BACKGROUNDS:
        raise InputError(f"background '{background}': expected one of {', '.join(BACKGROUNDS)}")
    if background == "rgba":
        out = claim(out, overwrite=overwrite, mark=FRAME_FOLDER)
    else:
        out = claim(out, suffix=".mp4", overwrite=overwrite)
    check_sound(audio)
    credentials = load_credentials(*(sign or ()))
    weights = None if blendshapes is None else read_blendshapes(blendshapes)
    opened = load_avatar(avatar, device, prior=prior, speaks=weights is None)
    if weights is not None:
        if style is not None:
            raise InputError("--blendshapes and --style contradict each other: weights have no speaking style")
        opened.driver, blink = BlendshapeDriver(arkit_map(opened.rig), weights), "driver"
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
    marker = Marker(provenance.avatar_sha256, watermark=watermark, label=label)
    provenance = replace(provenance, **marker.fields())
    if not watermark:
        progress.say(WITHOUT_WATERMARK)
    start = time.monotonic()
    gain = gain_for(audio, opened.document["clip"].get("level")) if opened.driver.by_sound else 1.0
    if background == "rgba":
        writer: FrameFolderWriter | VideoWriter = FrameFolderWriter(
            out, tags=provenance.tags(), record=provenance.as_dict(), sound=audio, mark=marker
        )
    else:
        writer = VideoWriter(out, opened.size, opened.size, tags=provenance.tags(), sound=audio, mark=marker)
    with compilations() as compiled, progress.task("talking", unit="frames") as task, writer:
        for block in stream_audio(audio, round(BLOCK_SECONDS * SAMPLE_RATE)):
            _write(writer, talker, talker.feed(gain * block))
            task.update(talker.frames)
        _write(writer, talker, talker.finish())
        if not talker.frames:
            raise InputError(f"{audio}: shorter than one frame (40 ms); give a longer sound")
    if credentials is not None:
        sign_talk(out, credentials, opened, provenance, (Path(str(audio)),))
    spent = time.monotonic() - start - compiled.seconds
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


def _write(writer: FrameFolderWriter | VideoWriter, talker: Talker, frames: Iterator[np.ndarray]) -> None:
    for frame in frames:
        start = time.monotonic()
        writer.write(frame)
        talker.stages["write"] = talker.stages.get("write", 0.0) + time.monotonic() - start
