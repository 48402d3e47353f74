"""``evaluate``: one protocol for every recipe and for any other method's video; ``metrics.json`` and a report page.

Protocol: the avatar was trained on the first part of a clip, and the rest is the test. There are always two drives:
``track`` (expression and poses tracked from the test frames: rendering alone) and ``audio`` (expression from the test
sound; poses, eyelids and gaze from the test frames: the whole system). Poses are the head's and, if it was tracked in the
training frames, the torso's, and the background's if the camera moved; beside the scores stand those of a body that follows
the head over a still background (``without_body_track``). Every scored pixel was rendered by the avatar: the body is its own
body layer, never the test frame's. With ``protocol="paper"`` the head is scored over the test frame's own body and background,
as TalkingGaussian, FG-3DGS and InsTaG do.

Test frames are tracked as the training frames were: if those were refined on the pixels, against the training frames' texture.
``test.refined`` says so.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from adapt.avatar.avatar import load_avatar
from adapt.avatar.folder import file_sha256
from adapt.evaluate.ablations import run_ablations
from adapt.evaluate.avatars import PROTOCOLS, scored, test_range, whole_frame
from adapt.evaluate.external import evaluate_external
from adapt.evaluate.measures.base import Tools
from adapt.evaluate.page import RECORD, write_results
from adapt.evaluate.tools import open_tools
from adapt.outputs import claim
from cluster.storage.staging import staged
from configs import InputError
from configs.machine import commit, device_name


@staged(reads=("avatar", "video", "frames", "against"), writes="out", mark=RECORD)
def evaluate(
    avatar: str | Path | None = None,
    video: str | Path | None = None,
    out: str | Path = "evaluation",
    *,
    start: float | None = None,
    protocol: str = "own",
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
        protocol: ``own`` (every pixel is the avatar's) or ``paper`` (outside the head region the pixels are the test
            frame's own, so whole-frame measures are near those that papers print and far above ``own``).
        frames, against: instead of an avatar: a video by any method, and the ground truth, frame by frame.
        ablations: adapt again without each prior and part (same budget) and add the table of their scores.
        lpips: ``backbone.pth,linear.pth``: weights for LPIPS; without them it is null.
        sync: a sync-expert prior for Sync-C and Sync-D; by default the registry's champion, if there is one.
        syncnet: weights of the original SyncNet (``syncnet_v2.model``), for its own Sync-C and Sync-D besides ours.

    Returns:
        The content of ``metrics.json``, and ``report``: the page's path.

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
        raise InputError("--ablations adapts more avatars: it needs an avatar and its video, not --frames")
    if protocol not in PROTOCOLS:
        raise InputError(f"--protocol {protocol}: expected one of {', '.join(PROTOCOLS)}")
    if protocol != "own" and (external or ablations):
        raise InputError(
            f"--protocol {protocol} is for an avatar alone; leave --{'frames' if external else 'ablations'} out"
        )
    out = claim(out, overwrite=overwrite, mark=RECORD)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        tools = open_tools(lpips, sync, syncnet)
        if external:
            result = evaluate_external(Path(str(frames)), Path(str(against)), partial, tools)
        else:
            assert avatar is not None
            assert video is not None
            result = _evaluate_avatar(avatar, video, partial, start, device, tools, protocol)
            if ablations:
                result["ablations"] = run_ablations(avatar, video, result, device=device, tools=tools)
        write_results(partial, result)
        if out.exists():
            shutil.rmtree(out)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    result.pop("_page")
    return {**result, "report": str(out / "report.html")}


def _evaluate_avatar(
    avatar: str | Path,
    video: str | Path,
    folder: Path,
    start: float | None,
    device: str,
    tools: Tools,
    protocol: str,
) -> dict[str, Any]:
    opened = load_avatar(avatar, device)
    first, count = test_range(opened, video, start)
    drives, page = scored(opened, video, first, count, folder, tools, protocol)
    return {
        "drives": drives,
        "fps": round(page[0]["fps"], 2),
        "adapt_seconds": opened.document["metrics"].get("adapt_seconds"),
        "frames": len(page[0]["curves"]["real"]) if page[0]["curves"] else count,
        "size": opened.size,
        "device": device_name(opened.device),
        "commit": commit(),
        "protocol": protocol,
        "whole_frame": whole_frame(protocol, drives["track"].get("without_body_track")),
        "recipe": opened.document["recipe"],
        "prior": opened.document["prior"],
        "driver": opened.driver.name,
        "test": {
            "video": Path(str(video)).name,
            "own_clip": file_sha256(video) == opened.document["provenance"]["video_sha256"],
            "first_frame": first,
            "frames": count,
            "refined": opened.texture is not None,
        },
        "_page": {"title": f"{opened.name}: {opened.document['recipe']}", "parts": page},
    }
