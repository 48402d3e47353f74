"""The engine: the same curve in every mode, whole-tensor checkpoints, no pickle."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cluster.engine.engine import Engine, EngineConfig
from configs import InputError, load_config
from tests.support import toy_training as toy

MODES = ["ddp", "zero1", "zero2", "zero3"]
STEPS = 6
SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from cluster.engine import process_group
rank, world, port_file, out = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
import time
listener = None
if rank == 0:
    listener = process_group.listen()
    port_file.with_suffix(".tmp").write_text(str(listener.getsockname()[1]))
    port_file.with_suffix(".tmp").rename(port_file)
while not port_file.exists():
    time.sleep(0.01)
place = process_group.Place(rank=rank, world=world, local_rank=rank, local_world=world, port=int(port_file.read_text()))
process_group.connect(place, "gloo", listener)
from tests.support import toy_training as toy
from cluster.engine.engine import EngineConfig
results = {{}}
for name, config in json.loads(sys.argv[5]).items():
    {body}
if rank == 0:
    (out / "results.json").write_text(json.dumps(results))
process_group.disconnect()
"""
CURVE = """
    folder = out / name
    engine, model, _, _ = toy.build(EngineConfig(**config), {steps})
    losses = []
    for step in range({steps}):
        losses.append(toy.train_step(engine, model, step, 12)[0])
        if step + 1 == {steps} // 2:
            engine.save(folder)
    state = engine.full_state_dict()
    assert (state is None) == (rank != 0)
    engine.export(folder / "export.safetensors")
    again, model, _, _ = toy.build(EngineConfig(**config), {steps})
    again.load(folder)
    resumed = [toy.train_step(again, model, step, 12)[0] for step in range({steps} // 2, {steps})]
    last = again.full_state_dict()
    if rank == 0:
        results[name] = dict(losses=losses, resumed=resumed, mode=engine.mode)
        results[name] |= dict(digest=toy.digest(state), again=toy.digest(last))
"""


def run_workers(tmp_path: Path, configs: dict, body: str, world: int = 2) -> dict:
    """Run ``body`` for each configuration in ``world`` processes joined by gloo; returns what rank 0 wrote."""
    script = SCRIPT.format(tests=str(Path(__file__).parents[2]), body=body.strip().format(steps=STEPS))
    port = tmp_path / "port"
    arguments = [str(world), str(port), str(tmp_path), json.dumps(configs)]
    workers = [
        subprocess.Popen([sys.executable, "-c", script, str(rank), *arguments], stderr=subprocess.PIPE, text=True)
        for rank in range(world)
    ]
    errors = [worker.communicate()[1] for worker in workers]
    for worker, error in zip(workers, errors):
        assert worker.returncode == 0, error[-3000:]
    return json.loads((tmp_path / "results.json").read_text())


@pytest.fixture(scope="module")
def plain() -> list[float]:
    """The curve of one process on the whole batch."""
    engine, model, _, _ = toy.build(EngineConfig(), STEPS)
    return [toy.train_step(engine, model, step, 12)[0] for step in range(STEPS)]


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[dict, Path]:
    """Every mode in two processes, with and without accumulation, fp32 and bf16."""
    folder = tmp_path_factory.mktemp("modes")
    configs = {mode: {"mode": mode, "persistence": 0} for mode in MODES}
    configs["ddp-accumulate"] = {"mode": "ddp", "accumulate": 3}
    configs["zero2-accumulate"] = {"mode": "zero2", "accumulate": 3}
    configs["ddp-bf16"] = {"mode": "ddp", "precision": "bf16"}
    configs["zero3-bf16"] = {"mode": "zero3", "precision": "bf16", "persistence": 0}
    configs["plain"] = {"mode": "plain"}
    return run_workers(folder, configs, CURVE), folder


@pytest.mark.slow
@pytest.mark.parametrize("mode", [*MODES, "ddp-accumulate", "zero2-accumulate"])
def test_two_workers_draw_the_curve_of_one_process_on_the_same_global_batch(two, plain, mode):
    results, _ = two
    torch.testing.assert_close(results[mode]["losses"], plain, rtol=2e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ddp-bf16", "zero3-bf16"])
def test_bf16_follows_the_float32_curve_within_its_precision(two, plain, mode):
    results, _ = two
    assert results[mode]["losses"] != plain
    torch.testing.assert_close(results[mode]["losses"], plain, rtol=3e-2, atol=3e-2)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [*MODES, "zero3-bf16", "ddp-accumulate"])
