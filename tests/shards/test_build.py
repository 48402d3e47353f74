"""The builder: idempotent, safe against interruption at any point, and honest about what it refused."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.training.views import SequenceView
from configs import InputError
from shards import Reader, open_dataset
from shards.build.build import build
from shards.build.find import find_clips
from shards.build.journal import Journal
from shards.check.verify import verify
from shards.format.catalogue import read_catalogue, write_catalogue
from shards.people.consent import read_consent
from shards.people.forget import forget
from tests.support.fake_tracker import TRACKER, write_video
from tests.support.waiting import wait_until

HEADER = "clip,identity,licence,consent,source\n"


def run(videos, out, **options):
    return build(videos, out, tracker=TRACKER, workers=options.pop("workers", 0), samples_per_shard=4, **options)


def listing(folder: Path) -> dict[str, bytes]:
    """The dataset proper: what readers see."""
    paths = [folder / "dataset.json", *folder.glob("shards/*"), *folder.glob("index/*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture
def videos(tmp_path) -> Path:
    for name in ("ann_1", "ann_2", "bob", "cyd", "dan"):
        write_video(tmp_path / "videos", name)
    return tmp_path / "videos"


def test_a_folder_of_videos_becomes_a_dataset_that_verifies(videos, tmp_path):
    result = run(videos, tmp_path / "d")
    counts = {name: result[name] for name in ("identities", "clips", "segments", "frames", "schema", "refused")}
    assert counts == {"identities": 5, "clips": 5, "segments": 10, "frames": 40, "schema": 1, "refused": []}
    assert result["tracked_fraction"] == 1.0
    assert verify(str(tmp_path / "d")) == {"ok": True, "samples": 10, "broken": []}
    sample = open_dataset(tmp_path / "d").read("bob/bob-00001")
    assert sample.meta["first_frame"] == 4
    assert sample.meta["licence"] == "unknown"
    assert len(sample.meta["source_sha256"]) == 64
    assert sample.meta["tools"]["av"] != "absent"


def test_features_of_a_segment_are_those_of_the_whole_shot(videos, tmp_path):
    from shards import logmel

    run(videos, tmp_path / "d")
    dataset = open_dataset(tmp_path / "d")
    pieces = [dataset.read(f"bob/bob-0000{i}") for i in (0, 1)]
    whole = logmel(np.concatenate([piece.audio for piece in pieces]))
    stored = np.concatenate([piece.features("logmel") for piece in pieces])
    np.testing.assert_allclose(stored, whole, atol=0.02)


def test_running_again_does_nothing_and_more_videos_do_only_the_rest(videos, tmp_path):
    run(videos, tmp_path / "d")
    before = listing(tmp_path / "d")
    assert run(videos, tmp_path / "d")["built_clips"] == 0
    assert listing(tmp_path / "d") == before
    write_video(videos, "eve")
    assert run(videos, tmp_path / "d")["built_clips"] == 1
    after = listing(tmp_path / "d")
    assert all(after[name] == data for name, data in before.items() if name != "dataset.json")
    assert open_dataset(tmp_path / "d").identities[-1] == "eve"
    assert verify(str(tmp_path / "d"))["ok"]


def test_clips_that_a_repair_lost_are_built_again_and_shortened_ones_are_not_doubled(videos, tmp_path, caplog):
    run(videos, tmp_path / "d")
    caplog.set_level("INFO")
    lost = {"bob/bob-00000", "bob/bob-00001", "cyd/cyd-00000"}
    for name in open_dataset(tmp_path / "d").table.names:
        path = tmp_path / "d" / "shards" / f"{name}.tar"
        data = bytearray(path.read_bytes())
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.partition(".")[0] in lost:
                    data[member.offset_data] ^= 0x5A
        path.write_bytes(bytes(data))
    result = verify(str(tmp_path / "d"), repair=True)
    assert {key for one in result["repaired"] for key in one["lost"]} == lost
    assert result["build_again"] == ["bob"]
    said = caplog.text
    assert "1 clip lost all samples (bob)" in said
    assert "1 clip lost some samples (cyd)" in said
    assert run(videos, tmp_path / "d")["built_clips"] == 1
    keys = [row.key for row in open_dataset(tmp_path / "d").samples]
    assert len(keys) == len(set(keys)) == 9
    assert verify(str(tmp_path / "d"))["ok"]


def test_processes_and_this_process_build_the_same_samples(videos, tmp_path):
    run(videos, tmp_path / "here")
    run(videos, tmp_path / "there", workers=2)
    here, there = open_dataset(tmp_path / "here"), open_dataset(tmp_path / "there")
    assert [row.key for row in here.samples] == sorted(row.key for row in there.samples)
    for row in here.samples:
        one, other = here.read(row.key), there.read(row.key)
        assert one.raw("track.npz") == other.raw("track.npz")
        assert one.raw("f001.jpg") == other.raw("f001.jpg")


def start_build(videos: Path, out: Path, workers: int) -> subprocess.Popen:
    code = f"from shards.build.build import build; build({str(videos)!r}, {str(out)!r}, tracker={TRACKER!r}, "
    code += f"workers={workers}, samples_per_shard=2)"
    path = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, start_new_session=True
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_build_killed_at_any_point_leaves_a_valid_dataset_and_goes_on(tmp_path, workers):
    for i in range(12):  # the last ones are not found before the kills are over: no build ends ahead of its kill
        plan = {"seed": i, "sleep": 0.02, "segments": 3}
        if i > 6:
            plan["until"] = str(tmp_path / "killed")
        write_video(tmp_path / "videos", f"person{i:02d}", plan)
    out = tmp_path / "d"
    for seen in (1, 3):  # kill as soon as so many shards are there: in the midst of writing the next
        process = start_build(tmp_path / "videos", out, workers)
        wait_until(lambda seen=seen: len(list(out.glob("shards/*.tar"))) >= seen, pause=0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        found = verify(str(out))
        assert found["ok"], found
        kept = found["samples"]
    (tmp_path / "killed").touch()
    result = run(tmp_path / "videos", out)
    assert (result["segments"], result["clips"]) == (36, 12)
    assert result["segments"] >= kept
    assert verify(str(out)) == {"ok": True, "samples": 36, "broken": []}
    assert not list(out.glob(".tmp-*"))
    assert {path.stem for path in out.glob("shards/*")} == set(open_dataset(out).table.names)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_build_leaves_no_shard_that_it_had_begun(tmp_path, workers):
    for i in range(6):
        plan = {"seed": i, "segments": 3, **({"until": str(tmp_path / "never")} if i > 3 else {})}
        write_video(tmp_path / "videos", f"person{i:02d}", plan)
    out = tmp_path / "d"
    process = start_build(tmp_path / "videos", out, workers)
    wait_until(lambda: list(out.glob("shards/*.tar")) and list(out.glob(".tmp-*/*.tar")), pause=0.005)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    assert not list(out.glob(".tmp-*"))
    assert {path.stem for path in out.glob("shards/*")} == set(open_dataset(out).table.names)
    assert verify(str(out))["ok"]


def test_a_crash_between_the_two_records_neither_loses_nor_doubles_a_clip(videos, tmp_path, monkeypatch):
    import shards.build.build as module

    real = module.write_catalogue
    calls = []

    def dies(url, catalogue):
        calls.append(1)
        if len(calls) > 1:  # the first makes the empty dataset
            raise KeyboardInterrupt
        real(url, catalogue)

    monkeypatch.setattr(module, "write_catalogue", dies)
    with pytest.raises(KeyboardInterrupt):
        run(videos, tmp_path / "d")
    monkeypatch.undo()
    assert json.loads((tmp_path / "d" / "build.json").read_text())["clips"]
    assert run(videos, tmp_path / "d")["segments"] == 10
    assert verify(str(tmp_path / "d")) == {"ok": True, "samples": 10, "broken": []}


def test_a_worker_that_dies_is_replaced_and_only_its_clip_is_refused(videos, tmp_path):
    write_video(videos, "bomb", {"crash": True})
    result = run(videos, tmp_path / "d", workers=1)
    assert [entry["clip"] for entry in result["refused"]] == ["bomb"]
    assert "crashed on it 2 times (signal SIGKILL)" in result["refused"][0]["reason"]
    assert result["clips"] == 5
    assert verify(str(tmp_path / "d"))["ok"]


def test_what_is_refused_is_named_with_its_reason_in_result_json_and_page(videos, tmp_path):
    write_video(videos, "two_faces", {"refuse": "two faces <at once>"}, {"segments": 1})
    (videos / "notes.mp4").write_text("not json")
    result = run(videos, tmp_path / "d")
    reasons = {entry["clip"]: entry["reason"] for entry in result["refused"]}
    assert reasons["two_faces"] == "two faces <at once>"
    assert "not a video" in reasons["notes"]
    records = json.loads((tmp_path / "d" / "build.json").read_text())["clips"]
    assert records["two_faces"]["tracked_fraction"] == pytest.approx(4 / 12, abs=1e-3)
    page = (tmp_path / "d" / "report.html").read_text()
    assert "two faces &lt;at once&gt;" in page
    assert '<img src="report/bob.jpg"' in page
    assert (tmp_path / "d" / "report" / "bob.jpg").stat().st_size > 1000


def test_silent_clips_are_kept_for_pictures_and_left_out_where_sound_is_learned(videos, tmp_path):
    write_video(videos, "mute", {"sound": False})
    run(videos, tmp_path / "d")
    dataset = open_dataset(tmp_path / "d")
    assert len(dataset) == 12
    keys = [key for batch in Reader(dataset, SequenceView(window=2), batch_size=4, epochs=1) for key in batch["keys"]]
    assert sorted(keys) == [row.key for row in dataset.samples if row.identity != "mute"]
    assert len(dataset.with_sound()) == 10


def test_the_consent_file_gives_identity_and_licence(videos, tmp_path):
    (tmp_path / "c.csv").write_text(HEADER + "ann_*,ann,CC-BY 4.0,signed 2026,studio\nbob,robert,owned,yes,phone\n")
    result = run(videos, tmp_path / "d", consent=tmp_path / "c.csv")
    dataset = open_dataset(tmp_path / "d")
    assert dataset.identities == ["ann", "cyd", "dan", "robert"]
    assert dataset.licences["ann"] == ["CC-BY 4.0"]
    assert dataset.licences["dan"] == ["unknown"]
    assert dataset.read("ann/ann_2-00000").meta["consent"] == "signed 2026"
    assert result["identities"] == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip,person,licence,consent,source\na,b,c,d,e\n", "row 1 has the columns 'clip,person"),
        ("", "row 1 has the columns ''"),
        (HEADER + "a,b,c\n", "row 2 has 3 cells, expected 5"),
        (HEADER + "a,,c,d,e\n", "row 2 lacks a identity"),
        (HEADER + "a,b,c,d,e\n\na,x,c,d,e\n", "rows 2 and 4 both name clip 'a'"),
    ],
)
def test_a_wrong_consent_file_is_refused_before_any_work(videos, tmp_path, text, message):
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        run(videos, tmp_path / "d", consent=tmp_path / "c.csv")
    assert not (tmp_path / "d").exists()


def test_exact_names_win_over_patterns(tmp_path):
    (tmp_path / "c.csv").write_text(HEADER + "news_*,anchor,a,,\nnews_7,guest,b,,\n")
    files = ["/v/news_7.mp4", "/v/news_8.mp4", "/v/x.mp4"]
    found = read_consent(str(tmp_path / "c.csv")).assign(files)
    assert {file: record.identity for file, record in found.items()} == {files[0]: "guest", files[1]: "anchor"}


def test_the_shared_consent_file_names_every_shared_clip(clips):
    found = find_clips([clips], clips / "consent.csv")
    rows = [line.strip("| ").split(" | ") for line in (clips / "INDEX.md").read_text().splitlines()]
    names = {path.stem for path in clips.glob("*.mp4")}
    index = {row[0]: row[2] for row in rows if row[0] in names}
    assert len(index) > 100
    assert len(found) == len(index)
    assert all(clip.known for clip in found)
    assert {clip.consent.identity for clip in found} == set(index.values())


def test_files_of_one_name_in_two_folders_are_two_clips(tmp_path):
    for folder in ("a", "b"):
        write_video(tmp_path / "v" / folder, "take 1")
    names = [clip.name for clip in find_clips([tmp_path / "v"])]
    assert len(set(names)) == 2
    assert all(name.startswith("take_1-") for name in names)


def test_a_withdrawn_person_is_not_built_in_again(videos, tmp_path):
    run(videos, tmp_path / "d")
    forget(str(tmp_path / "d"), "bob")
    result = run(videos, tmp_path / "d")
    assert "bob" not in open_dataset(tmp_path / "d").identities
    assert "withdrawn" in next(entry["reason"] for entry in result["refused"] if entry["clip"] == "bob")
    assert result["built_clips"] == 0, "only bob's refusal is new: the rewritten shards still count"
    assert not (tmp_path / "d" / "report" / "bob.jpg").exists()


def test_a_withdrawn_video_is_not_built_in_under_another_name(videos, tmp_path):
    run(videos, tmp_path / "d")
    forget(str(tmp_path / "d"), "bob")
    other = tmp_path / "other"
    other.mkdir()
    bob = next(path for path in videos.iterdir() if path.stem == "bob")
    (other / f"robert{bob.suffix}").write_bytes(bob.read_bytes())
    with pytest.raises(InputError, match=r"robert\..*withdrawn from the dataset"):
        run(other, tmp_path / "d")
    assert "robert" not in open_dataset(tmp_path / "d").identities


def test_a_copy_under_another_name_is_left_out_and_says_of_whom(videos, tmp_path):
    bob = next(path for path in videos.iterdir() if path.stem == "bob")
    (videos / f"copy_of_bob{bob.suffix}").write_bytes(bob.read_bytes())
    (tmp_path / "c.csv").write_text(HEADER + "bob,robert,owned,yes,phone\n")
    for _ in range(2):  # the consent file's clip is used, also when the build is run again
        (entry,) = run(videos, tmp_path / "d", consent=tmp_path / "c.csv")["refused"]
        assert entry["clip"] == "copy_of_bob"
        assert entry["reason"].startswith("byte for byte the video of clip 'bob', identity 'robert', which is used;")
    assert open_dataset(tmp_path / "d").identities == ["ann_1", "ann_2", "cyd", "dan", "robert"]
    bob = bob.rename(tmp_path / f"renamed{bob.suffix}")
    with pytest.raises(InputError, match="renamed: byte for byte the video of clip 'bob'"):
        run(bob, tmp_path / "d")


def test_copies_of_one_identity_are_two_clips(videos, tmp_path):
    bob = next(path for path in videos.iterdir() if path.stem == "bob")
    (videos / f"copy_of_bob{bob.suffix}").write_bytes(bob.read_bytes())
    (tmp_path / "c.csv").write_text(HEADER + "*bob,robert,owned,yes,phone\n")
    result = run(videos, tmp_path / "d", consent=tmp_path / "c.csv")
    assert (result["refused"], result["clips"], result["identities"]) == ([], 6, 5)


def test_forgetting_takes_copies_of_the_persons_videos_with_it(videos, tmp_path, monkeypatch, caplog):
    # Datasets of earlier versions hold copies under two identities. A build says so.
    monkeypatch.setattr("shards.build.build.leave_out_copies", lambda clips, records: (clips, []))
    bob = next(path for path in videos.iterdir() if path.stem == "bob")
    (videos / f"röbert{bob.suffix}").write_bytes(bob.read_bytes())
    caplog.set_level("INFO")
    run(videos, tmp_path / "d")
    before = open_dataset(tmp_path / "d").identities
    assert {"bob", "r_bert"} < set(before)
    assert "clips 'bob' and 'r_bert' are the same video, of identities 'bob' and 'r_bert'" in caplog.text
    result = forget(str(tmp_path / "d"), "röbert")
    assert result["identity"] == "r_bert"
    assert result["also_as"] == ["bob"]
    assert result["clips"] == 2
    left = open_dataset(tmp_path / "d")
    assert set(left.identities) == set(before) - {"bob", "r_bert"}
    assert verify(str(tmp_path / "d"))["ok"]
    assert {"bob", "r_bert"}.isdisjoint(Journal.read(str(tmp_path / "d")).clips)
    assert forget(str(tmp_path / "d"), "röbert")["samples"] == 0


def test_a_changed_file_under_an_old_name_is_reported(videos, tmp_path):
    run(videos, tmp_path / "d")
    write_video(videos, "bob", {"segments": 5})
    result = run(videos, tmp_path / "d")
    assert result["refused"][0]["clip"] == "bob"
    assert "another name" in result["refused"][0]["reason"]
    assert result["segments"] == 10


def test_a_consent_file_that_now_says_otherwise_is_reported(videos, tmp_path):
    run(videos, tmp_path / "d")
    (tmp_path / "c.csv").write_text(HEADER + "bob,robert,owned,yes,phone\n")
    (entry,) = run(videos, tmp_path / "d", consent=tmp_path / "c.csv")["refused"]
    assert entry["clip"] == "bob"
    assert "was built as bob, licence unknown" in entry["reason"]
    assert "now says robert, licence owned" in entry["reason"]


def test_another_rig_than_the_datasets_is_refused_before_any_work(videos, tmp_path):
    from dataclasses import replace

    run(videos, tmp_path / "d")
    catalogue = read_catalogue(str(tmp_path / "d"))
    assert catalogue.rig["name"].startswith("mediapipe")
    assert catalogue.rig["source"] == "mediapipe"
    assert open_dataset(tmp_path / "d").read(0).meta["rig"] == catalogue.rig
    write_catalogue(str(tmp_path / "d"), replace(catalogue, rig={"name": "other/1", "sha256": "f" * 64}))
    write_video(videos, "eve")
    with pytest.raises(InputError, match=r"made with rig other/1 .* use the same rig \(--rig\)"):
        run(videos, tmp_path / "d")


def test_a_rig_by_path_is_recorded_with_its_place(videos, tmp_path):
    import shutil

    from heads.rig import load_rig

    shutil.copy(
        next(Path(load_rig.__wrapped__.__code__.co_filename).parent.glob("data/mediapipe.npz")), tmp_path / "mine.npz"
    )
    run(videos, tmp_path / "d", rig=tmp_path / "mine.npz")
    rig = open_dataset(tmp_path / "d").rig
    assert rig["source"].endswith(str(tmp_path / "mine.npz"))
    assert rig["sha256"] == load_rig().sha256
    write_video(videos, "eve")
    assert run(videos, tmp_path / "d")["built_clips"] == 1  # with the dataset's rig


def test_a_touched_file_is_still_the_same_one(videos, tmp_path):
    run(videos, tmp_path / "d")
    os.utime(videos / "bob.mp4", (1, 1))
    assert run(videos, tmp_path / "d")["refused"] == []


# ---------------------------------------------------------------------------------------------------- bad input


def test_a_missing_path_and_an_empty_folder_are_refused_and_nothing_is_left(tmp_path):
    (tmp_path / "empty").mkdir()
    for videos, message in ((tmp_path / "nothing", "no such file or folder"), (tmp_path / "empty", "holds no videos")):
        with pytest.raises(InputError, match=message):
            run(videos, tmp_path / "d")
        assert not (tmp_path / "d").exists()


def test_a_single_file_that_is_no_video_is_one_sentence_and_leaves_nothing(tmp_path):
    (tmp_path / "x.mp4").write_text("no")
    with pytest.raises(InputError, match=r"x.mp4: .*not a video"):
        run(tmp_path / "x.mp4", tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_an_unknown_feature_is_refused_and_nothing_is_left(videos, tmp_path):
    with pytest.raises(InputError, match="'mfcc': expected logmel"):
        run(videos, tmp_path / "d", features=("mfcc",))
    assert not (tmp_path / "d").exists()


def test_settings_that_differ_from_the_dataset_are_refused(videos, tmp_path):
    run(videos, tmp_path / "d")
    with pytest.raises(InputError, match="was built with size 512, got 256"):
        run(videos, tmp_path / "d", size=256)


def test_output_that_is_a_file_is_refused(videos, tmp_path):
    (tmp_path / "d").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        run(videos, tmp_path / "d")


def test_two_builds_at_once_are_refused(videos, tmp_path):
    from shards.build.lock import locked

    (tmp_path / "d").mkdir()
    with locked(str(tmp_path / "d")), pytest.raises(InputError, match="another build"):
        run(videos, tmp_path / "d")


def test_a_full_disk_is_one_sentence_and_the_dataset_stays_valid(videos, tmp_path, monkeypatch):
    import errno

    import shards.tar.shardfile as module

    run([videos / "ann_1.mp4", videos / "bob.mp4"], tmp_path / "d")
    before = listing(tmp_path / "d")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.TarFile, "write", full)
    with pytest.raises(InputError, match="the disk is full; free some space and run the same command again"):
        run(videos, tmp_path / "d")
    monkeypatch.undo()
    assert listing(tmp_path / "d") == before
    assert run(videos, tmp_path / "d")["segments"] == 10


@pytest.mark.slow
def test_ray_tasks_build_the_same_dataset(videos, tmp_path, monkeypatch):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    result = run(videos, tmp_path / "d", workers=2, address="")
    assert result["segments"] == 10
    assert verify(str(tmp_path / "d"))["ok"]
