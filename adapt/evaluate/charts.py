"""Charts as inline SVG, for self-contained pages."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

COLORS = ("#2563eb", "#d97706", "#059669", "#be185d", "#6b7280")


def over_frames(curves: Mapping[str, np.ndarray], label: str) -> str:
    """Curves ``[T]`` over frames, as wide as a page."""
    points = {name: np.stack([np.arange(len(curve)), curve], 1) for name, curve in curves.items()}
    # More points than pixels draw nothing new.
    shown = {name: rows[:: max(1, len(rows) // 1000)] for name, rows in points.items()}
    return line_chart(shown, "frame", label, width=1000, height=170)


def smooth(values: Sequence[float], points: int = 240) -> np.ndarray:
    """``[P, 2]`` step and mean loss around it: as many points as a chart can show."""
    series = np.asarray(values, np.float64)
    pieces = np.array_split(np.arange(len(series)), min(points, max(1, len(series) // 4)))
    return np.array([[piece.mean(), series[piece].mean()] for piece in pieces if len(piece)])


def _ticks(low: float, high: float, count: int = 4) -> list[float]:
    step = 10.0 ** np.floor(np.log10(max(high - low, 1e-9) / count))
    step *= next(m for m in (1, 2, 5, 10, 20) if (high - low) / (m * step) <= count + 1)
    return [float(v) for v in np.arange(np.ceil(low / step) * step, high + 1e-9, step)]


def line_chart(
    curves: Mapping[str, np.ndarray], x_label: str, y_label: str, width: int = 640, height: int = 230
) -> str:
    """Curves ``[N, 2]`` of x and y as inline SVG with axes and a legend; text is escaped."""
    every = np.concatenate([np.asarray(c, np.float64).reshape(-1, 2) for c in curves.values()])
    (x0, y0), (x1, y1) = every.min(0), every.max(0)
    pad = max(0.06 * (y1 - y0), 1e-6)
    y0, y1, x1 = y0 - pad, y1 + pad, max(x1, x0 + 1e-6)
    left, top, right, bottom = 52, 22, width - 12, height - 34

    def place(x: Any, y: Any) -> tuple[Any, Any]:
        return left + (x - x0) / (x1 - x0) * (right - left), bottom - (y - y0) / (y1 - y0) * (bottom - top)

    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(y_label)}">']
    for value in _ticks(y0, y1):
        _, y = place(x0, value)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for value in _ticks(x0, x1, 6):
        x, _ = place(value, y0)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{value:.4g}</text>')
    for i, (name, curve) in enumerate(curves.items()):
        x, y = place(*np.asarray(curve, np.float64).reshape(-1, 2).T)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y))
        color = COLORS[i % len(COLORS)]
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{points}"/>')
        parts.append(f'<text x="{left + 8 + 130 * i}" y="14" style="fill:{color}">{html.escape(name)}</text>')
    parts.append(f'<text x="{right}" y="{height - 4}" text-anchor="end">{html.escape(x_label)}</text>')
    return "".join(parts) + "</svg>"


def timeline_svg(stages: Sequence[Mapping[str, Any]], width: int = 1040) -> str:
    """The stages as bars below each other on one axis of seconds."""
    if not stages:
        return ""
    end = max(stage["start"] + stage["seconds"] for stage in stages)
    left, row = 380, 19
    scale = (width - left - 60) / max(end, 1e-6)
    parts = [f'<svg viewBox="0 0 {width} {row * len(stages) + 6}" role="img" aria-label="how long each stage took">']
    for i, stage in enumerate(stages):
        y, x, length = 3 + i * row, left + stage["start"] * scale, max(1.5, stage["seconds"] * scale)
        parts.append(f'<text x="{left - 10}" y="{y + 13}" text-anchor="end">{html.escape(stage["name"])}</text>')
        parts.append(
            f'<rect x="{x:.1f}" y="{y + 2}" width="{length:.1f}" height="{row - 6}" rx="3" fill="{COLORS[0]}"/>'
        )
        parts.append(f'<text x="{x + length + 6:.1f}" y="{y + 13}">{stage["seconds"]:.0f} s</text>')
    return "".join(parts) + "</svg>"
