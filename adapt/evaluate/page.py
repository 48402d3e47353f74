"""``metrics.json`` and the report page of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adapt.evaluate import report
from adapt.evaluate.charts import over_frames
from adapt.evaluate.measures.registry import columns
from configs.words import finite
from heads.rig.facemesh import LIPS

RECORD = "metrics.json"


def write_results(folder: Path, result: dict[str, Any]) -> None:
    """Write both into ``folder``; ``result["_page"]`` is what only the page shows."""
    page = result["_page"]
    record = {key: value for key, value in result.items() if key != "_page"}
    (folder / RECORD).write_text(json.dumps(finite(record), indent=2) + "\n")
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
        reasons=reasons_of(drives),
        facts=_facts(record),
        sheets=sheets,
        curves=curves,
        ablations=report.ablation_rows(result.get("ablations", [])),
        footer="Frames marked 'rendered' are synthetic.",
    )


def reasons_of(drives: dict[str, Any]) -> dict[str, str]:
    """Why measures are absent, by their labels; the drive is named where they differ."""
    found: dict[str, str] = {}
    for name, drive in drives.items():
        for measure, why in drive["null_reasons"].items():
            label = columns()[measure].label if measure in columns() else measure
            everywhere = all(other["null_reasons"].get(measure) == why for other in drives.values())
            found[label if everywhere else f"{label} ({name})"] = why
    return found


def _facts(record: dict[str, object]) -> dict[str, object]:
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
    lips = landmarks[list(LIPS), :2]
    centre, half = lips.mean(0), 0.8 * np.ptp(lips[:, 0])
    box = tuple(float(v) for v in (*(centre - half), *(centre + half)))
    return np.asarray(
        Image.fromarray(frame).transform((side, side), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC)
    )


def _curves(part: dict[str, Any]) -> list[dict[str, str]]:
    curves = []
    for key, caption in (("curves", "lip gap over eye distance"), ("eyes", "eye opening, percent of the eye distance")):
        if part[key]:
            curves.append({"svg": over_frames(part[key], caption), "caption": f"{caption}, {part['name']} drive"})
    return curves
