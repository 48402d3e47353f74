"""The `large` configurations, made small: speech encoders of random weights, two steps, export, load, run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.storage import storage
from configs import InputError
from pretrain import load_prior
from pretrain.train import pretrain
from shards.build.build import build
from shards.features import open_feature
from shards.read.dataset import open_dataset
from tests.shards.features import models
from tests.support.talkers import make_talkers

RUN = ["steps=2", "batch_size=4", "checkpoint_every=2", "optimiser.warmup=1", "holdout=0.4"]
SMALL = {
    "audio-expression": [
        *("model.width=32", "model.layers=1", "model.audio_layers=1", "model.heads=2", "model.style=8"),
        *("diffusion.sample_steps=3", "window=24", "overlap=8", "linear_context=1"),
    ],
    "sync-expert": ["model.channels=8", "model.width=32", "model.embedding=16", "size=64", "run=12"],
    "expression-visual": [
        *("size=64", "targets=1", "model.resolution=32", "model.channels=8", "model.levels=2"),
        "model.image_channels=8",
    ],
}


def small_hubert(folder: Path) -> Path:
    return models.convolutional(folder, "hubert")


@pytest.fixture(scope="module", params=[("hubert", small_hubert), ("whisper", models.whisper)], ids=lambda p: p[0])
def spoken(request, tmp_path_factory):
    """(feature's name, a dataset that holds it, the encoder's folder)."""
    name, make = request.param
    folder = make(tmp_path_factory.mktemp(name) / "encoder")
    data = make_talkers(tmp_path_factory.mktemp("data") / "data", people=3, segments=2)
    build([], data, workers=0, features=[f"{name}={folder}"])
    return name, data, folder


@pytest.mark.parametrize("prior", ["audio-expression", "sync-expert"])
def test_a_large_prior_trains_on_a_speech_encoder_and_says_which(spoken, prior, tmp_path):
    name, data, folder = spoken
    changes = [*RUN, *SMALL[prior], f"features={name}"]
    result = pretrain(prior, data, "large", str(tmp_path / "run"), ray=False, overrides=changes)
    loaded = load_prior(tmp_path / "run" / "prior")
    record = loaded.info["features"]
    assert record == open_dataset(data).feature_records[name]
    assert record["weights"] == {
        "source": str(folder.resolve()),
        "sha256": storage.sha256(folder / "model.safetensors"),
    }
    assert loaded.info["weights_sha256"] == result["weights_sha256"]
    # What uses the prior extracts exactly that, from the record alone.
    sound = np.random.default_rng(0).normal(size=30 * 640).astype(np.float32) * 0.1
    rows = open_feature(record).extract(sound)
    assert rows.shape == (30, record["size"])
    if prior == "audio-expression":
        assert np.isfinite(loaded.sample(rows)["expression"]).all()
    else:
        frames = torch.rand(30, loaded.config.model.width)
        assert np.isfinite(loaded.confidence_of(frames, rows)).all()


def test_a_large_visual_prior_trains_and_draws_a_head(tmp_path):
    data = make_talkers(tmp_path / "data", people=3, segments=2)
    changes = [*RUN, *SMALL["expression-visual"]]
    pretrain("expression-visual", data, "large", str(tmp_path / "run"), ray=False, overrides=changes)
    loaded = load_prior(tmp_path / "run" / "prior")
    assert loaded.info["features"] is None
    assert loaded.info["rig"]["sha256"] == loaded.rig.sha256
    sample = open_dataset(data).read(0)
    fields = ("rotation", "translation", "expression", "eyelids", "gaze")
    tracks = {name: sample.track[name][:1] for name in fields}
    tracks |= {name: sample.track[name] for name in ("identity", "intrinsics")}
    assert torch.isfinite(loaded.predict(sample.frames([0]), sample.matte(0)[None], tracks)).all()


def test_a_dataset_without_the_feature_is_refused_with_the_command_that_adds_it(tmp_path):
    data = make_talkers(tmp_path / "data", people=2, segments=1)
    with pytest.raises(
        InputError, match=rf"the dataset has logmel; add them with 'headstart shards build --out {data} --features"
    ):
        pretrain("audio-expression", data, "large", str(tmp_path / "run"), ray=False)
