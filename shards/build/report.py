"""The build report page: what was built, what was refused and why, with pictures to look at."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from cluster.storage import storage
from heads.rig import facemesh
from shards.build.journal import Journal
from shards.format import codecs as members
from shards.format.catalogue import Catalogue

PAGE = "report.html"
THUMBNAIL = 320  # px, side
SHOWN = 2000  # most clips on the page; the rest is in build.json


def write_report(url: str, journal: Journal, catalogue: Catalogue, seconds: float) -> str:
    """Write ``report.html`` beside ``dataset.json`` and return its URL; ``seconds``: how long the build took."""
    from jinja2 import Environment, PackageLoader

    records = [journal.clips[name] for name in sorted(journal.clips)]
    built = [record for record in records if record["frames"]]
    page = Environment(loader=PackageLoader("shards.build", "."), autoescape=True).get_template("report.html.j2")
    where = storage.join(url, PAGE)
    html = page.render(
        totals=catalogue.totals(),
        rig=catalogue.rig,
        features=catalogue.features,
        clips=built[:SHOWN],
        hidden=max(0, len(built) - SHOWN),
        refused=[{**part, "clip": r["clip"], "file": r["file"]} for r in records for part in r["refused"]]
        + [{**part, "file": part["clip"]} for tar in journal.tars.values() for part in tar["refused"]],
        unknown=[r["clip"] for r in built if r["licence"] == "unknown"],
        fraction=_fraction(records),
        seconds=seconds,
        speed=sum(r["frames"] for r in built) / 25 / seconds if seconds > 0 else 0.0,
        when=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )
    storage.write_bytes(where, html.encode())
    return where


def _fraction(records: Sequence[dict[str, Any]]) -> float:
    length = sum(record["seconds"] for record in records)
    return sum(record["frames"] for record in records) / 25 / length if length else 0.0


def overlay_strip(pictures: Sequence[tuple[np.ndarray, np.ndarray]]) -> bytes:
    """Frames with their landmarks side by side, as a JPEG.

    Args:
        pictures: pairs of a frame ``[H, W, 3]`` uint8 and its landmarks ``[478, 3]`` in its px.
    """
    return members.encode_jpeg(np.concatenate([overlay(*picture) for picture in pictures], axis=1), quality=88)


def overlay(frame: np.ndarray, landmarks: np.ndarray, side: int = THUMBNAIL) -> np.ndarray:
    """``[side, side, 3]`` uint8: the frame with green dots for landmarks, red lips, yellow eyes and cyan irises."""
    from PIL import Image, ImageDraw

    scale = 2 * side / max(frame.shape[:2])  # drawn at twice the size and shrunk: smooth lines
    picture = Image.fromarray(frame).resize((2 * side, 2 * side), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    points = [(float(x), float(y)) for x, y in landmarks[:, :2] * scale]
    for x, y in points[: facemesh.N_SURFACE]:
        draw.ellipse((x - 1.2, y - 1.2, x + 1.2, y + 1.2), fill=(90, 255, 120))
    loops: tuple[tuple[tuple[int, ...], tuple[int, int, int]], ...] = (
        (facemesh.LIPS_OUTER, (255, 60, 60)),
        (facemesh.LIPS_INNER, (255, 150, 150)),
    )
    loops += ((facemesh.EYE_LEFT, (255, 225, 40)), (facemesh.EYE_RIGHT, (255, 225, 40)))
    for loop, color in loops:
        draw.line([points[i] for i in (*loop, loop[0])], fill=color, width=3, joint="curve")
    for centre, edge in ((468, 469), (473, 474)):
        (x, y), radius = points[centre], float(np.hypot(*np.subtract(points[centre], points[edge])))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(60, 225, 255), width=3)
    return np.asarray(picture.resize((side, side), Image.Resampling.BOX))
