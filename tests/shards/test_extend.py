"""Features for a dataset that is built: without tracking again, the same rows, to be stopped and gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from configs import InputError
from heads.measures.lips import lip_shape
from headstart.cli.app import main
from shards.build import extend
from shards.build.build import build
from shards.check.info import info
from shards.check.verify import verify
from shards.features import open_feature
from shards.read.dataset import open_dataset
from shards.tracking.av_offset import AvOffset, LipFilters
from tests.shards.features.models import whisper
from tests.support.fake_tracker import TRACKER, write_video
from tests.support.samples import make_dataset


def run(videos, out, **options):
    return build(videos, out, tracker=TRACKER, workers=options.pop("workers", 0), samples_per_shard=4, **options)


@pytest.fixture
def videos(tmp_path) -> Path:
    for name in ("ann", "bob", "cyd"):
        write_video(tmp_path / "videos", name, {"seed": 1, "segments": 5}, {"seed": 9, "segments": 3})
    return tmp_path / "videos"


@pytest.fixture
def encoder(tmp_path) -> Path:
    return whisper(tmp_path / "encoder")


def rows_of(folder: Path, feature: str) -> dict[str, np.ndarray]:
    dataset = open_dataset(folder)
    return {row.key: dataset.read(row.key).features(feature) for row in dataset.samples}


def test_added_features_are_those_of_a_build_that_had_them_from_the_start(videos, tmp_path, encoder):
    run(videos, tmp_path / "late")
    before = {
        row.key: open_dataset(tmp_path / "late").read(row.key).raw("f001.jpg")
        for row in open_dataset(tmp_path / "late").samples
    }
    result = run([], tmp_path / "late", features=[f"whisper={encoder}"])
    assert result["built_clips"] == 0
    assert result["extended_shards"] > 1
    run(videos, tmp_path / "first", features=[f"whisper={encoder}"])
    late, first = rows_of(tmp_path / "late", "whisper"), rows_of(tmp_path / "first", "whisper")
    assert sorted(late) == sorted(first) == sorted(before)
    for key, rows in late.items():
        # The sound was rounded to 16 bits in between.
        np.testing.assert_allclose(rows, first[key], atol=0.02 * np.abs(first[key]).max())
        assert open_dataset(tmp_path / "late").read(key).raw("f001.jpg") == before[key]
    assert verify(str(tmp_path / "late"))["ok"]
    assert info(str(tmp_path / "late"))["features"] == {"logmel": 160, "whisper": 32}


def test_the_dataset_records_the_weights_and_later_builds_use_them_without_being_told(videos, tmp_path, encoder):
    run(videos, tmp_path / "d", features=[f"whisper={encoder}"])
    record = open_dataset(tmp_path / "d").feature_records["whisper"]
    assert record == open_feature(f"whisper={encoder}").record
    assert open_dataset(tmp_path / "d").feature_records["logmel"] == {"name": "logmel", "size": 160, "weights": None}
    write_video(videos, "eve")
    for features in (["logmel"], ["whisper"]):
        run(videos, tmp_path / "d", features=features)
        assert set(open_dataset(tmp_path / "d").read("eve/eve-00000").members) >= {"audio.whisper.npy"}


def test_other_weights_than_the_datasets_are_refused(videos, tmp_path, encoder):
    run(videos, tmp_path / "d", features=[f"whisper={encoder}"])
    other = whisper(tmp_path / "other", encoder_layers=1)
    with pytest.raises(InputError, match=r"holds whisper of .*encoder .* asked for .*other"):
        run(videos, tmp_path / "d", features=[f"whisper={other}"])


def test_an_addition_that_was_stopped_goes_on_with_the_same_weights_alone(videos, tmp_path, encoder, monkeypatch):
    import shards.build.worker as worker

    run(videos, tmp_path / "d")
    calls, real = [], worker.extend_shards

    def once(task, settings):
        calls.append(task)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return real(task, settings)

    monkeypatch.setattr(worker, "extend_shards", once)
    with pytest.raises(KeyboardInterrupt):
        run([], tmp_path / "d", features=[f"whisper={encoder}"])
    assert open_dataset(tmp_path / "d").features == {"logmel": 160}  # not before every shard has it
    assert verify(str(tmp_path / "d"))["ok"]
    with pytest.raises(InputError, match="holds whisper of"):
        run([], tmp_path / "d", features=[f"whisper={whisper(tmp_path / 'other', encoder_layers=1)}"])
    calls.clear()
    monkeypatch.setattr(worker, "extend_shards", lambda task, settings: calls.append(task) or real(task, settings))
    run([], tmp_path / "d")  # goes on by itself
    assert 0 < len(calls) < 3
    assert open_dataset(tmp_path / "d").features == {"logmel": 160, "whisper": 32}
    assert "adding" not in json.loads((tmp_path / "d/build.json").read_text())["settings"]
    assert verify(str(tmp_path / "d"))["ok"]


def test_a_dataset_that_no_build_made_gets_features_too(tmp_path, encoder):
    make_dataset(tmp_path / "d")
    count = len(open_dataset(tmp_path / "d"))
    build([], tmp_path / "d", features=[f"whisper={encoder}"], workers=2)
    rows = rows_of(tmp_path / "d", "whisper")
    assert len(rows) == count
    assert all(np.isfinite(value).all() and value.shape[1] == 32 for value in rows.values())


def test_no_videos_for_a_dataset_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no dataset here, and no videos to build one from"):
        build([], tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_run_without_videos_states_no_share_of_tracked_frames(tmp_path, capsys):
    make_dataset(tmp_path / "d")
    assert build([], tmp_path / "d", workers=0)["tracked_fraction"] is None
    assert main(["shards", "build", "--out", str(tmp_path / "d")]) == 0
    assert "tracked" not in capsys.readouterr().out


def test_missing_weights_are_refused_before_any_work(videos, tmp_path, encoder):
    run(videos, tmp_path / "d", features=[f"whisper={encoder}"])
    encoder.rename(tmp_path / "away")
    open_feature.__globals__["_open"].cache_clear()
    run(videos, tmp_path / "d")  # nothing to extract
    write_video(videos, "eve")
    with pytest.raises(InputError, match="cannot be loaded"):
        run(videos, tmp_path / "d")


def test_a_dataset_without_the_feature_says_which_command_adds_it(tmp_path):
    make_dataset(tmp_path / "d")
    with pytest.raises(InputError, match=r"headstart shards build --out .*/d --features whisper"):
        open_dataset(tmp_path / "d").stored_features("whisper")


LATE = 0.06  # s


def samples_of(folder: Path, clip: str):
    dataset = open_dataset(folder)
    return [dataset.read(row.key) for row in dataset.samples if row.clip == clip]


@pytest.fixture
def believed(monkeypatch):
    """Any Whisper has filters, which find the first clip that they see late and the others in step; what they were given."""
    given = []

    def offset(parts, filters):
        given.append(parts)
        return AvOffset(LATE, 0.9) if len(given) == 1 else AvOffset(0.0, 0.8)

    monkeypatch.setattr(extend, "has_filters", lambda record: record["name"] == "whisper")
    monkeypatch.setattr(extend, "filters_for", lambda feature: LipFilters(np.ones((3, 1, 1), np.float32), feature))
    monkeypatch.setattr(extend, "offset_of", offset)
    monkeypatch.setattr(extend, "LEAST_FRAMES", 10)
    return given


def test_stored_sound_is_put_in_step_with_all_that_depends_on_it(tmp_path, encoder, believed):
    for name in ("ann", "bob"):
        write_video(tmp_path / "videos", name, {"seed": 1, "segments": 5})
    folder = tmp_path / "d"
    run(tmp_path / "videos", folder, features=[f"whisper={encoder}"])
    before, other = (samples_of(folder, name) for name in ("ann", "bob"))
    sound = np.concatenate([sample.audio for sample in before])
    assert run([], folder, put_in_step=True)["extended_shards"] == len({sample.shard for sample in before})

    (lips, rows), *more = believed[0]
    assert not more
    landmarks = np.concatenate([sample.track["landmarks"] for sample in before])
    np.testing.assert_array_equal(lips, lip_shape(torch.from_numpy(landmarks)).numpy())
    np.testing.assert_array_equal(rows, np.concatenate([sample.features("whisper") for sample in before]))

    after, by = samples_of(folder, "ann"), round(LATE * 16_000)
    moved = np.concatenate([sample.audio for sample in after])
    np.testing.assert_array_equal(moved, np.concatenate([sound[by:], np.zeros(by, np.float32)]))
    for name, spec in (("logmel", "logmel"), ("whisper", f"whisper={encoder}")):
        wanted = open_feature(spec).extract(moved).astype(np.float16)
        np.testing.assert_array_equal(np.concatenate([sample.features(name) for sample in after]), wanted)
    for old, new in zip(before, after, strict=True):
        assert (new.meta["av_offset"], new.meta["av_offset_confidence"]) == (LATE, 0.9)
        level = np.sqrt(np.mean(new.audio**2))
        assert new.motion["loudness"] == pytest.approx(level)
        assert new.lips["loudness"] == pytest.approx(level)
        assert new.raw("f001.jpg") == old.raw("f001.jpg")
        np.testing.assert_array_equal(new.track["landmarks"], old.track["landmarks"])
    assert json.loads((folder / "build.json").read_text())["clips"]["ann"]["av_offset"] == LATE
    assert all(
        sample.raw("audio.flac") == kept.raw("audio.flac") for sample, kept in zip(samples_of(folder, "bob"), other)
    )
    assert verify(str(folder))["ok"]


def test_sound_is_taken_from_the_samples_before_and_after_and_is_silence_in_gaps(tmp_path):
    make_dataset(tmp_path / "d", {"ann": 3}, length=2)
    first, _, last = samples_of(tmp_path / "d", "ann_clip0")
    sounds = first.audio, last.audio
    moved = extend._moved([first, last], -960)  # frames 0, 1 and 4, 5
    np.testing.assert_array_equal(moved[first.key], np.concatenate([np.zeros(960), sounds[0][:320]]))
    np.testing.assert_array_equal(moved[last.key], np.concatenate([np.zeros(960), sounds[1][:320]]))
    moved = extend._moved([first, last], 3 * 640)
    np.testing.assert_array_equal(moved[first.key], np.concatenate([np.zeros(640), sounds[1][:640]]))


def test_a_dataset_without_an_encoder_that_tells_offsets_is_refused(tmp_path):
    make_dataset(tmp_path / "d")
    with pytest.raises(
        InputError, match=r"Whisper tiny.en, which this dataset does not have; add them \(headstart shards"
    ):
        run([], tmp_path / "d", put_in_step=True)
    with pytest.raises(InputError, match="cannot both be put in step and be kept"):
        run([], tmp_path / "d", put_in_step=True, in_step=False)
