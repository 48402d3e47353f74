"""The demo's page: one self-contained HTML file with its results and failures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adapt.evaluate.charts import line_chart, smooth, timeline_svg
from adapt.evaluate.measures.registry import columns
from adapt.evaluate.report import format_value, jpeg, video_data
from headstart.demo.telling import Story
from pretrain.prior import find_prior


def write_demo_report(path: str | Path, story: Story) -> None:
    """Write the page from what :func:`headstart.demo.story.demo` recorded; opening it fetches nothing."""
    import jinja2

    loader = jinja2.FileSystemLoader(str(Path(__file__).parent))
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["rgb"] = jpeg
    content = {
        "story": story,
        "made": time.strftime("%Y-%m-%d %H:%M", time.localtime(story.began)),
        "total": sum(stage["seconds"] for stage in story.stages),
        "timeline": timeline_svg(story.stages),
        "priors": [_prior(name, prior) for name, prior in story.priors.items()],
        "held_out": [_person(person) for person in story.held_out],
        "hero": next((_video(person) for person in story.held_out if person["video"]), None),
    }
    Path(path).write_text(environment.get_template("report.html.j2").render(content), encoding="utf-8")


def _video(person: Mapping[str, Any]) -> dict[str, Any]:
    spoken = person["video"]
    left = "what they really looked like saying it" if spoken["truth"] else "the person as recorded"
    words = f"“{person['words']}”" if person["words"] else f"speech: {spoken['speech']}"
    caption = f"{person['identity']}. Left: {left}. Right: the avatar, driven by the sound alone. {words}"
    return {"data": video_data(spoken["video"]), "caption": caption, "fps": spoken["fps"], "driver": spoken["driver"]}


def _prior(name: str, prior: Mapping[str, Any]) -> dict[str, Any]:
    columns, rows = table(prior["rows"])
    return {
        "name": name,
        "tells": find_prior(name).learns,
        "facts": {
            "registered": f"{prior['registered']['name']} version {prior['registered']['version']}",
            "pulled as": prior.get("uri", "not pulled"),
            "steps": prior["steps"],
            "time": f"{prior['seconds']:.0f} s",
            "throughput": f"{prior['samples_per_second']:.1f} samples/s",
            "memory": f"{prior['peak_memory_mb']:.0f} MB",
            "size": f"{prior['weights_bytes'] / 1e6:.1f} MB",
            "trained on": f"{len(prior['dataset']['identities'])} people",
            "proved on": ", ".join(prior["dataset"]["held_out"]),
            "weights": prior["weights_sha256"][:12],
        },
        "curve": line_chart({"training loss": smooth(prior["losses"])}, "step", "loss") if prior["losses"] else "",
        "headlines": headlines(name, prior["validation"]),
        "columns": columns,
        "rows": rows,
        "pictures": [
            {"name": key.replace("_", " ").replace("-", " "), "data": _file(value), "kind": "png"}
            for key, value in prior["pictures"].items()
        ],
    }


def headlines(name: str, summary: Mapping[str, float]) -> list[dict[str, str]]:
    """The headline figures that a prior's summary has, formatted."""
    found = [(summary[key], what, who) for key, what, who in find_prior(name).headlines if key in summary]
    return [
        {"value": f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}", "what": what, "who": who}
        for value, what, who in found
    ]


def _file(path: str) -> str:
    import base64

    return base64.b64encode(Path(path).read_bytes()).decode()


def table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Column names and formatted cells of evidence rows, with their mean as a last row."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    if len(rows) > 1:
        means = []
        for column in columns:
            values = [row[column] for row in rows if isinstance(row.get(column), float)]
            means.append(f"{np.mean(values):.3f}" if values else "")
        means[0] = "mean"
        cells.append(means)
    return columns, cells


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _person(person: Mapping[str, Any]) -> dict[str, Any]:
    curves = {name: np.array(variant["curve"]) for name, variant in person["variants"].items() if variant["curve"]}
    return {
        "identity": person["identity"],
        "licence": person["licence"],
        "consent": person["consent"],
        "curve": line_chart(curves, "seconds of adaptation", "PSNR of the face (dB)") if curves else "",
        "previews": [
            {"name": name, "data": _file(str(Path(variant["avatar"]) / "preview.jpg")), "kind": "jpeg"}
            for name, variant in person["variants"].items()
            if (Path(variant["avatar"]) / "preview.jpg").is_file()
        ],
        "comparison": comparison(person["variants"]),
        "facts": [
            {"name": name, "text": _variant_facts(variant)} for name, variant in person["variants"].items()
        ],
        "reasons": _reasons(person["variants"]),
    }  # fmt: skip


def _variant_facts(variant: Mapping[str, Any]) -> str:
    scores = variant.get("scores")
    text = (
        f"{variant['train_seconds']:.1f} s of video, {variant['iterations']} steps in {variant['seconds']:.0f} s at "
        f"{variant['size']} px, speech by {variant['driver']}, {variant['bytes'] / 1e6:.1f} MB"
    )
    if scores:
        text += f"; scored on {scores['frames']} unseen frames, rendered at {scores['fps']:.0f} frames a second"
    return text


def comparison(variants: Mapping[str, Mapping[str, Any]]) -> dict[str, object] | None:
    """The table of scores: a row per measure, a column per drive and variant; the better of each drive is marked.

    Measures that could not be computed at all are left out (the page gives their reasons below the table).
    """
    scored = {name: variant["scores"]["drives"] for name, variant in variants.items() if variant.get("scores")}
    if not scored:
        return None
    drives = list(dict.fromkeys(drive for result in scored.values() for drive in result))
    rows = []
    for measure, column in columns().items():
        cells = []
        for drive in drives:
            values = {name: result.get(drive, {}).get(measure) for name, result in scored.items()}
            best = best_of(values, column.better)
            cells += [
                {"text": format_value(measure, value), "best": len(scored) > 1 and name == best}
                for name, value in values.items()
            ]
        if any(cell["text"] != "–" for cell in cells):
            rows.append({"label": column.label, "help": column.explanation, "better": column.better, "cells": cells})
    return {"drives": drives, "variants": list(scored), "rows": rows}


def best_of(values: Mapping[str, float | None], better: str) -> str | None:
    """The name with the best value: highest, lowest or nearest to 1; ``None`` if fewer than two have one or all are equal."""
    known = {name: value for name, value in values.items() if value is not None}
    if len(known) < 2 or len(set(known.values())) == 1:
        return None
    key = {"higher": lambda v: -v, "lower": lambda v: v, "1": lambda v: abs(v - 1)}[better]
    return min(known, key=lambda name: key(known[name]))


def _reasons(variants: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Why measures are absent, by measure; the first reason of each."""
    found: dict[str, str] = {}
    for variant in variants.values():
        for drive in (variant.get("scores") or {"drives": {}})["drives"].values():
            for name, reason in (drive.get("null_reasons") or {}).items():
                found.setdefault(columns()[name].label if name in columns() else name, reason)
    return found
