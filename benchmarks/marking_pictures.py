"""Pictures for docs/marking.md: ``python -m benchmarks.marking_pictures --rendered VIDEO [--out DIR]``.

``marking.jpg`` shows a rendered talker plain, marked and the difference x 10, and flat ground, at 256 px enlarged.
``marking-alarms.svg`` is drawn from ``results/marking.json``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from adapt.evaluate.charts import line_chart
from adapt.marking.watermark import Watermark
from benchmarks.conversions import decoded
from benchmarks.results import FOLDER, stored

PAYLOAD = 0x12345678
SIDE, ENLARGED, FRAME = 256, 2, 40
FLAT = 150
DIFFERENCE = 10
# Shares below this cannot be seen in so few segments, and have no logarithm.
LEAST = 1e-4
NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'
STYLE = "<style>text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}</style>"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.marking_pictures")
    parser.add_argument("--rendered", type=Path, required=True, help="an unmarked video of a generated talker")
    parser.add_argument("--out", type=Path, default=FOLDER.parents[1] / "docs" / "images")
    options = parser.parse_args()
    frame = decoded(options.rendered, FRAME + 1, SIDE)[FRAME]
    sheet(frame).save(options.out / "marking.jpg", quality=92)
    (options.out / "marking-alarms.svg").write_text(curve() + "\n")


def sheet(frame: np.ndarray) -> Image.Image:
    """Rows: a frame ``[S, S, 3]`` and flat ground; columns: plain, marked, difference x 10."""
    rows = []
    for plain in (frame, np.full_like(frame, FLAT)):
        marked = Watermark(PAYLOAD).mark(plain)
        difference = np.clip(128 + DIFFERENCE * (marked.astype(int) - plain), 0, 255).astype(np.uint8)
        rows.append(np.concatenate([plain, marked, difference], 1))
    image = Image.fromarray(np.concatenate(rows))
    return image.resize((ENLARGED * image.width, ENLARGED * image.height), Image.Resampling.BICUBIC)


def curve() -> str:
    """Share of unmarked segments that reach a bound, beside the bound itself; both as powers of ten."""
    mark = "share with a bound of at most "
    rows = [r for r in stored("marking") if r["variant"].startswith(mark)]
    powers = np.array([np.log10(float(r["variant"].removeprefix(mark))) for r in rows])
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
