"""Correcting who is in a clip and under which terms gives the bytes that a build with the right consent file gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs import InputError
from shards import open_dataset
from shards.build.build import build
from shards.build.journal import Journal
from shards.build.lock import locked
from shards.check.verify import verify
from shards.people import relabel as module
from shards.people.forget import forget
from shards.people.relabel import relabel
from tests.support.fake_tracker import TRACKER, write_video
from tests.support.samples import make_dataset

HEADER = "clip,identity,licence,consent,source\n"


def consent(folder: Path, rows: str, name: str = "c.csv") -> str:
    (folder / name).write_text(HEADER + rows)
    return str(folder / name)


def run(videos: Path, out: Path, **options):
    return build(videos, out, tracker=TRACKER, workers=0, samples_per_shard=4, **options)


@pytest.fixture
def videos(tmp_path) -> Path:
    for name in ("ann_1", "ann_2", "bob", "cyd"):
        write_video(tmp_path / "videos", name)
    return tmp_path / "videos"


@pytest.fixture
def data(tmp_path) -> str:
    """Clips ``ann_clip0`` to ``2``, ``bob_clip0`` to ``1``, ``cyd_clip0`` to ``2`` without build records."""
    return make_dataset(tmp_path / "data", {"ann": 7, "bob": 5, "cyd": 9})


def test_a_relabelled_dataset_is_the_one_that_a_build_with_that_file_gives(videos, tmp_path):
    bob = next(path.name for path in videos.iterdir() if path.stem == "bob")  # a row may name the file
    rows = consent(tmp_path, f"ann_*,ann,CC BY 4.0,signed,studio\n{bob},robert,owned,yes,\ncyd,cyd,unknown,unknown,\n")
    run(videos, tmp_path / "right", consent=rows)
    run(videos, tmp_path / "d")
    result = relabel(str(tmp_path / "d"), rows)
    assert [(one["clip"], one["now"]) for one in result["relabelled"]] == [
        ("ann_1", "ann, licence CC BY 4.0, consent signed"),
        ("ann_2", "ann, licence CC BY 4.0, consent signed"),
        ("bob", "robert, licence owned, consent yes"),
    ]
    assert (result["samples"], result["unused"]) == (6, [])
    assert verify(str(tmp_path / "d")) == {"ok": True, "samples": 8, "broken": []}
    ours, right = open_dataset(tmp_path / "d"), open_dataset(tmp_path / "right")
    assert sorted(ours.table.sha256) == sorted(right.table.sha256)
    assert (ours.identities, ours.licences, ours.consents) == (right.identities, right.licences, right.consents)
    said = [Journal.read(str(tmp_path / name)).clips for name in ("d", "right")]
    for clip in (clip for clips in said for clip in clips.values()):
        clip.pop("shards")  # ours are revisions
    said[0]["cyd"]["in_consent_file"] = True  # its row says nothing new
    assert said[0] == said[1]
    assert "robert" in (tmp_path / "d" / "report.html").read_text()
    # The next build with that file finds everything as it says, and a withdrawal finds the person's videos.
    assert run(videos, tmp_path / "d", consent=rows)["refused"] == []
    assert forget(str(tmp_path / "d"), "robert")["clips"] == 1
    with pytest.raises(InputError, match="withdrawn"):
        run(next(path for path in videos.iterdir() if path.stem == "bob"), tmp_path / "d")


def test_a_build_that_finds_another_statement_names_the_command_that_corrects_it(videos, tmp_path):
    run(videos, tmp_path / "d")
    rows = consent(tmp_path, "bob,robert,owned,yes,\n")
    (entry,) = run(videos, tmp_path / "d", consent=rows)["refused"]
    assert entry["reason"] == (
        "was built as bob, licence unknown, consent unknown, the consent file now says robert, licence owned, consent yes; "
        "correct it with headstart shards relabel DATASET --consent FILE.csv"
    )


def test_a_corrected_licence_replaces_the_wrong_one_and_other_clips_keep_theirs(data, tmp_path):
    before = {row.key: open_dataset(data).read(row.key).raw("f001.jpg") for row in open_dataset(data).samples}
    rows = consent(tmp_path, "ann/*,ann,CC0,signed,\nbob_clip0,ann,CC BY,signed,\n")
    result = relabel(data, rows)
    assert result["samples"] == 7 + 3
    after = open_dataset(data)
    assert after.licences == {"ann": ["CC BY", "CC0"], "bob": ["test"], "cyd": ["test"]}
    assert after.consents == {"ann": ["signed"], "bob": ["yes"], "cyd": ["yes"]}
    assert {row.key: after.read(row.key).raw("f001.jpg") for row in after.samples} == {
        (f"ann/{key[4:]}" if key.startswith("bob/bob_clip0") else key): value for key, value in before.items()
    }
    assert after.info["clips"] == 8
    assert verify(data) == {"ok": True, "samples": 21, "broken": []}
    assert relabel(data, rows)["relabelled"] == []


def test_shards_without_changed_clips_are_not_touched(data, tmp_path):
    before = dict(zip(open_dataset(data).table.names, open_dataset(data).table.sha256))
    result = relabel(data, consent(tmp_path, "bob_clip1,bob,CC0,signed,\nnobody,x,y,z,\n"))
    after = dict(zip(open_dataset(data).table.names, open_dataset(data).table.sha256))
    assert result["unused"] == ["nobody"]
    assert result["shards_rewritten"] == len(after.items() - before.items()) == 1
    assert {path.stem for path in Path(data, "shards").iterdir()} == set(after)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("eve,eve,CC0,signed,\nfolder/ann_clip0,ann,CC0,signed,\n", "none of the 2 rows fits a clip of"),
        ("ann_clip0,cyd,CC0,signed,\nbob_clip0,dan,CC0,signed,\n", "'dan' was withdrawn"),
    ],
)
def test_what_cannot_be_done_changes_nothing(data, tmp_path, rows, message):
    relabel(data, consent(tmp_path, "cyd_clip2,dan,test,yes,\n", "first.csv"))
    forget(data, "dan")
    state = Path(data, "dataset.json").read_bytes()
    with pytest.raises(InputError, match=message):
        relabel(data, consent(tmp_path, rows))
    assert Path(data, "dataset.json").read_bytes() == state
    assert verify(data)["ok"]


def test_two_clips_of_one_name_cannot_become_one_persons(tmp_path):
    from shards.synthetic import synthesize

    synthesize(2, 0.2, 0, tmp_path / "d", size=32)
    one, two = open_dataset(tmp_path / "d").identities
    with pytest.raises(InputError, match="identity 'ann' would have 2 clips of the name 'talk0'"):
        relabel(str(tmp_path / "d"), consent(tmp_path, "*,ann,CC0,signed,\n"))
    with pytest.raises(InputError, match="'talk0', which fits 2 files"):
        relabel(str(tmp_path / "d"), consent(tmp_path, "talk0,ann,CC0,signed,\n"))
    relabel(str(tmp_path / "d"), consent(tmp_path, f"{two}/talk0,ann,CC0,signed,\n"))
    assert open_dataset(tmp_path / "d").identities == ["ann", one]


@pytest.mark.parametrize("stop", ["write_catalogue", "remove_old_revisions", "_relabel_report"])
def test_a_correction_that_was_cut_off_is_finished_by_the_next(videos, tmp_path, monkeypatch, stop):
    run(videos, tmp_path / "d")
    rows = consent(tmp_path, "bob,robert,owned,yes,\n")
    with monkeypatch.context() as patch:
        patch.setattr(module, stop, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            relabel(str(tmp_path / "d"), rows)
    assert verify(str(tmp_path / "d"))["ok"]
    relabel(str(tmp_path / "d"), rows)
    assert verify(str(tmp_path / "d")) == {"ok": True, "samples": 8, "broken": []}
    assert open_dataset(tmp_path / "d").identities == ["ann_1", "ann_2", "cyd", "robert"]
    assert Journal.read(str(tmp_path / "d")).clips["bob"]["identity"] == "robert"
    assert len(list((tmp_path / "d" / "shards").iterdir())) == len(open_dataset(tmp_path / "d").table.names)


def test_a_dataset_in_use_and_a_folder_that_is_none_are_refused(data, tmp_path):
    rows = consent(tmp_path, "ann_clip0,ann,CC0,signed,\n")
    with locked(data), pytest.raises(InputError, match="another build is writing here"):
        relabel(data, rows)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no dataset here"):
        relabel(str(tmp_path / "empty"), rows)
    assert list((tmp_path / "empty").iterdir()) == []


def test_the_command_prints_what_it_changed(data, tmp_path, capsys):
    from headstart.cli.app import main

    assert (
        main(["shards", "relabel", data, "--consent", consent(tmp_path, "ann_clip0,eve,CC0,signed,\n"), "--json"]) == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert result["relabelled"] == [
        {"clip": "ann_clip0", "was": "ann, licence test, consent yes", "now": "eve, licence CC0, consent signed"}
    ]
