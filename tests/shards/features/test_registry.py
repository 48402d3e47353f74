"""Features by name, by record, and from other packages."""

from __future__ import annotations

from importlib import metadata

import numpy as np
import pytest

from configs import InputError
from shards.features import FEATURES, FeatureStream, extract_features, feature_size, logmel, open_feature
from shards.features.base import Feature
from shards.features.registry import features, parse_feature
from tests.shards.features.models import convolutional, whisper
from tests.shards.features.sounds import noise


@pytest.fixture
def points(monkeypatch):
    """Entry points of the test, as an installed package would declare them."""

    def declare(**targets: str) -> None:
        found = [metadata.EntryPoint(name, target, "headstart.features") for name, target in targets.items()]
        monkeypatch.setattr(metadata, "entry_points", lambda group: found if group == "headstart.features" else [])
        features.cache_clear()

    yield declare
    monkeypatch.undo()
    features.cache_clear()


class Loudness(Feature):
    """Two numbers a frame: what an outside package might add."""

    name = "loudness"
    default_size = 2
    size = 2

    def stream(self):
        return self

    def push(self, sound):
        frames = sound[: len(sound) // 640 * 640].reshape(-1, 640)
        return np.stack([frames.std(1), np.abs(frames).max(1)], axis=1).astype(np.float32)

    def finish(self):
        return np.zeros((0, 2), np.float32)


def test_the_folder_holds_six_features():
    assert sorted(features()) == ["hubert", "logmel", "wav2vec2", "wavlm", "whisper", "whisper-live"]
    assert FEATURES == {
        "logmel": 160,
        "whisper": 384,
        "wav2vec2": 768,
        "hubert": 768,
        "wavlm": 768,
        "whisper-live": 2720,
    }


def test_a_feature_of_another_package_is_found_by_its_entry_point(points):
    points(loudness=f"{__name__}:Loudness")
    opened = open_feature("loudness")
    assert opened.record == {"name": "loudness", "size": 2, "weights": None}
    assert extract_features("loudness", noise(6400)).shape == (10, 2)


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("loudness", "no.such.module:X", "cannot be imported"),
        ("loudness", f"{__name__}:noise", "expected a subclass of shards.features.Feature whose name is 'loudness'"),
        ("louder", f"{__name__}:Loudness", "whose name is 'louder'"),
        ("logmel", "shards.features.logmel:LogMel", "the name is taken"),
    ],
)
def test_an_entry_point_that_is_no_feature_is_refused_by_name(points, name, target, message):
    points(**{name: target})
    with pytest.raises(InputError, match=message):
        open_feature("logmel")


@pytest.mark.parametrize("spec", ["mfcc", "logmel=folder", "logmel=", "whisper=", "", "loud mel"])
def test_unknown_features_and_weights_that_a_feature_has_not_are_refused(spec):
    with pytest.raises(
        InputError, match="expected logmel, hubert, wav2vec2, wavlm, whisper, whisper-live, or NAME=FOLDER"
    ):
        parse_feature(spec)


def test_a_record_opens_the_same_feature_again(tmp_path):
    opened = open_feature(f"hubert={convolutional(tmp_path / 'h', 'hubert')}")
    record = opened.record
    assert record["size"] == 32
    assert record["weights"]["source"] == str(tmp_path / "h")
    assert len(record["weights"]["sha256"]) == 64
    np.testing.assert_array_equal(open_feature(record).extract(noise(9000)), opened.extract(noise(9000)))
    assert open_feature({"name": "logmel", "size": 160, "weights": None}).record == open_feature("logmel").record


def test_a_record_is_fulfilled_from_another_place_by_the_same_weights_alone(tmp_path):
    import shutil

    first = whisper(tmp_path / "first")
    record = open_feature(f"whisper={first}").record
    moved = shutil.move(first, tmp_path / "moved")
    open_feature.__globals__["_open"].cache_clear()
    with pytest.raises(InputError, match="cannot be loaded"):
        open_feature(record)
    assert open_feature(record, weights=moved).record["weights"]["sha256"] == record["weights"]["sha256"]
    other = whisper(tmp_path / "other", encoder_layers=1)
    with pytest.raises(InputError, match=r"have sha256 .*, expected"):
        open_feature(record, weights=other)
    wide = whisper(tmp_path / "wide", d_model=64)
    with pytest.raises(InputError, match="has 64 columns, expected 32"):
        open_feature(record, weights=wide)


@pytest.mark.parametrize("record", [{}, {"name": 3}, {"name": "nothing"}, {"name": "logmel", "size": 161}])
def test_a_record_that_is_none_is_refused(record):
    with pytest.raises(InputError, match=r"audio features?"):
        open_feature(record)


def test_the_functions_by_name_are_those_of_the_feature():
    sound = noise(20_000)
    stream = FeatureStream("logmel")
    np.testing.assert_array_equal(
        extract_features("logmel", sound), np.concatenate([stream.push(sound), stream.finish()])
    )
    np.testing.assert_allclose(extract_features("logmel", sound), logmel(sound), atol=1e-5)
    assert feature_size("logmel") == 160
    assert feature_size("hubert") == 768  # without its weights
