"""``evaluate --ablations``: the same clip adapted again without each prior and part, in one table.

Every row has the same budget, seed and frames as the avatar that is evaluated. With enough frames the visual prior
hardly changes the error, so the full recipe and the one without that prior are also adapted to the first second of the
clip and tested on the same frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from adapt.avatar.avatar import Avatar, load_avatar
from adapt.evaluate.avatars import score_avatar
from adapt.evaluate.measures.base import Tools
from adapt.job import adapt
from adapt.priors import record_of
from configs.scratch import ScratchFolder
from pretrain.roles import APPEARANCE, MOTION, SYNC

# Row name -> (changes of the configuration, roles of the priors left out).
SWITCHES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "full": ((), ()),
    "no visual prior": (("visual_prior=false",), (APPEARANCE,)),
    "no audio prior": (("audio_prior=false",), (MOTION,)),
    "no alignment": (("alignment=false",), (SYNC,)),
    "no appearance basis": (("appearance_basis=false",), ()),
    "no colour MLP": (("color_mlp=false",), ()),
    "no residual motion": (("residual_motion=false",), ()),
    "no track refinement": (("track_refinement=false",), ()),
    "no inpainter": (("inpainter=false",), ()),
    "no incremental sampling": (("incremental_sampling=false",), ()),
    "no mouth branch": (("mouth_branch=false",), ()),
}
COLUMNS = ("psnr_face", "psnr_mouth", "ssim_face", "lmd", "aue_l", "sync_c", "jitter_lips", "seam")
SHORT_SECONDS = 1.0


def run_ablations(
    avatar: str | Path, video: str | Path, result: dict[str, Any], *, device: str, tools: Tools
) -> list[dict[str, object]]:
    """Rows of the table: ``setting``, ``trained on``, ``drive`` and :data:`COLUMNS`.

    Args:
        result: the evaluation of the avatar itself, which gives the first rows.
        tools: what the scores are computed with.
    """
    opened = load_avatar(avatar, device)
    first = result["test"]["first_frame"]
    rows = _rows("full", "all frames", result["drives"])
    for name in _switches(opened):
        rows += _row(opened, video, name, None, first, device, tools)
    for name in ("full", *(n for n in _switches(opened) if n == "no visual prior")):
        rows += _row(opened, video, name, SHORT_SECONDS, first, device, tools)
    return rows


def _switches(avatar: Avatar) -> list[str]:
    """The rows that apply to this avatar: parts that its recipe has and that were on, priors that it had."""
    config, priors = avatar.document["config"], avatar.document["priors"]
    return [
        name
        for name, (changes, without) in SWITCHES.items()
        if name != "full"
        and all(config.get(change.split("=")[0]) is True for change in changes)
        and all(record_of(priors, role) for role in without)
        and (name != "no appearance basis" or "appearance_basis" in avatar.document["model"])
    ]


def _row(
    avatar: Avatar, video: str | Path, name: str, seconds: float | None, first: int, device: str, tools: Tools
) -> list[dict[str, Any]]:
    """Adapt once more with a switch and score the same test frames."""
    changes, without = SWITCHES[name]
    document = avatar.document
    left_out = [record_of(document["priors"], role) for role in without]
    uris = [record["uri"] for record in document["priors"].values() if record not in left_out]
    kept = [f"{key}={_text(value)}" for key, value in document["config"].items() if value != ""]
    with ScratchFolder("ablation") as folder:
        made = adapt(
            video,
            folder / "avatar",
            recipe=document["recipe"],
            prior=",".join(dict.fromkeys(uris)) or "none",
            seconds=seconds or document["clip"]["frames"] / 25,
            budget=document["progress"]["budget"],
            set=kept + list(changes),
            device=device,
            seed=document["seed"],
            consent=(document.get("consent") or {}).get("consent"),
        )
        if not made["complete"]:
            # Ctrl-C or SIGTERM ended this stage early: a row of fewer steps would be no comparison.
            raise KeyboardInterrupt
        opened = load_avatar(folder / "avatar", device)
        drives = score_avatar(opened, video, first, folder, tools)
    return _rows(name, "all frames" if seconds is None else f"first {seconds:g} s", drives)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _rows(name: str, trained: str, drives: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"setting": name, "trained on": trained, "drive": drive, **{key: _number(scores.get(key)) for key in COLUMNS}}
        for drive, scores in drives.items()
    ]


def _number(value: float | None) -> float | str:
    return "–" if value is None or not np.isfinite(value) else float(value)
