"""An avatar scored on frames of its person that no step saw, under both drives."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapt.avatar.avatar import Avatar
from adapt.avatar.folder import file_sha256
from adapt.clip import Clip, track_clip
from adapt.evaluate.drives import audio_drive, track_drive
from adapt.evaluate.measures.base import Tools
from adapt.evaluate.measures.registry import columns
from adapt.evaluate.scoring import Scorer
from adapt.evaluate.tools import sync_features
from adapt.marking.marker import Marker
from configs import InputError, progress
from configs.words import counted
from heads.measures.image import psnr
from heads.person.inputs import HeadInputs
from shards.features import open_feature
from shards.media.encode import VideoWriter, as_uint8
from shards.media.probe import video_info
from shards.media.rates import FPS
from shards.tracking.body import SIDE, head_beside, outline_beside
from shards.tracking.options import Behind

BATCH = 8
STARTS = 12  # places of the background in the avatar's clip at which that of the first test frame is looked for · guess
MASKS = ("face", "head", "mouth_inside")
# What is behind the rendered head, by protocol, as metrics.json and the page say it.
PROTOCOLS = {
    "own": "rendered: body and background are the avatar's own body layer",
    "paper": "the head is rendered; body and background outside the head region are the test frame's own, as in the papers' scores",
}


def test_range(avatar: Avatar, video: str | Path, start: float | None) -> tuple[int, int]:
    """First test frame and number of test frames; by default those after the training part.

    Raises:
        InputError: nothing is left to test on.
    """
    total = video_info(video).frames
    trained = avatar.document["clip"]["frames"] if _same_video(avatar, video) else 0
    if start is not None and not 0 <= start < math.inf:
        raise InputError(f"--from {start:g}: expected the number of seconds, from 0 on, at which the test begins")
    first = trained if start is None else round(start * FPS)
    if total - first < 3:
        raise InputError(
            f"{video}: {counted(max(0, total - first), 'frame is', 'frames are')} left from frame {first} on, too few to test; "
            "give another --from, or adapt with a smaller --seconds"
        )
    return first, total - first


def _same_video(avatar: Avatar, video: str | Path) -> bool:
    return avatar.document["provenance"].get("video_sha256") == file_sha256(video)


def score_avatar(avatar: Avatar, video: str | Path, first: int, folder: Path, tools: Tools) -> dict[str, Any]:
    """Both drives' scores of an avatar on a video's frames from ``first`` on; ``folder`` takes the videos."""
    count = video_info(video).frames - first
    return scored(avatar, video, first, count, folder, tools)[0]


def scored(
    avatar: Avatar, video: str | Path, first: int, count: int, folder: Path, tools: Tools, protocol: str = "own"
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """:func:`score_clip` on ``count`` frames of a video from ``first`` on."""
    with track_test(avatar, video, first, count) as clip:
        return score_clip(avatar, clip, tools, folder, protocol=protocol)


def track_test(avatar: Avatar, video: str | Path, first: int, count: int) -> Clip:
    """Test frames tracked with the training frames' crop and shape."""
    trained = avatar.document["clip"]
    x0, y0, x1, y1 = (int(v) for v in trained["crop_box"])
    return track_clip(
        video,
        start=first,
        frames=count,
        size=avatar.size,
        crop_box=(x0, y0, x1, y1),
        identity=np.array(trained["identity"], np.float32),
        feature=open_feature(avatar.document["features"]),
        rig=avatar.rig.source,
        # For the same recording, the offset estimated from its longer part; earlier versions did not move the sound.
        av_offset=trained.get("av_offset", 0.0) if _same_video(avatar, video) else None,
        behind=_behind(avatar),
        refine=avatar.texture is not None,
        texture=avatar.texture,
    )


def _behind(avatar: Avatar) -> Behind:
    """What torso and background of test frames are registered to: the avatar's own body layer and background."""
    track, backdrop, body, background = avatar.track, avatar.model.backdrop, None, None
    if "body" in track:
        clip = track["landmarks"], track["body"], avatar.size
        body = replace(backdrop.reference(SIDE), guide=head_beside(*clip), outline=outline_beside(*clip))
    if "background" in track:
        places = np.linspace(0, len(track["background"]) - 1, STARTS).astype(int)
        starts = torch.from_numpy(track["background"][places].astype(np.float32)).view(-1, 2, 3)
        background = replace(backdrop.background_reference(SIDE), starts=starts)
    return Behind(body, background)