def test_a_resumed_run_repeats_losses_and_weights_bit_for_bit(two, mode):
    results, _ = two
    result = results[mode]
    assert result["resumed"] == result["losses"][STEPS // 2 :]
    assert result["again"] == result["digest"]


@pytest.mark.slow
def test_several_plain_workers_are_ddp(two):
    results, _ = two
    assert results["plain"]["mode"] == "ddp"
    assert results["plain"]["digest"] == results["ddp"]["digest"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_any_modes_export_loads_alone_in_one_process(two, mode):
    from safetensors.torch import load_file

    results, folder = two
    model = toy.Toy()
    model.load_state_dict(load_file(folder / mode / "export.safetensors"))
    assert toy.digest(model.state_dict()) == results[mode]["digest"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_checkpoint_of_two_workers_goes_on_in_one_process(two, plain, mode):
    _, folder = two
    engine, model, _, _ = toy.build(EngineConfig(), STEPS)
    engine.load(folder / mode)
    rest = [toy.train_step(engine, model, step, 12)[0] for step in range(STEPS // 2, STEPS)]
    torch.testing.assert_close(rest, plain[STEPS // 2 :], rtol=2e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_checkpoint_holds_safetensors_and_json_only(two, mode):
    _, folder = two
    names = {path.name for path in (folder / mode).iterdir()}
    assert names == {
        "weights.safetensors",
        "optimizer.safetensors",
        "random.safetensors",
        "engine.json",
        "export.safetensors",
    }


def test_accumulated_micro_batches_equal_one_batch(plain):
    engine, model, _, _ = toy.build(EngineConfig(accumulate=4), STEPS)
    torch.testing.assert_close(
        [toy.train_step(engine, model, step, 12)[0] for step in range(STEPS)], plain, rtol=2e-5, atol=2e-6
    )


def test_stepping_in_the_middle_of_an_accumulation_is_refused():
    engine, model, _, _ = toy.build(EngineConfig(accumulate=2))
    loss, _ = model(toy.samples(range(2)))
    engine.backward(loss)
    with pytest.raises(InputError, match="after 1 micro-batches, expected 2"):
        engine.clip_and_step()


def test_a_gradient_that_is_not_finite_touches_no_weight():
    engine, model, _, _ = toy.build(EngineConfig())
    before = toy.digest(engine.full_state_dict())
    loss, _ = model(toy.samples(range(2)))
    engine.backward(loss * float("nan"))
    assert math.isnan(engine.clip_and_step())
    assert toy.digest(engine.full_state_dict()) == before


def test_gradients_are_scaled_down_to_the_limit():
    engine, model, optimizer, _ = toy.build(EngineConfig(clip=0.01))
    loss, _ = model(toy.samples(range(4)))
    engine.backward(loss * 100)
    optimizer.step = lambda: norms.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item())
    norms: list[float] = []
    assert engine.clip_and_step() > 0.01
    assert norms[0] == pytest.approx(0.01, rel=1e-3)


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path):
    engine, _, _, _ = toy.build(EngineConfig())
    engine.save(tmp_path)
    other = torch.nn.Linear(3, 3)
    second = Engine(EngineConfig())
    second.prepare(other, torch.optim.AdamW(other.parameters()))
    with pytest.raises(InputError, match=r"weight '.*' is (missing in|unknown to the model but in) the checkpoint"):
        second.load(tmp_path)


def test_a_snapshot_keeps_its_moment_while_training_goes_on_and_the_next_takes_its_memory(monkeypatch):
    engine, model, _, _ = toy.build(EngineConfig())
    toy.train_step(engine, model, 0, 12)
    kept = {name: value.clone() for name, value in engine.unwrapped.state_dict().items()}
    average = {"mean": torch.arange(3.0)}
    copy = torch.Tensor.copy_
    # A slow copy: the step must wait for it, not run into it.
    monkeypatch.setattr(torch.Tensor, "copy_", lambda to, value: (time.sleep(0.1), copy(to, value))[1])
    first = engine.snapshot(also=average)
    toy.train_step(engine, model, 1, 12)
    monkeypatch.undo()
    assert all(torch.equal(first.tensors["weights"][name], value) for name, value in kept.items())
    assert torch.equal(first.also["mean"], average["mean"])
    moments = {name: value.clone() for name, value in first.tensors["optimizer"].items()}
    second = engine.snapshot(also={"mean": average["mean"] + 1})
    second.wait()
    assert all(torch.equal(second.tensors["weights"][n], v) for n, v in engine.unwrapped.state_dict().items())
    assert any(not torch.equal(second.tensors["optimizer"][name], value) for name, value in moments.items())
    assert moments.keys() == second.tensors["optimizer"].keys()
    parameters = [name for name, _ in engine.unwrapped.named_parameters()]
    for held, again in ((first.tensors["weights"], second.tensors["weights"]), (first.also, second.also)):
        names = [name for name in held if held is first.also or name in parameters]
        assert names
        assert all(held[name].data_ptr() == again[name].data_ptr() for name in names)


def test_the_whole_model_that_is_handed_out_is_a_copy_of_its_own():
    engine, model, _, _ = toy.build(EngineConfig())
    whole = engine.full_state_dict()
    before = {name: value.clone() for name, value in whole.items()}
    engine.snapshot()
    toy.train_step(engine, model, 0, 12)
    engine.snapshot().wait()
    assert all(torch.equal(whole[name], value) for name, value in before.items())


def test_a_folder_without_engine_state_is_refused(tmp_path):
    engine, _, _, _ = toy.build(EngineConfig())
    with pytest.raises(InputError, match="no engine state"):
        engine.load(tmp_path)


def test_cuda_without_a_gpu_is_one_sentence():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match="no CUDA device"):
        Engine(EngineConfig(device="cuda"))


@pytest.mark.parametrize("wrong", [{"accumulate": 0}, {"clip": -1.0}, {"persistence": -1}])
def test_impossible_engine_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        load_config(EngineConfig, wrong)
