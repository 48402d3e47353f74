"""``evaluate``: one protocol for every recipe and for any other method's video; ``metrics.json`` and a report page.

Protocol (DESIGN 9): the avatar was trained on the first part of a clip, the test is the rest. Two drives, always
both: ``track`` (expression and pose tracked from the test frames: rendering alone) and ``audio`` (expression from the
test sound, pose from the test frames: the whole system). Every pixel that counts was made by the avatar: the body
is its own body layer, never the test frame's.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapt.avatar.avatar import Avatar, load_avatar
from adapt.avatar.provenance import Provenance
from adapt.avatar.video import FPS, VideoWriter, read_frames, video_info
from adapt.clip import Clip, track_clip
from adapt.drivers.driving import Bounds
from adapt.drivers.driving import drive as drive_by_sound
from adapt.evaluate import metrics, report
from adapt.evaluate.scoring import NO_SYNCNET, Scorer
from adapt.hearing import open_feature
from adapt.models.drive import DRIVEN, Drive, drive_of, feature_windows
from adapt.outputs import claim
from cluster.storage.staging import staged
from configs import InputError
from configs.machine import commit, device_name

BATCH = 8
MASKS = ("face", "head", "mouth_inside")


@staged(reads=("avatar", "video", "frames", "against"), writes="out")
def evaluate(
    avatar: str | Path | None = None,
    video: str | Path | None = None,
    out: str | Path = "evaluation",
    *,
    start: float | None = None,
    frames: str | Path | None = None,
    against: str | Path | None = None,
    ablations: bool = False,
    lpips: str | None = None,
    sync: str | Path | None = None,
    syncnet: str | Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Score an avatar on unseen frames of its person, or any video against the true one.

    Args:
        avatar, video: an avatar and the clip that it was made from (or another of the same person and framing);
            these, ``out``, ``frames`` and ``against`` may be ``s3://`` URLs.
        start: test from this second on; by default from where training ended.
        frames, against: instead of an avatar: a video of any method, and the true one, frame for frame.
        ablations: adapt again without each prior and part (same budget) and add the table of their scores.
        lpips: ``backbone.pth,linear.pth``: weights for LPIPS; without them it is null.
        sync: a sync-expert prior for Sync-C and Sync-D; by default the registry's champion, where there is one.
        syncnet: weights of the original SyncNet (``syncnet_v2.model``), for its own Sync-C and Sync-D beside ours.

    Returns:
        what ``metrics.json`` says, and ``report``: the page's path.

    Raises:
        InputError: wrong or contradicting inputs; ``out`` exists.
    """
    external = frames is not None or against is not None
    if external and (frames is None or against is None):
        raise InputError("--frames and --against belong together: the video to score and the true one")
    if external and avatar is not None:
        raise InputError("give either an avatar and its video, or --frames and --against, not both")
    if not external and (avatar is None or video is None):
        raise InputError("evaluate needs an avatar and a video, or --frames VIDEO --against VIDEO")
    if external and ablations:
        raise InputError("--ablations adapts avatars anew: it needs an avatar and its video, not --frames")
    out = claim(out, overwrite=overwrite)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        tools = Tools.make(lpips, sync, avatar, syncnet)
        if external:
            result = _evaluate_external(Path(str(frames)), Path(str(against)), partial, tools)
        else:
            result = _evaluate_avatar(avatar, video, partial, start, device, tools)
            if ablations:
                from adapt.evaluate.ablations import run_ablations

                result["ablations"] = run_ablations(avatar, video, result, start=start, device=device, tools=tools)
        _write(partial, result)
        if out.exists():
            shutil.rmtree(out)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    result.pop("_page")
    return {**result, "report": str(out / "report.html")}