def score_clip(
    avatar: Avatar,
    clip: Clip,
    tools: Tools,
    folder: Path | None = None,
    pictures: int | None = None,
    protocol: str = "own",
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Both drives' scores on tracked test frames, and what the page shows of each.

    Args:
        folder: receives the side-by-side videos; ``None``: none are written.
        pictures: largest number of frames, evenly spread, for the per-image measures; landmarks and lips are measured
            in all frames.
        protocol: one of :data:`PROTOCOLS`.
    """
    drives, page = {}, []
    for name in ("track", "audio"):
        drives[name], part = _drive_scores(avatar, clip, name, folder, tools, pictures, protocol)
        page.append(part)
    return drives, page


def _drive_scores(
    avatar: Avatar, clip: Clip, name: str, folder: Path | None, tools: Tools, pictures: int | None, protocol: str
) -> tuple[dict[str, object], dict[str, object]]:
    """Render the clip's frames under a drive, score them and write the side-by-side video."""
    drive, reason = (track_drive if name == "track" else audio_drive)(avatar, clip)
    if drive is None:
        return _absent(reason), {"name": name, "fps": 0.0, "curves": {}, "eyes": {}, "picked": [], "video": None}
    every = 1 if pictures is None else -(-len(clip) // pictures)
    scorer = Scorer(tools, len(clip), every)
    following, spent = _Following(), 0.0
    path = None if folder is None else folder / f"{name}.mp4"
    with _writer(path, avatar, clip.size, name) as writer:
        for rows in progress.tracked(_batches(len(clip)), f"scoring, {name} drive", -(-len(clip) // BATCH), "batches"):
            reals = clip.frames(rows)
            masks = {key: mask for key, mask in clip.masks(rows).items() if key in MASKS}
            begin = time.monotonic()
            if protocol == "paper":
                rendered = avatar.render(drive.pick(rows), background="original", original=reals, head=masks["head"])
            else:
                rendered = avatar.render(drive.pick(rows))
            spent += time.monotonic() - begin
            mattes = clip.mattes(rows)
            if protocol == "own":
                masks["body"] = mattes * (1 - masks["head"])
                following.add(avatar, drive.pick(rows), reals, masks["body"], rows % every == 0)
            masks["head"] = masks["head"] * np.maximum(mattes, masks["face"])
            scorer.add(rendered, reals, clip.track["landmarks"][rows], masks)
            for real, picture in zip(reals, rendered):
                if writer is not None:
                    writer.write(np.concatenate([real, (picture * 255 + 0.5).astype(np.uint8)], 1))
    silent = "the clip has no sound"
    features = sync_features(tools.sync, clip.audio, len(clip)) if clip.has_sound else silent
    sound = clip.audio if clip.has_sound else silent
    scores = scorer.result(features, sound)
    if following.psnr:
        scores["without_body_track"] = following.result()
    if name == "track" and avatar.model.uses_audio:
        scores["note"] = "this recipe is driven by sound: the track drive gives it the test sound, eyelids and pose"
    page = {
        "name": name,
        "fps": len(clip) / max(spent, 1e-9),
        "curves": scorer.curves(),
        "eyes": scorer.eye_curves(),
        "picked": scorer.picked,
        "video": path,
    }
    return scores, page


class _Following:
    """PSNR of the same frames with a body that follows the head over a still background, instead of both following their tracks."""

    def __init__(self) -> None:
        self.psnr: list[float] = []
        self.psnr_body: list[float] = []

    def add(
        self, avatar: Avatar, drive: HeadInputs, reals: np.ndarray, bodies: np.ndarray, measured: np.ndarray
    ) -> None:
        """Render and score a batch; nothing without such a track.

        Args:
            reals: ``[T, H, W, 3]`` uint8; bodies: ``[T, H, W]`` in [0, 1].
            measured: ``[T]`` bool, the frames to score.
        """
        if (drive.body is None and drive.background is None) or not measured.any():
            return
        chosen = np.flatnonzero(measured)
        pictures = as_uint8(avatar.render(drive.pick(chosen).with_(body=None, background=None)))
        for picture, real, body in zip(pictures, reals[chosen], bodies[chosen]):
            ours, true = picture.astype(np.float32) / 255, real.astype(np.float32) / 255
            self.psnr.append(psnr(ours, true))
            if body.any():
                self.psnr_body.append(psnr(ours, true, body))

    def result(self) -> dict[str, float | None]:
        """Means in dB: ``psnr`` and ``psnr_body``, which is ``None`` if no body was in view."""
        return {
            "psnr": float(np.mean(self.psnr)),
            "psnr_body": float(np.mean(self.psnr_body)) if self.psnr_body else None,
        }


def whole_frame(protocol: str, plain: Mapping[str, float | None] | None) -> str:
    """What is behind the rendered head, and what moves it, as ``metrics.json`` and the page say it.

    Args:
        plain: ``without_body_track`` of the drive ``track``; ``None`` where neither body nor background has a track.
    """
    if plain is None:
        return PROTOCOLS[protocol]
    body = "" if plain["psnr_body"] is None else f" and {plain['psnr_body']:.2f} dB on the body"
    return (
        f"{PROTOCOLS[protocol]}; the torso's pose is that of the test frames, as the head's is, and the background's if the "
        f"camera moves (drive 'track' with a body that follows the head and a still background instead: "
        f"{plain['psnr']:.2f} dB on the whole frame{body})"
    )


def _writer(path: Path | None, avatar: Avatar, size: int, name: str) -> AbstractContextManager[VideoWriter | None]:
    if path is None:
        return nullcontext()
    provenance = avatar.provenance(name)
    marker = Marker(provenance.avatar_sha256)
    tags = replace(provenance, **marker.fields()).tags()
    return VideoWriter(path, 2 * size, size, tags=tags, crf=20, mark=marker)


def _batches(count: int) -> Iterator[np.ndarray]:
    for first in range(0, count, BATCH):
        yield np.arange(first, min(count, first + BATCH))


def _absent(reason: str) -> dict[str, object]:
    return {**dict.fromkeys(columns()), "null_reasons": dict.fromkeys(columns(), reason)}
