"""The live benchmarks' own arithmetic: a soak's rows and curve, a histogram, and two builds in turn."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import pictures
from benchmarks.live import live_frame, live_soak


def samples(count=12):
    base = {"heap": 3.0, "waiting": 2.0, "queued": 0.0, "delay_p95": 200.0, "offset": 1.0, "rate": 24.0, "unheard": 3.0}
    return [
        {**base, "minute": (k + 1) / 6, "memory": 400.0 + k, "delay": 150.0, "offset_p95": 5.0 + k, "load": 2.0}
        for k in range(count)
    ]


def test_a_soaks_rows_hold_the_end_against_the_beginning(monkeypatch, tmp_path):
    totals = {"size": 256, "seconds": 120.0, "frames": 3000, "dropped": 30}
    rows = {
        row["variant"]: row for row in live_soak._rows("2 minutes", samples(), totals) if "minute " not in row["case"]
    }
    assert rows["memory of the server, last fifth"]["value"] == 410.5
    assert rows["memory of the server, last fifth"]["ratio"] == pytest.approx(410.5 / 400.5)
    assert rows["lips away from their sound, worst p95 of 10 s"]["value"] == 16.0
    assert rows["frames"]["value"] == 25.0
    assert rows["pictures left out"]["ratio"] == 0.01
    monkeypatch.setattr(pictures, "FOLDER", tmp_path)
    tree = ElementTree.parse(live_soak.draw(samples()))
    assert sum(element.tag.endswith("polyline") for element in tree.iter()) == 8


def test_a_histogram_has_a_bar_for_every_bin_and_its_marks(monkeypatch, tmp_path):
    monkeypatch.setattr(pictures, "FOLDER", tmp_path)
    chart = pictures.bars([0, 3, 1], 100.0, 10.0, {"median": 115.0}, "ms")
    path = pictures.save("delays", [("Delays", chart), ("Again", chart)])
    text = path.read_text()
    ElementTree.fromstring(text)
    assert text.count('fill="#2563eb"') == 6
    assert "median: 115 ms" in text
    assert "75%" in text


def test_two_builds_are_measured_in_turn_and_compared_by_their_medians(monkeypatch, tmp_path):
    other = tmp_path / "before"
    other.mkdir()
    (other / "COMMIT").write_text("abc123\n")
    (tmp_path / "avatar.json").write_text(json.dumps({"size": 256}))
    asked: list[Path] = []
    costs = {other: iter([10.0, 30.0, 12.0]), live_frame.ROOT: iter([6.0, 5.0, 50.0])}

    def measured(folder, root, place):
        asked.append(root)
        return {"a live frame": next(costs[root])}

    monkeypatch.setattr(live_frame, "_measured", measured)
    rows = live_frame.against_rows([tmp_path], other, tmp_path, 3)
    assert asked == [other, live_frame.ROOT] * 3
    assert rows[0]["value"] == 6.0
    assert rows[0]["ratio"] == 0.5
    assert "abc123" in rows[0]["against"]
