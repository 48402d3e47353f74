"""The evaluation's page: one self-contained HTML file with its images, videos and curves."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adapt.evaluate.measures.registry import columns
from shards.media.encode import as_uint8


def format_value(name: str, value: float | None) -> str:
    """A number with its measure's decimals and unit; an en dash for ``None``."""
    if value is None:
        return "–"
    column = columns()[name]
    return f"{value:.{column.decimals}f} {column.unit}".strip()


def table_rows(drives: Mapping[str, Mapping[str, Any]]) -> list[dict[str, object]]:
    """Rows of the page's table: one measure each, one value per drive."""
    return [
        {
            "label": column.label,
            "help": column.explanation,
            "better": column.better,
            "values": [format_value(name, drive.get(name)) for drive in drives.values()],
        }
        for name, column in columns().items()
        if any(name in drive for drive in drives.values())
    ]


def ablation_rows(ablations: Sequence[Mapping[str, object]]) -> list[dict[str, str]]:
    """The table of ablations as it is shown: measures by label, with their decimals and without units."""

    known = columns()

    def shown(name: str, value: object) -> str:
        return f"{value:.{known[name].decimals}f}" if name in known and not isinstance(value, str) else str(value)

    return [
        {known[name].label if name in known else name: shown(name, value) for name, value in row.items()}
        for row in ablations
    ]


def png(picture: np.ndarray) -> str:
    """A picture as base64 PNG."""
    return _encode(picture, "PNG")


def jpeg(picture: np.ndarray) -> str:
    """A picture as base64 JPEG, quality 92."""
    return _encode(picture, "JPEG", quality=92, subsampling=0)


def _encode(picture: np.ndarray, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    Image.fromarray(as_uint8(picture)).save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def error_colors(error: np.ndarray, top: float = 0.25) -> np.ndarray:
    """An error map ``[H, W]`` as black-red-yellow-white ``[H, W, 3]`` in [0, 1]; ``top`` and above are white."""
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


def write_report(path: str | Path, **content: object) -> None:
    """Fill the page; ``content``: title, subtitle, videos, columns, rows, reasons, facts, sheets, curves, footer."""
    import jinja2

    loader = jinja2.FileSystemLoader(str(Path(__file__).parent))
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    defaults: dict[str, object] = {
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
