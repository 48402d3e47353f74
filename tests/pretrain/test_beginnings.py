"""Before step 1 the training set is read once, by one rank, and not again for the same people and configuration."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from configs import load_config
from pretrain import beginnings
from pretrain.data.recording import Recording
from pretrain.data.sequences import Sequence
from pretrain.data.split import open_split
from pretrain.loop import Trainer
from pretrain.prior import find_prior
from shards.read.dataset import Dataset
from tests.pretrain.test_loop import SMALL
from tests.support.talkers import Alone, talkers


@pytest.fixture
def reads(monkeypatch, tmp_path) -> Counter:
    """How often each sample was read; the cache is this test's own."""
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    count, real = Counter(), Dataset.read

    def read(self, which):
        sample = real(self, which)
        count[sample.key] += 1
        return sample

    monkeypatch.setattr(Dataset, "read", read)
    return count


def begun(tmp_path, reads: Counter, **changes) -> dict[str, torch.Tensor]:
    """The state of a trainer before its first step; ``reads`` then counts what preparing it read."""
    kind = find_prior("audio-expression")
    config = load_config(kind.config_class, {**SMALL, "scale": True, "prefetch": 0, **changes})
    task = kind.task(config, *open_split(kind.task, config, talkers()))
    trainer = Trainer(task, str(tmp_path / "run"), Alone(tmp_path / "run"))
    reads.clear()
    trainer.begin(None)
    trainer.close()
    return {name: value.clone() for name, value in trainer.engine.unwrapped.state_dict().items()}


def test_the_training_set_is_read_once_before_step_1_and_not_at_all_the_second_time(tmp_path, reads):
    first = begun(tmp_path, reads)
    assert len(reads) == 8, "four training people with two segments each"
    assert set(reads.values()) == {1}
    again = begun(tmp_path, reads)
    assert not reads
    assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_another_configuration_or_other_code_prepares_again(tmp_path, reads, monkeypatch):
    begun(tmp_path, reads)
    begun(tmp_path, reads, scale=False)
    assert reads
    monkeypatch.setattr(beginnings, "code_digest", lambda: "other")
    begun(tmp_path, reads)
    assert reads
    begun(tmp_path, reads, steps=9, checkpoint_every=4)
    assert not reads, "how long and where a run goes changes nothing at its beginning"


def test_a_damaged_result_is_made_again(tmp_path, reads):
    first = begun(tmp_path, reads)
    for path in (tmp_path / "home" / "beginnings").iterdir():
        path.write_bytes(b"damaged")
    again = begun(tmp_path, reads)
    assert reads
    assert all(torch.equal(value, again[name]) for name, value in first.items())


@pytest.mark.parametrize("memory", [0, 2**20])
def test_a_recording_gives_the_same_rows_at_each_pass_in_memory_and_on_disk(memory):
    rng, passes = np.random.default_rng(0), []

    def source():
        passes.append(1)
        for name in "ab":
            track = {"expression": rng.normal(size=(7, 5)).astype(np.float32), "landmarks": np.zeros((7, 478, 3))}
            yield Sequence(identity=name, clip=name, features=rng.normal(size=(7, 3)), track=track, keys=[(name, 7)])

    recording = Recording(source(), ["expression"], memory)
    first, second = list(recording), list(recording)
    assert passes == [1]
    assert [run.identity for run in second] == ["a", "b"]
    for a, b in zip(first, second):
        np.testing.assert_array_equal(a.features, b.features)
        np.testing.assert_array_equal(a.track["expression"], b.track["expression"])
        assert list(b.track) == ["expression"]
