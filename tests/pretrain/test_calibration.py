"""At temperature 1 sampled lips are as fast as real ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from configs import load_config
from heads.measures.face import lip_motion
from heads.rig import load_rig
from pretrain.audio_expression.config import AudioExpressionConfig
from pretrain.audio_expression.evidence import AMPLITUDES, calibrate, lip_travel
from pretrain.audio_expression.inference import AudioExpressionPrior
from pretrain.audio_expression.model import ExpressionModel
from pretrain.audio_expression.prior import AudioExpression
from pretrain.data.sequences import Sequence

SIZE = 6
MODEL = {"width": 16, "layers": 1, "audio_layers": 1, "heads": 2, "style": 6, "reach": 8}
CONFIG = load_config(
    AudioExpressionConfig, {"window": 16, "overlap": 4, "memory": 16, "linear_context": 1, "model": MODEL}
)


def people(count: int, seed: int, burst: float) -> list[Sequence]:
    """Faces that move in bursts: in a part of the frames ``burst`` times as strongly."""
    rng, rig, found = np.random.default_rng(seed), load_rig(), []
    for number in range(count):
        loud = np.repeat(rng.random(24) < 0.2, 5)[:, None] * burst + 1
        motion = gaussian_filter1d(rng.normal(size=(120, rig.n_expression)), 1.5, axis=0) * loud
        track = {
            "expression": motion.astype(np.float32),
            "eyelids": np.zeros((120, 2), np.float32),
            "identity": np.zeros(rig.n_identity, np.float32),
        }
        features = rng.normal(size=(120, SIZE)).astype(np.float32)
        found.append(Sequence(identity=f"person{number}", clip=f"clip{number}", features=features, track=track))
    return found


def untrained(runs: list[Sequence]) -> AudioExpressionPrior:
    torch.manual_seed(0)
    model = ExpressionModel(CONFIG, SIZE, load_rig().n_expression, len(runs))
    model.target_std[: load_rig().n_expression] = float(np.concatenate([r.track["expression"] for r in runs]).std())
    return AudioExpressionPrior(model, {}, [run.identity for run in runs])


def speed(prior: AudioExpressionPrior, runs: list[Sequence]) -> float:
    rig, sampled, real = load_rig(), 0.0, 0.0
    for seed, run in enumerate(runs):
        drawn = prior.sample(run.features, seed=100 + seed)["expression"]
        sampled += lip_travel(lip_motion(rig, run.track["identity"], drawn))
        real += lip_travel(lip_motion(rig, run.track["identity"], run.track["expression"]))
    return sampled / real


@pytest.mark.parametrize("burst", [0.0, 6.0])
def test_lips_of_people_who_were_left_out_are_as_fast_as_real_ones(burst):
    runs = people(6, 0, burst)
    prior = untrained(runs)
    assert prior.config.diffusion.temperature == 1.0
    before = speed(prior, people(6, 1, burst))
    amplitude = calibrate(prior, runs, load_rig())
    assert AMPLITUDES[0] < amplitude < AMPLITUDES[-1]
    after = speed(prior, people(6, 1, burst))
    assert 0.85 < after < 1.15  # six people of five seconds
    assert burst == 0 or abs(after - 1) < abs(before - 1)
    assert calibrate(prior, runs, load_rig()) == amplitude


def test_people_who_do_not_move_change_nothing():
    runs = people(2, 0, 0.0)
    for run in runs:
        run.track["expression"][:] = 0
    prior = untrained(runs)
    assert calibrate(prior, runs, load_rig()) == 1.0


def test_the_amplitude_is_stored_and_priors_without_one_sample_as_before():
    runs = people(2, 0, 0.0)
    prior = untrained(runs)
    prior.model.amplitude.fill_(0.4)
    info = {"config": CONFIG, "dataset": {"identities": {run.identity: {} for run in runs}}, "features": {"size": SIZE}}
    weights = prior.state_dict()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AudioExpression, "config_of", classmethod(lambda cls, found: found["config"]))
        restored = AudioExpression.restore(info, weights, torch.device("cpu"))
        assert float(restored.model.amplitude) == pytest.approx(0.4)
        older = {name: value for name, value in weights.items() if name != "amplitude"}
        assert float(AudioExpression.restore(info, older, torch.device("cpu")).model.amplitude) == 1.0
