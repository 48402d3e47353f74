"""Pictures and figures of docs/marking.md: ``python -m benchmarks.outputs.marking_page [--rendered VIDEO]``.

``marking.jpg`` shows a rendered talker without and with the mark, ten times the difference, and a flat background, enlarged
from 256 px. ``marking-alarms.svg`` and the page's measured parts come from ``results/marking.json`` and
``results/detect.json``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adapt.evaluate.charts import line_chart
from adapt.marking.watermark import Watermark
from benchmarks.outputs.conversions import decoded
from benchmarks.results import FOLDER, stored

DOCS = FOLDER.parents[1] / "docs"
BEGIN, END = "<!-- measured: python -m benchmarks.outputs.marking_page -->", "<!-- end -->"
DETECTED = "<!-- measured: python -m benchmarks detect, python -m benchmarks.outputs.marking_page -->"
PAYLOAD = 0x12345678
SECONDS = 5
SIDE, ENLARGED, FRAME = 256, 2, 40
FLAT = 150
DIFFERENCE = 10
# Shares below this cannot be seen in so few segments, and have no logarithm.
LEAST = 1e-4
NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'
STYLE = "<style>text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}</style>"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.outputs.marking_page")
    parser.add_argument("--rendered", type=Path, help="an unmarked video of a generated talker, for a new picture")
    options = parser.parse_args()
    if options.rendered is not None:
        frame = decoded(options.rendered, FRAME + 1, SIDE)[FRAME]
        sheet(frame).save(DOCS / "images" / "marking.jpg", quality=92)
    rows = stored("marking")
    (DOCS / "images" / "marking-alarms.svg").write_text(curve(rows) + "\n")
    page = (DOCS / "marking.md").read_text()
    page = filled(page, BEGIN, "\n\n".join([alarms(rows), survival(rows), cost(rows)]))
    (DOCS / "marking.md").write_text(filled(page, DETECTED, detected(stored("detect"))))


def filled(page: str, begin: str, measured: str) -> str:
    """The page with another text between ``begin`` and the next ``END``."""
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(END)
    return f"{before}{begin}\n\n{measured}\n\n{END}{after}"


def alarms(rows: list[dict[str, Any]]) -> str:
    """Segments without a mark, and how near the nearest came."""
    mine = {r["variant"]: r["value"] for r in rows if r["case"].startswith("alarms")}
    kinds = {name.removeprefix("segments: "): n for name, n in mine.items() if name.startswith("segments: ")}
    lines = ["| segments of one second without a mark | number |", "|---|---|"]
    lines += [f"| {kind} | {n} |" for kind, n in kinds.items()]
    lines += [f"| all | {sum(kinds.values())} |", f"| **found** | **{mine['found']}** |"]
    return "\n".join(
        [
            *lines,
            "",
            f"The smallest bound among them is {mine['smallest bound']:.1g}; 0.000001 would be needed. The curve holds the "
            "share of segments that reach a bound against the bound itself:",
            "",
            "![Share of unmarked segments that reach a bound, below the bound everywhere](images/marking-alarms.svg)",
            "",
            f"{_origin(rows, 'alarms')} `python -m benchmarks marking --clips DIR --rendered VIDEOS --only alarms`.",
        ]
    )


def survival(rows: list[dict[str, Any]]) -> str:
    """What the mark lives through, at 512 and at 256 px."""
    mine = [r for r in rows if r["case"].startswith("survival")]
    cases = list(dict.fromkeys(r["case"] for r in mine))
    value = {(r["case"], r["variant"]): r["value"] for r in mine}
    names = list(dict.fromkeys(r["variant"].rpartition(": ")[0] for r in mine if ": " in r["variant"]))
    heads = [case.removeprefix("survival, ").removesuffix(f" of {SECONDS} s") for case in cases]
    lines = [f"| after | {' | '.join(heads)} |", "|---" * (len(cases) + 1) + "|"]
    for name in names:
        cells = [
            f"{value[case, f'{name}: found']:.0f} % / {value[case, f'{name}: avatar read']:.0f} % / "
            f"{value[case, f'{name}: lowest score']:.1f}"
            for case in cases
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    quality = [f"{value[case, 'PSNR of the marked frames, lowest']:.1f} dB" for case in cases]
    lines.append(f"| PSNR of the marked frames, lowest | {' | '.join(quality)} |")
    origins = {case.split(", ")[1]: _origin(rows, case) for case in cases}
    same = len(set(origins.values())) == 1
    measured = next(iter(origins.values())) if same else " ".join(f"{size}: {o}" for size, o in origins.items())
    return "\n".join(
        [
            "**Survival.** Videos of five seconds, marked, written as H.264 crf 18, then converted. Each cell says the share of "
            "videos that are *found* (a bound of at most 10⁻⁶), the share whose *avatar* is read right, and the lowest "
            "*score* in standard deviations.",
            "",
            *lines,
            "",
            f"{measured} `python -m benchmarks marking --clips DIR --rendered VIDEOS --only survival`.",
        ]
    )


def cost(rows: list[dict[str, Any]]) -> str:
    """Milliseconds a frame, alone and within ``talk``."""
    mine = {r["variant"]: r for r in rows if r["case"].startswith("speed")}
    text = f"**Cost.** {mine['mark, one thread']['value']:.1f} ms of processor time a frame of 512 px on one thread"
    if "with the mark" in mine:
        plain, marked = mine["without the mark"]["value"], mine["with the mark"]["value"]
        text += f"; `talk` takes {marked:.0f} ms a frame with the mark and {plain:.0f} ms without, in turn in one run"
    return f"{text}. {_origin(rows, 'speed')} `python -m benchmarks marking --clips DIR --avatar DIR --speech FILE --only speed`."


def detected(rows: list[dict[str, Any]]) -> str:
    """What ``detect`` reads of one video after conversions."""
    value = {(r["case"], r["variant"]): r["value"] for r in rows}
    lines = ["| file | what was done to it | signature | statement | watermark | score |", "|---|---|---|---|---|---|"]
    for case in dict.fromkeys(r["case"] for r in rows):
        name, _, what = case.partition(": ")
        signature, statement = (
            yes if value[case, variant] else "absent"
            for variant, yes in (("signature valid", "valid"), ("statement found", "found"))
        )
        watermark = "found" if value[case, "watermark found"] else "absent"
        watermark = "avatar read" if value[case, "avatar read from the watermark"] else watermark
        score = value.get((case, "watermark's score"))
        cells = [f"`{name}`", what, signature, statement, watermark, "" if score is None else f"{score:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    origin = _origin(rows, rows[0]["case"])
    return "\n".join([*lines, "", f"{origin} `python -m benchmarks detect --avatar DIR --speech FILE`."])


def _origin(rows: list[dict[str, Any]], part: str) -> str:
    """Device and commit of a part's rows."""
    measured = next(r["measured"] for r in rows if r["case"].startswith(part))
    return f"{measured['device']}, commit {measured['commit']},"