@dataclass
class Tools:
    """What scoring needs beside pictures: landmark detector, LPIPS, sync experts (or why they are absent)."""

    detect: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    lpips: Callable[[np.ndarray, np.ndarray], float] | str
    sync: Any | str
    syncnet: Any | str = NO_SYNCNET

    @classmethod
    def make(
        cls,
        lpips: str | None,
        sync: str | Path | None,
        avatar: str | Path | None,
        syncnet: str | Path | None = None,
    ) -> Tools:
        """Open what there is.

        Raises:
            InputError: given weights that cannot be used.
        """
        from shards.tracking import detect_landmarks

        return cls(detect_landmarks, _open_lpips(lpips), _open_sync(sync), _open_syncnet(syncnet))


def _open_lpips(weights: str | None) -> Callable[[np.ndarray, np.ndarray], float] | str:
    if weights is None:
        return "no weights given: pass the backbone's and LPIPS's own files (lpips=BACKBONE,LINEAR)"
    from adapt.fit.losses import lpips_of

    network = lpips_of(weights)

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        with torch.no_grad():
            return float(network(torch.from_numpy(a), torch.from_numpy(b)))

    return distance


def _open_sync(uri: str | Path | None) -> Any | str:
    from pretrain import load_prior

    if uri is None:
        from adapt.priors import champion

        folder = champion("models:/sync-expert@champion")
        if folder is None:
            return "no sync expert: none given and none registered as champion"
        uri = folder
    expert = load_prior(uri)
    if expert.info["prior"] != "sync-expert":
        raise InputError(f"sync '{uri}': is a {expert.info['prior']} prior, expected a sync-expert")
    return expert


def _open_syncnet(weights: str | Path | None) -> Any | str:
    if weights is None:
        return NO_SYNCNET
    from pretrain.sync_expert.syncnet import SyncNet

    return SyncNet.open(weights)


# --- an avatar ------------------------------------------------------------------------------------------------------


def _evaluate_avatar(
    avatar: str | Path, video: str | Path, folder: Path, start: float | None, device: str, tools: Tools
) -> dict[str, Any]:
    opened = load_avatar(avatar, device)
    first, count = test_range(opened, video, start)
    drives, page = _scored(opened, video, first, count, folder, tools)
    return {
        "drives": drives,
        "fps": round(page[0]["fps"], 2),
        "adapt_seconds": opened.document["metrics"].get("adapt_seconds"),
        "frames": len(page[0]["curves"]["real"]) if page[0]["curves"] else count,
        "size": opened.size,
        "device": device_name(opened.device),
        "commit": commit(),
        "whole_frame": "rendered: body and background are the avatar's own body layer",
        "recipe": opened.document["recipe"],
        "prior": opened.document["prior"],
        "driver": opened.driver.name,
        "test": {"video": Path(str(video)).name, "first_frame": first, "frames": count},
        "_page": {"title": f"{opened.name}: {opened.document['recipe']}", "parts": page},
    }


def score_avatar(avatar: Avatar, video: str | Path, first: int, folder: Path, tools: Tools) -> dict[str, Any]:
    """Both drives' scores of an avatar on a video's frames from ``first`` on; ``folder`` takes the videos."""
    count = round(video_info(video)["seconds"] * FPS) - first
    return _scored(avatar, video, first, count, folder, tools)[0]


