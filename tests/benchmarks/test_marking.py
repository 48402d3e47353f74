"""The marking benchmark goes on where it stopped, and its page says what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapt.marking.detect import FileReport
from benchmarks.outputs import detect, marking_page
from benchmarks.outputs.marking import Kept, TimeIsUp, survivors
from benchmarks.results import row


def test_a_kept_measurement_is_not_made_again(tmp_path: Path) -> None:
    made: list[int] = []
    jobs = [(f"job {i}", lambda i=i: made.append(i) or i) for i in range(4)]
    path = tmp_path / "kept.jsonl"
    assert Kept(path, 1).fill(jobs[:2]) == [0, 1]
    assert Kept(path, 1, backwards=True).fill(jobs) == [0, 1, 2, 3]
    assert made == [0, 1, 3, 2]
    with pytest.raises(TimeIsUp):
        Kept(path, 0).fill([*jobs, ("job 4", lambda: 4)])
    assert Kept(path, 0, so_far=True).fill([*jobs, ("job 4", lambda: 4)]) == [0, 1, 2, 3, None]


def test_the_page_says_shares_and_lowest_scores() -> None:
    videos = [
        {"psnr": 42.5, "conversions": {"H.264 crf 33": [True, True, 20.0]}},
        {"psnr": 42.2, "conversions": {"H.264 crf 33": [True, False, 7.0]}},
    ]
    rows = survivors("survival, 256 px, 2 real and 0 rendered videos", videos)
    measured = {"device": "a machine", "commit": "abc"}
    text = marking_page.survival([{**r, "measured": measured} for r in rows])
    assert "| H.264 crf 33 | 100 % / 50 % / 7.0 |" in text
    assert "| PSNR of the marked frames, lowest | 42.2 dB |" in text
    assert "a machine, commit abc" in text


def test_the_curve_is_drawn_from_the_rows() -> None:
    rows = [row("alarms", f"share with a bound of at most 10^{i}", 10.0**i, "") for i in range(-3, 1)]
    picture = marking_page.curve(rows)
    assert picture.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert "measured" in picture


def test_the_page_says_which_marks_detect_still_reads() -> None:
    report: FileReport = {
        "file": "half.webm",
        "synthetic": True,
        "avatar": "ada",
        "confidence": 1.0,
        "marks": [
            {"kind": "c2pa", "state": "absent", "detail": "no manifest"},
            {"kind": "statement", "state": "found", "detail": "Synthetic video"},
            {
                "kind": "watermark",
                "state": "found",
                "detail": "avatar 12345678, score 32.5, false alarm at most 1e-200",
            },
        ],
    }
    measured = {"device": "a machine", "commit": "abc"}
    rows = [{**r, "measured": measured} for r in detect.rows_of(report, "half.webm", "half the size")]
    text = marking_page.detected(rows)
    assert "| `half.webm` | half the size | absent | found | avatar read | 32.5 |" in text
    assert "a machine, commit abc" in text


def test_only_the_part_between_the_marks_of_a_page_is_filled() -> None:
    page = f"before {marking_page.DETECTED} old {marking_page.END} after"
    text = marking_page.filled(page, marking_page.DETECTED, "new")
    assert text == f"before {marking_page.DETECTED}\n\nnew\n\n{marking_page.END} after"
