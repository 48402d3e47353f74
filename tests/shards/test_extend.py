"""Features for a dataset that is built: without tracking again, the same rows, to be stopped and gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from configs import InputError
from shards.build.build import build
from shards.check.info import info
from shards.check.verify import verify
from shards.features import open_feature
from shards.read.dataset import open_dataset
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
    with pytest.raises(InputError, match="no videos were given"):
        build([], tmp_path / "d")
    assert not (tmp_path / "d").exists()


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