def _scored(
    avatar: Avatar, video: str | Path, first: int, count: int, folder: Path, tools: Tools
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    with track_test(avatar, video, first, count) as clip:
        return score_clip(avatar, clip, tools, folder)


def track_test(avatar: Avatar, video: str | Path, first: int, count: int) -> Clip:
    """Test frames tracked with the training frames' crop and shape."""
    trained = avatar.document["clip"]
    return track_clip(
        video,
        start=first,
        frames=count,
        size=avatar.size,
        crop_box=tuple(trained["crop_box"]),
        identity=np.array(trained["identity"], np.float32),
        feature=open_feature(avatar.document["features"]),
    )


def score_clip(
    avatar: Avatar, clip: Clip, tools: Tools, folder: Path | None = None, pictures: int | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Both drives' scores on tracked test frames, and what the page shows of each.

    Args:
        folder: takes the side-by-side videos; none are written without.
        pictures: at most so many frames, evenly spread, for the measures of single pictures; landmarks and lips are
            looked at in all of them.
    """
    drives, page = {}, []
    for name in ("track", "audio"):
        drives[name], part = _drive_scores(avatar, clip, name, folder, tools, pictures)
        page.append(part)
    return drives, page


def test_range(avatar: Avatar, video: str | Path, start: float | None) -> tuple[int, int]:
    """First frame and number of the test frames.

    Raises:
        InputError: nothing is left to test on.
    """
    info = video_info(video)
    total = round(info["seconds"] * FPS)
    trained = avatar.document["clip"]["frames"] if _same_video(avatar, video) else 0
    first = trained if start is None else round(start * FPS)
    if first < 0 or total - first < 3:
        raise InputError(
            f"{video}: {max(0, total - first)} frames are left from frame {first} on, too few to test; "
            "give another --from, or adapt with a smaller --seconds"
        )
    return first, total - first


def _same_video(avatar: Avatar, video: str | Path) -> bool:
    from adapt.avatar.folder import file_sha256

    return avatar.document["provenance"].get("video_sha256") == file_sha256(video)


def _drive_scores(
    avatar: Avatar, clip: Clip, name: str, folder: Path | None, tools: Tools, pictures: int | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Render the clip's frames under a drive, score them and write the side-by-side video."""
    drive, reason = (track_drive if name == "track" else audio_drive)(avatar, clip)
    if drive is None:
        return _absent(reason), {"name": name, "fps": 0.0, "curves": {}, "eyes": {}, "picked": [], "video": None}
    every = 1 if pictures is None else -(-len(clip) // pictures)
    scorer = Scorer(tools.detect, tools.lpips, tools.sync, len(clip), every, syncnet=tools.syncnet)
    spent = 0.0
    path = None if folder is None else folder / f"{name}.mp4"
    with _writer(path, avatar, clip.size, name) as writer:
        for rows in _batches(len(clip)):
            begin = time.monotonic()
            rendered = avatar.render(drive.pick(rows))
            spent += time.monotonic() - begin
            reals = clip.frames(rows)
            masks = {key: mask for key, mask in clip.masks(rows).items() if key in MASKS}
            masks["head"] = masks["head"] * np.maximum(clip.mattes(rows), masks["face"])
            scorer.add(rendered, reals, clip.track["landmarks"][rows], masks)
            for real, picture in zip(reals, rendered) if writer is not None else ():
                writer.write(np.concatenate([real, (picture * 255 + 0.5).astype(np.uint8)], 1))
    features = clip.features() if clip.has_sound else "the clip has no sound"
    sound = clip.audio if clip.has_sound else features
    scores = scorer.result(features, sound)
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


def _writer(path: Path | None, avatar: Avatar, size: int, name: str) -> AbstractContextManager[VideoWriter | None]:
    if path is None:
        return nullcontext()
    return VideoWriter(path, 2 * size, size, provenance=avatar.provenance(name), crf=20)


def _batches(count: int) -> Iterator[np.ndarray]:
    for first in range(0, count, BATCH):
        yield np.arange(first, min(count, first + BATCH))


def _absent(reason: str) -> dict[str, Any]:
    names = [*report.MEASURES]
    return {**dict.fromkeys(names), "null_reasons": dict.fromkeys(names, reason)}


def track_drive(avatar: Avatar, clip: Clip) -> tuple[Drive | None, str]:
    """Expression and pose as tracked in the test frames."""
    drive = drive_of({name: clip.track[name] for name in DRIVEN}, avatar.device)
    return _with_sound(avatar, clip, drive)


def audio_drive(avatar: Avatar, clip: Clip) -> tuple[Drive | None, str]:
    """Expression from the test sound; pose, eyelids and gaze from the test frames, which no sound tells."""
    if not clip.has_sound:
        return None, "the test part of the clip has no sound"
    moved = drive_by_sound(avatar.driver, clip.features())
    track = {name: clip.track[name].copy() for name in DRIVEN}
    track["expression"] = Bounds(avatar.track["expression"])(moved["expression"][: len(clip)])
    return _with_sound(avatar, clip, drive_of(track, avatar.device))


def _with_sound(avatar: Avatar, clip: Clip, drive: Drive) -> tuple[Drive | None, str]:
    if not avatar.model.uses_audio:
        return drive, ""
    if not clip.has_sound:
        return None, "the recipe is driven by sound and the test part of the clip has none"
    rows = torch.from_numpy(clip.features()).to(avatar.device)
    frames = torch.arange(len(clip), device=avatar.device)
    return drive.with_(features=feature_windows(rows, frames)), ""


# --- any video ------------------------------------------------------------------------------------------------------


def _evaluate_external(frames: Path, against: Path, folder: Path, tools: Tools) -> dict[str, Any]:
    size = video_info(against)
    ours = video_info(frames)
    if (ours["width"], ours["height"]) != (size["width"], size["height"]):
        raise InputError(
            f"{frames} is {ours['width']}x{ours['height']} px and {against} {size['width']}x{size['height']}; "
            "score frames of the same size and framing"
        )
    if not against.is_file():
        raise InputError(f"{against}: no such file")
    expected = max(1, min(ours["frames"], size["frames"]))
    scorer = Scorer(tools.detect, tools.lpips, tools.sync, expected, syncnet=tools.syncnet)
    count, path = 0, folder / "external.mp4"
    provenance = Provenance.make(avatar=f"frames of {frames.name}", recipe="external")
    with VideoWriter(path, 2 * size["width"], size["height"], provenance=provenance, crf=20) as writer:
        for pictures, reals in _pairs(frames, against):
            landmarks, valid = tools.detect(reals)
            if not valid.all():
                raise InputError(
                    f"{against}: no face in frame {count + int(np.argmin(valid))}; cut the video to speech"
                )
            scorer.add(pictures.astype(np.float32) / 255.0, reals, landmarks, _face_masks(landmarks, reals.shape))
            count += len(pictures)
            for picture, real in zip(pictures, reals):
                writer.write(np.concatenate([real, picture], 1))
    if not count:
        raise InputError(f"{frames}: holds no frames to score")
    scores = scorer.result(*_external_sound(against, count))
    return {
        "drives": {"external": scores},
        "fps": None,
        "adapt_seconds": None,
        "frames": count,
        "size": size["width"],
        "device": device_name(torch.device("cpu")),
        "commit": commit(),
        "whole_frame": "as found in the video: how its body was made is unknown",
        "test": {"video": against.name, "frames_of": frames.name, "frames": count},
        "_page": {
            "title": f"{frames.name} against {against.name}",
            "parts": [
                {
                    "name": "external",
                    "fps": 0.0,
                    "curves": scorer.curves(),
                    "eyes": scorer.eye_curves(),
                    "picked": scorer.picked,
                    "video": path,
                }
            ],
        },
    }


def _pairs(frames: Path, against: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames of both videos in batches, up to the end of the shorter."""
    held: list[tuple[np.ndarray, np.ndarray]] = []
    for pair in zip(read_frames(frames), read_frames(against)):
        held.append(pair)
        if len(held) == BATCH:
            yield np.stack([p[0] for p in held]), np.stack([p[1] for p in held])
            held = []
    if held:
        yield np.stack([p[0] for p in held]), np.stack([p[1] for p in held])


def _face_masks(landmarks: np.ndarray, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    from heads.masks import region_masks

    return region_masks(landmarks, shape[1], shape[2], MASKS)


def _external_sound(video: Path, count: int) -> tuple[np.ndarray, np.ndarray] | tuple[str, str]:
    """Log-mel rows and sound of the first ``count`` frames, or why there are none."""
    from shards.features import extract_features
    from shards.media.sound import read_audio

    if not video_info(video)["audio"]:
        return ("the true video has no sound",) * 2
    sound = read_audio(video)
    rows = extract_features("logmel", sound)
    return np.pad(rows, ((0, max(0, count - len(rows))), (0, 0)), mode="edge")[:count], sound[: count * 640]


# --- results --------------------------------------------------------------------------------------------------------


def _write(folder: Path, result: dict[str, Any]) -> None:
    page = result["_page"]
    record = {key: value for key, value in result.items() if key != "_page"}
    (folder / "metrics.json").write_text(json.dumps(_finite(record), indent=2) + "\n")
    sheets, curves, videos = [], [], []
    for part in page["parts"]:
        sheets += _sheets(part)
        curves += _curves(part)
        if part["video"] is not None:
            caption = f"real (left), rendered (right): {part['name']} drive"
            videos.append({"data": report.video_data(part["video"]), "caption": caption})
    drives = result["drives"]
    report.write_report(
        folder / "report.html",
        title=page["title"],
        subtitle=f"{result['frames']} unseen frames at {result['size']} px. {result['whole_frame']}.",
        videos=videos,
        columns=list(drives),
        rows=report.table_rows(drives),
        reasons=_reasons(drives),
        facts=_facts(record),
        sheets=sheets,
        curves=curves,
        ablations=report.ablation_rows(result.get("ablations", [])),
        footer="Frames marked 'rendered' are synthetic.",
    )


def _finite(value: Any) -> Any:
    """NaN is no JSON: it becomes null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value


def _reasons(drives: dict[str, Any]) -> dict[str, str]:
    """Why measures are absent, by their labels; the drive is named where they differ."""
    found: dict[str, str] = {}
    for name, drive in drives.items():
        for measure, why in drive["null_reasons"].items():
            label = report.MEASURES.get(measure, (measure,))[0]
            everywhere = all(other["null_reasons"].get(measure) == why for other in drives.values())
            found[label if everywhere else f"{label} ({name})"] = why
    return found


def _facts(record: dict[str, Any]) -> dict[str, Any]:
    names = ("recipe", "driver", "adapt_seconds", "fps", "device", "commit")
    return {name.replace("_", " "): record[name] for name in names if record.get(name) is not None}


def _sheets(part: dict[str, Any]) -> list[dict[str, Any]]:
    picked = part["picked"]
    if not picked:
        return []
    errors = [report.error_colors(np.abs(p.picture / 255.0 - p.real / 255.0).mean(-1)) for p in picked]
    frames = report.contact_sheet([[p.real for p in picked], [p.picture for p in picked], errors])
    mouths = report.contact_sheet(
        [[_mouth(p.real, p.landmarks) for p in picked], [_mouth(p.picture, p.landmarks) for p in picked]]
    )
    numbers = ", ".join(str(p.index) for p in picked)
    return [
        {
            "title": f"Frames, {part['name']} drive",
            "caption": f"real, rendered, error (white: a quarter of the range or more); test frames {numbers}",
            "kind": "jpeg",
            "data": report.jpeg(frames),
        },
        {
            "title": f"Mouths, {part['name']} drive",
            "caption": "real above, rendered below",
            "kind": "jpeg",
            "data": report.jpeg(mouths),
        },
    ]


def _mouth(frame: np.ndarray, landmarks: np.ndarray, side: int = 160) -> np.ndarray:
    """A close-up around the lips."""
    from PIL import Image

    lips = landmarks[list(metrics.LIPS), :2]
    centre, half = lips.mean(0), 0.8 * np.ptp(lips[:, 0])
    box = tuple(float(v) for v in (*(centre - half), *(centre + half)))
    return np.asarray(
        Image.fromarray(frame).transform((side, side), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC)
    )


def _curves(part: dict[str, Any]) -> list[dict[str, str]]:
    curves = []
    for key, caption in (("curves", "lip gap over eye distance"), ("eyes", "eye opening, percent of the eye distance")):
        if part[key]:
            curves.append({"svg": report.curve_svg(part[key]), "caption": f"{caption}, {part['name']} drive"})
    return curves
