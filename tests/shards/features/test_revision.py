"""A feature whose rows get other values gets another revision, and what was made from earlier rows is refused."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from configs import InputError
from shards.build.build import build
from shards.check.verify import verify
from shards.features import open_feature
from shards.features.whisper import Whisper
from shards.read.dataset import open_dataset
from tests.shards.features.models import whisper
from tests.support.fake_tracker import TRACKER, write_video
from tests.support.samples import make_dataset


@pytest.fixture
def encoder(tmp_path):
    return whisper(tmp_path / "encoder")


@pytest.fixture
def revise(monkeypatch):
    """Raises the revision of ``whisper``, whose rows are then twice as large."""

    def raised() -> None:
        real = Whisper.open_encoder
        monkeypatch.setattr(Whisper, "revision", 2)
        monkeypatch.setattr(Whisper, "open_encoder", lambda self: lambda sound: 2 * real(self)(sound))
        open_feature.__globals__["_open"].cache_clear()

    yield raised
    open_feature.__globals__["_open"].cache_clear()


def rows_of(folder) -> dict[str, np.ndarray]:
    dataset = open_dataset(folder)
    return {row.key: dataset.read(row.key).features("whisper") for row in dataset.samples}


def test_the_first_revision_is_not_written_and_a_record_without_one_is_of_the_first(encoder, revise):
    first = open_feature(f"whisper={encoder}").record
    assert "revision" not in first
    assert open_feature({**first, "revision": 1}).record == first
    revise()
    assert open_feature(f"whisper={encoder}").record == {**first, "revision": 2}
    with pytest.raises(
        InputError, match=r"'whisper' of revision 1, expected 2: .*shards build --features whisper.*adapt"
    ):
        open_feature(first)
    with pytest.raises(InputError, match=r"of revision 3, expected 2: .* use the version of headstart that made it"):
        open_feature({**first, "revision": 3})


def test_a_dataset_of_an_earlier_revision_takes_no_clips_before_its_rows_are_made_again(tmp_path, encoder, revise):
    write_video(tmp_path / "videos", "ann", {"seed": 1, "segments": 5})
    folder, options = tmp_path / "d", {"tracker": TRACKER, "workers": 0, "samples_per_shard": 4}
    build(tmp_path / "videos", folder, features=[f"whisper={encoder}"], **options)
    before = rows_of(folder)
    pictures = {key: open_dataset(folder).read(key).raw("f001.jpg") for key in before}
    revise()
    write_video(tmp_path / "videos", "bob")
    command = f"'headstart shards build --out {folder} --features whisper={encoder}'"
    with pytest.raises(InputError, match=rf"{folder}: .*whisper' of revision 1, expected 2: .*{command}"):
        build(tmp_path / "videos", folder, **options)
    assert build([], folder, features=["whisper"], tracker="no.such:tracker", workers=0)["extended_shards"] == 1
    after = rows_of(folder)
    for key, rows in before.items():
        np.testing.assert_allclose(after[key], 2 * rows.astype(np.float32), atol=0.05)
        assert open_dataset(folder).read(key).raw("f001.jpg") == pictures[key]
    assert open_dataset(folder).feature_records["whisper"]["revision"] == 2
    assert verify(str(folder))["ok"]
    assert build([], folder, features=["whisper"], workers=0)["extended_shards"] == 0
    build(tmp_path / "videos", folder, **options)  # and clips as well


def test_rows_that_were_made_again_in_part_are_refused_until_all_are(tmp_path, encoder, revise, monkeypatch):
    import shards.build.worker as worker
    from pretrain.task import feature_record

    folder = make_dataset(tmp_path / "d")
    build([], folder, features=[f"whisper={encoder}"], workers=0)
    feature_record(open_dataset(folder), "whisper", "audio-expression")
    revise()
    calls, real = [], worker.extend_shards

    def once(task, settings):
        calls.append(task)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return real(task, settings)

    monkeypatch.setattr(worker, "extend_shards", once)
    with pytest.raises(KeyboardInterrupt):
        build([], folder, features=["whisper"], workers=0)
    with pytest.raises(InputError, match=rf"dataset {folder}: .*revision 1, expected 2: .*shards build --out {folder}"):
        feature_record(open_dataset(folder), "whisper", "audio-expression")
    monkeypatch.setattr(worker, "extend_shards", real)
    build([], folder, workers=0)  # goes on by itself
    assert feature_record(open_dataset(folder), "whisper", "audio-expression")["revision"] == 2
    spread = [float(np.std(rows.astype(np.float32))) for rows in rows_of(folder).values()]
    assert np.allclose(spread, 2, atol=0.05)
    assert "adding" not in json.loads((tmp_path / "d/build.json").read_text())["settings"]


def test_rows_of_a_feature_that_is_not_installed_can_still_be_read():
    from pretrain.task import current

    record = {"name": "elsewhere", "size": 2, "weights": None, "revision": 7}
    assert current(SimpleNamespace(url="corpus"), record) is record