def sheet(frame: np.ndarray) -> Image.Image:
    """Rows: a frame ``[S, S, 3]`` and flat ground; columns: plain, marked, difference x 10."""
    rows = []
    for plain in (frame, np.full_like(frame, FLAT)):
        marked = Watermark(PAYLOAD).mark(plain)
        difference = np.clip(128 + DIFFERENCE * (marked.astype(int) - plain), 0, 255).astype(np.uint8)
        rows.append(np.concatenate([plain, marked, difference], 1))
    image = Image.fromarray(np.concatenate(rows))
    return image.resize((ENLARGED * image.width, ENLARGED * image.height), Image.Resampling.BICUBIC)


def curve(rows: list[dict[str, Any]]) -> str:
    """Share of unmarked segments that reach a bound, beside the bound itself; both as powers of ten."""
    mark = "share with a bound of at most 10^"
    rows = [r for r in rows if r["variant"].startswith(mark)]
    powers = np.array([float(r["variant"].removeprefix(mark)) for r in rows])
    shares = np.array([r["value"] for r in rows])
    seen = shares >= LEAST
    low = np.log10(LEAST)
    curves = {
        "measured": np.stack([powers[seen], np.log10(shares[seen])], 1),
        "promised at most": np.array([[low, low], [0, 0], [powers.max(), 0]]),
    }
    chart = line_chart(curves, "bound reported by the detector, power of ten", "share of segments, power of ten")
    head, _, rest = chart.partition(">")
    return head.replace("<svg", f"<svg {NAMESPACE}") + ">" + STYLE + rest


if __name__ == "__main__":
    main()
