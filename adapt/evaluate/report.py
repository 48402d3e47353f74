"""The evaluation's page: one HTML file that needs nothing beside it (pictures, video and curves are inside)."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shards.media.encode import as_uint8

# name -> (label, unit, decimals, which way is better, explanation)
MEASURES: dict[str, tuple[str, str, int, str, str]] = {
    "psnr": ("PSNR, whole frame", "dB", 2, "higher", "see 'whole frame' below for what the body is"),
    "psnr_face": ("PSNR, face", "dB", 2, "higher", "pixels of the face region, all rendered"),
    "psnr_head": ("PSNR, head", "dB", 2, "higher", "face, hair and neck, all rendered"),
    "psnr_mouth": ("PSNR, inside of the mouth", "dB", 2, "higher", "frames with an open mouth"),
    "ssim": ("SSIM, whole frame", "", 4, "higher", "Gaussian window 11, sigma 1.5"),
    "ssim_face": ("SSIM, face", "", 4, "higher", ""),
    "lpips": ("LPIPS", "", 4, "lower", "needs weights: lpips=PATH"),
    "flip": ("FLIP, head", "", 4, "lower", "LDR, 67 pixels per degree"),
    "lmd": ("LMD", "px at 512", 3, "lower", "lip landmarks re-detected, centred per frame"),
    "lmd_absolute": ("LMD, absolute", "px at 512", 3, "lower", "lip landmarks re-detected, not centred"),
    "aue_u": ("AUE-U", "% eye distance", 3, "lower", "geometric action units, upper face"),
    "aue_l": ("AUE-L", "% eye distance", 3, "lower", "geometric action units, lower face"),
    "sync_c": ("Sync-C", "", 3, "higher", "confidence of the sync expert"),
    "sync_d": ("Sync-D", "", 3, "lower", "distance of the sync expert"),
    "syncnet_c": (
        "Sync-C, SyncNet",
        "",
        3,
        "higher",
        "confidence of the original SyncNet; needs weights: syncnet=FILE",
    ),
    "syncnet_d": ("Sync-D, SyncNet", "", 3, "lower", "distance of the original SyncNet; needs weights: syncnet=FILE"),
    "jitter_head": ("jitter, head", "x real", 2, "1", "acceleration relative to the real video"),
    "jitter_lips": ("jitter, lips", "x real", 2, "1", "acceleration relative to the real video"),
    "seam": ("seam", "8-bit steps", 2, "lower", "gradient difference in the ring around the head"),
}


def format_value(name: str, value: float | None) -> str:
    """A number with its measure's decimals; an en dash where it is absent."""
    if value is None:
        return "–"
    _, unit, decimals, _, _ = MEASURES[name]
    return f"{value:.{decimals}f} {unit}".strip()


def table_rows(drives: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the page's table: one measure each, one value per drive."""
    rows = []
    for name, (label, _, _, better, explanation) in MEASURES.items():
        values = [drive.get(name) for drive in drives.values()]
        if any(name in drive for drive in drives.values()):
            rows.append(
                {
                    "label": label,
                    "help": explanation,
                    "better": better,
                    "values": [format_value(name, value) for value in values],
                }
            )
    return rows


def ablation_rows(ablations: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The table of ablations as it is shown: measures by their labels, with their decimals, units left out."""

    def shown(name: str, value: Any) -> str:
        return f"{value:.{MEASURES[name][2]}f}" if name in MEASURES and not isinstance(value, str) else str(value)

    return [
        {MEASURES[name][0] if name in MEASURES else name: shown(name, value) for name, value in row.items()}
        for row in ablations
    ]


def png(picture: np.ndarray) -> str:
    """A picture as base64 PNG."""
    return _encode(picture, "PNG")


def jpeg(picture: np.ndarray) -> str:
    """A picture as base64 JPEG, quality 92."""
    return _encode(picture, "JPEG", quality=92, subsampling=0)


def _encode(picture: np.ndarray, kind: str, **options: Any) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(as_uint8(picture)).save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def error_colors(error: np.ndarray, top: float = 0.25) -> np.ndarray:
    """An error map ``[H, W]`` as black-red-yellow-white ``[H, W, 3]``; ``top`` and above are white."""
    level = np.clip(error / top, 0.0, 1.0) * 3.0
    return np.stack([np.clip(level - k, 0.0, 1.0) for k in range(3)], -1)


def contact_sheet(rows: Sequence[Sequence[np.ndarray]], gap: int = 4) -> np.ndarray:
    """Pictures of equal size in a grid, white between them."""
    height, width = rows[0][0].shape[:2]
    columns = max(map(len, rows))
    shape = (len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 3)
    sheet = np.full(shape, 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = i * (height + gap), j * (width + gap)
            sheet[top : top + height, left : left + width] = as_uint8(picture)
    return sheet


def curve_svg(curves: Mapping[str, np.ndarray], height: int = 150, width: int = 1000) -> str:
    """Curves ``[T]`` over frames in one frame of reference, as inline SVG with a legend."""
    colors = ("#111827", "#2563eb", "#dc2626", "#059669")
    values = np.concatenate([np.asarray(c, np.float64) for c in curves.values()])
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 1e-6)
    lines, legend = [], []
    for i, (name, curve) in enumerate(curves.items()):
        # More points than pixels draw nothing new.
        stride = max(1, len(curve) // width)
        shown = np.asarray(curve)[::stride]
        x = np.linspace(0, width, max(2, len(shown)))[: len(shown)]
        y = height - 12 - (shown - low) / span * (height - 30)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y))
        color = colors[i % len(colors)]
        lines.append(f'<polyline fill="none" stroke="{color}" stroke-width="1.4" points="{points}"/>')
        legend.append(f'<text x="{8 + 150 * i}" y="13" fill="{color}" font-size="12">{name}</text>')
    scale = f'<text x="{width - 6}" y="13" text-anchor="end" fill="#888" font-size="11">{low:.3g} .. {high:.3g}</text>'
    return f'<svg viewBox="0 0 {width} {height}" role="img">{"".join(lines + legend)}{scale}</svg>'


def write_report(path: str | Path, **content: Any) -> None:
    """Fill the page; ``content``: title, subtitle, videos, columns, rows, reasons, facts, sheets, curves, footer."""
    import jinja2

    loader = jinja2.FileSystemLoader(str(Path(__file__).parent))
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    defaults: dict[str, Any] = {
        "subtitle": "",
        "videos": [],
        "columns": [],
        "rows": [],
        "reasons": {},
        "facts": {},
        "sheets": [],
        "curves": [],
        "ablations": [],
        "footer": "",
    }
    Path(path).write_text(environment.get_template("report.html.j2").render({**defaults, **content}), encoding="utf-8")


def video_data(path: str | Path) -> str:
    """A video file as base64, for the page."""
    return base64.b64encode(Path(path).read_bytes()).decode()
