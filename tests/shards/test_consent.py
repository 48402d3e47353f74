"""Consent rows: given to the files that they mean, and refused where that is not clear."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs import InputError
from shards.build.find import find_clips

HEADER = "clip,identity,licence,consent,source\n"


@pytest.fixture
def tree(tmp_path) -> Path:
    for name in ("person_a/001.mp4", "person_a/002.mp4", "person_b/001.mp4", "news_1.mov", "clip [1].mp4"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "tree"


def people(tree: Path, rows: str) -> dict[str, str]:
    """File → identity and consent, for the files that a row names."""
    consent = tree.parent / "consent.csv"
    consent.write_text(HEADER + rows)
    clips = find_clips([tree], consent)
    return {str(Path(c.path).relative_to(tree)): f"{c.consent.identity} {c.consent.consent}" for c in clips if c.known}


def test_a_name_that_fits_two_files_is_refused_and_names_them(tree):
    with pytest.raises(InputError, match=r"row 2 names '001', which fits 2 files .*person_a/001.mp4.*person_b/001.mp4"):
        people(tree, "001,person_a,CC BY 4.0,signed,studio\n")
    # Also where one of them has a row of its own: nothing says that the other one is meant.
    with pytest.raises(InputError, match="fits 2 files"):
        people(tree, "001,a,l,signed,s\nperson_b/001,b,l,signed,s\n")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("person_a/001,ann,l,signed,s\n", {"person_a/001.mp4": "ann signed"}),
        ("person_a/001.mp4,ann,l,signed,s\n", {"person_a/001.mp4": "ann signed"}),
        ("./tree/person_a/001,ann,l,signed,s\n", {"person_a/001.mp4": "ann signed"}),
        ("person_a/*,ann,l,signed,s\n", {"person_a/001.mp4": "ann signed", "person_a/002.mp4": "ann signed"}),
        ("person_?/001,ann,l,signed,s\n", {"person_a/001.mp4": "ann signed", "person_b/001.mp4": "ann signed"}),
        ("news_*,eve,l,told,s\n002,ann,l,signed,s\n", {"news_1.mov": "eve told", "person_a/002.mp4": "ann signed"}),
        ("clip [1],eve,l,told,s\n", {"clip [1].mp4": "eve told"}),  # brackets in a name are no pattern
        # A path wins over a pattern, an earlier pattern over a later one.
        ("*,all,l,no,s\nperson_a/001,ann,l,signed,s\nnews_*,eve,l,told,s\n", None),
        ("person_c/*,ann,l,signed,s\n/person_a/*,ann,l,signed,s\n01,ann,l,signed,s\n", {}),
    ],
)
def test_rows_are_names_paths_and_patterns(tree, rows, expected):
    found = people(tree, rows)
    if expected is None:
        assert found["person_a/001.mp4"] == "ann signed"
        assert found["news_1.mov"] == "all no"
        assert len(found) == 5
    else:
        assert found == expected


def test_a_pattern_does_not_reach_into_folders(tree):
    assert people(tree, "tree/*,ann,l,signed,s\n").keys() == {"news_1.mov", "clip [1].mp4"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("002,ann,l,signed,s\n002.mp4,bob,l,signed,s\n", r"rows 2 and 3 both name .*002.mp4"),
        ("002,ann,l,signed,s\n002,ann,l,signed,s\n", "rows 2 and 3 both name clip '002'"),
        (
            "002,Ann B,l,signed,s\nnews_1,Ann.B,l,no,s\n",
            "rows 2 and 3 name 'Ann B' and 'Ann.B', which are both written",
        ),
    ],
)
def test_rows_that_contradict_each_other_are_refused(tree, rows, message):
    with pytest.raises(InputError, match=message):
        people(tree, rows)


def test_files_that_no_row_names_stay_unknown_and_apart(tree):
    consent = tree.parent / "consent.csv"
    consent.write_text(HEADER + "person_a/001,person_a,CC BY 4.0,signed,studio\n")
    clips = {str(Path(c.path).relative_to(tree)): c for c in find_clips([tree], consent)}
    assert clips["person_b/001.mp4"].consent.consent == "unknown"
    assert clips["person_b/001.mp4"].consent.identity != "person_a"
