"""The three priors on the stand-in device: training, checkpoint, resuming, export, registry, use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.standin import counting
from cluster.registry import registry
from configs import load_config
from pretrain.folder import load_prior, task_class
from pretrain.loop import NonFiniteLoss, Trainer
from pretrain.train import open_split, pretrain
from tests.pretrain.test_goldens import COMMON, RUNS
from tests.support.talkers import Alone, talkers

PRIORS = sorted(RUNS)


def settings(prior: str, device: str, **changes) -> dict:
    return {**COMMON, **RUNS[prior], "engine": {"device": device, **changes.pop("engine", {})}, **changes}


def trained(prior: str, run: Path, device: str, stop_at: int | None = None, **changes) -> Trainer:
    kind = task_class(prior)
    config = load_config(kind.config_class, settings(prior, device, **changes))
    context = Alone(run, stop_at)
    trainer = Trainer(kind(config, *open_split(kind, config, talkers())), str(run), context)
    try:
        trainer.begin(context.latest_checkpoint())
        trainer.run()
    finally:
        trainer.close()
    return trainer


@pytest.mark.parametrize("prior", PRIORS)
def test_training_lives_on_the_device_and_its_losses_are_near_those_of_the_cpu(device, tmp_path, prior):
    here = trained(prior, tmp_path / "there", device.type)
    assert {p.device for p in here.engine.unwrapped.parameters()} == {device}
    assert {p.device for p in here.average.parameters()} == {device}
    moved = [
        float((a - b).detach().abs().max())
        for a, b in zip(here.engine.unwrapped.parameters(), here.average.parameters())
    ]
    assert max(moved) > 0, "the optimiser has other parameters than the model"
    cpu = trained(prior, tmp_path / "here", "cpu")
    assert here.losses[0] == pytest.approx(cpu.losses[0], rel=0.5)  # other random numbers
    assert all(torch.isfinite(torch.tensor(here.losses)))


@pytest.mark.parametrize("prior", PRIORS)
def test_a_run_stopped_and_resumed_on_the_device_ends_with_the_same_bits(device, tmp_path, prior):
    whole = trained(prior, tmp_path / "whole", device.type)
    trained(prior, tmp_path / "cut", device.type, stop_at=2)
    again = trained(prior, tmp_path / "cut", device.type)
    assert whole.losses == again.losses
    for name, value in whole.engine.unwrapped.state_dict().items():
        assert torch.equal(value, again.engine.unwrapped.state_dict()[name]), name
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, again.average.state_dict()[name]), name


@pytest.mark.parametrize("prior", PRIORS)
def test_bf16_with_accumulation_trains(device, tmp_path, prior):
    engine = {"precision": "bf16", "accumulate": 2}
    assert len(trained(prior, tmp_path, device.type, steps=2, engine=engine).losses) == 2


@pytest.mark.parametrize("prior", PRIORS)
def test_a_prior_trained_there_is_proven_registered_and_opens_on_both_devices(device, home, tmp_path, prior):
    result = pretrain(
        prior, talkers(), settings(prior, device.type, steps=2, validate_every=1), str(tmp_path), ray=False
    )
    assert result["registered"]["version"] == 1
    uri = f"models:/{prior}/1"
    folder = registry.resolve(uri)
    assert (Path(folder) / "weights.safetensors").is_file()
    here, there = load_prior(uri, "cpu"), load_prior(uri, device)
    for name, value in here.model.state_dict().items():
        assert there.model.state_dict()[name].device == device
        assert torch.equal(value, there.model.state_dict()[name].cpu()), name


@pytest.mark.parametrize("prior", PRIORS)
def test_the_host_waits_for_the_device_once_in_log_every_steps(device, tmp_path, prior):
    kind = task_class(prior)
    config = load_config(kind.config_class, settings(prior, device.type, steps=100, log_every=5))
    trainer = Trainer(kind(config, *open_split(kind, config, talkers())), str(tmp_path), Alone(tmp_path))
    trainer.begin(None)
    try:
        for _ in range(5):
            trainer.train_step()
        with counting() as between:
            for _ in range(4):
                trainer.train_step()
        with counting() as settling:
            trainer.train_step()
    finally:
        trainer.close()
    # gsplat's own kernels read the number of tiles that Gaussians meet; nothing else may.
    waits = {name: number for name, number in between.synchronisations.items() if not name.startswith("gsplat::")}
    assert not waits
    assert settling.to_host.total() + settling.waits["aten::_local_scalar_dense"] == 1
    assert len(trainer.losses) == 10


def test_a_loss_that_is_no_number_leaves_the_weights_alone_and_is_named_when_steps_are_settled(device, tmp_path):
    prior = "audio-expression"
    kind = task_class(prior)
    config = load_config(kind.config_class, settings(prior, device.type, steps=100, log_every=4))
    trainer = Trainer(kind(config, *open_split(kind, config, talkers())), str(tmp_path), Alone(tmp_path))
    trainer.begin(None)
    trainer.train_step()
    before = {name: value.clone() for name, value in trainer.engine.unwrapped.state_dict().items()}
    taken = trainer.batches.next

    def poisoned():
        batch = taken()
        if trainer.step == 1:
            batch["features"][1, 3, 5] = float("nan")
        return batch

    trainer.batches.next = poisoned
    trainer.train_step()
    trainer.train_step()
    with pytest.raises(NonFiniteLoss, match=r"step 1, rank 0: the loss is nan.*person\d/clip\d-0000\d"):
        trainer.train_step()
    trainer.close()
    for name, value in trainer.engine.unwrapped.state_dict().items():
        assert torch.equal(value, before[name]), name
