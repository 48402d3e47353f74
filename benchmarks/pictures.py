"""Results as SVG files for the documentation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#57606a}.title{font-size:13px;font-weight:600;fill:#24292f}"
    ".grid{stroke:#d0d7de}rect.paper{fill:#fff}"
)
HEAD = 26  # px above each chart for its title


def save(name: str, charts: Sequence[tuple[str, str]]) -> Path:
    """Charts (title, ``<svg viewBox=...>``) below each other in ``docs/images/NAME.svg``."""
    parts, top, wide = [], 0, 0
    for title, chart in charts:
        found = re.search(r'viewBox="0 0 (\d+) (\d+)"', chart)
        assert found is not None, "a chart says its size"
        width, height = int(found[1]), int(found[2])
        parts.append(f'<text class="title" x="12" y="{top + 18}">{title}</text>')
        placed = chart.replace("<svg ", f'<svg x="0" y="{top + HEAD}" width="{width}" height="{height}" ', 1)
        parts.append(placed)
        top, wide = top + HEAD + height, max(wide, width)
    paper = f'<rect class="paper" width="{wide}" height="{top}"/>'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {top}" width="{wide}" height="{top}">'
    path = FOLDER / f"{name}.svg"
    path.write_text(f"{opening}<style>{STYLE}</style>{paper}{''.join(parts)}</svg>\n", encoding="utf-8")
    return path


def bars(counts: Sequence[float], first: float, step: float, marks: dict[str, float], unit: str) -> str:
    """A histogram: shares of ``counts`` in bins of ``step`` from ``first`` on, and named vertical marks."""
    width, height, left, top, bottom = 640, 230, 52, 34, 196
    total, most = sum(counts) or 1.0, max(counts) or 1.0
    across = (width - left - 12) / len(counts)
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="histogram, {unit}">']
    for i, count in enumerate(counts):
        high = (bottom - top) * count / most
        place = (
            f'x="{left + i * across:.1f}" y="{bottom - high:.1f}" width="{max(across - 1, 1):.1f}" height="{high:.1f}"'
        )
        parts.append(f'<rect {place} fill="#2563eb"/>')
        if i % max(1, len(counts) // 8) == 0:
            parts.append(f'<text x="{left + i * across:.1f}" y="{bottom + 16}">{first + i * step:g}</text>')
    for i, (name, value) in enumerate(marks.items()):
        x = left + (value - first) / step * across
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top - 8}" y2="{bottom}" stroke="#d97706" stroke-width="2"/>'
        )
        parts.append(f'<text x="{x + 4:.1f}" y="{top - 10 + 14 * (i % 3)}">{name}: {value:.0f} {unit}</text>')
    parts.append(f'<text x="{left - 8}" y="{top + 8}" text-anchor="end">{most / total:.0%}</text>')
    parts.append(f'<text x="{width - 12}" y="{height - 4}" text-anchor="end">{unit}</text>')
    return "".join(parts) + "</svg>"
