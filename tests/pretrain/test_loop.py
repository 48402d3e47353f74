"""The one training loop: resuming, stopping, refusing."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from cluster.engine import state
from cluster.engine.rank_times import RankTimes
from cluster.launch.settings import ClusterConfig
from configs import InputError, load_config, to_dict
from configs.loading import HERE
from configs.seeds import derive
from pretrain import train
from pretrain.config import OptimiserConfig, check_same_run
from pretrain.folder import task_class
from pretrain.loop import NonFiniteLoss, Prefetcher, Trainer
from pretrain.optimiser import rate, update_average, update_average_from_state
from pretrain.prior import find_prior
from pretrain.train import choose_checkpoint, open_split
from tests.support.talkers import Alone, make_talkers, talkers
from tests.support.waiting import LONGEST

SMALL = {
    "steps": 8,
    "batch_size": 4,
    "checkpoint_every": 3,
    "validate_every": 100,
    "window": 24,
    "overlap": 8,
    "linear_context": 2,
    "optimiser": {"warmup": 2},
    "model": {"width": 16, "layers": 1, "audio_layers": 1, "heads": 2, "style": 8, "reach": 8},
    "diffusion": {"sample_steps": 2},  # nearly all the time after the last step goes into drawing samples
}


def audio_task(**changes):
    kind = task_class("audio-expression")
    config = load_config(kind.config_class, {**SMALL, **changes})
    return kind(config, *open_split(kind, config, talkers()))


def trained(run: Path, stop_at: int | None = None, **changes) -> Trainer:
    """A trainer after its run: to the end, or to the ``stop_at``-th step."""
    context = Alone(run, stop_at)
    trainer = Trainer(audio_task(**changes), str(run), context)
    try:
        trainer.begin(context.latest_checkpoint())
        trainer.run()
    finally:
        trainer.close()
    return trainer


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {**trainer.engine.unwrapped.state_dict(), **{f"ema/{k}": v for k, v in trainer.average.state_dict().items()}}


def assert_same(a: Trainer, b: Trainer) -> None:
    assert a.losses == b.losses
    for name, value in weights(a).items():
        assert torch.equal(value, weights(b)[name]), name


def test_a_run_stopped_at_any_step_and_resumed_ends_with_the_same_weights(tmp_path):
    whole = trained(tmp_path / "whole")
    stop = int(np.random.default_rng().integers(1, 8))
    first = trained(tmp_path / "cut", stop_at=stop)
    assert first.step == stop, "a request to stop ends the run after the step in progress"
    assert_same(whole, trained(tmp_path / "cut"))


def test_a_killed_run_resumes_from_its_last_checkpoint_with_the_same_weights(tmp_path):
    whole = trained(tmp_path / "whole", prefetch=0)
    context = Alone(tmp_path / "killed")
    trainer = Trainer(audio_task(), str(tmp_path / "killed"), context)
    trainer.begin(None)
    original = trainer.train_step

    def die_at_five():
        if trainer.step == 5:
            raise KeyboardInterrupt
        return original()

    trainer.train_step = die_at_five
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    trainer.close()
    assert context.latest_checkpoint().endswith("step-00000003")
    assert_same(whole, trained(tmp_path / "killed"))


def test_training_goes_on_while_a_checkpoint_is_written_and_what_it_holds_is_the_step_it_was_taken_at(
    tmp_path, monkeypatch
):
    whole = trained(tmp_path / "whole")
    trainer = Trainer(audio_task(), str(tmp_path / "run"), Alone(tmp_path / "run"))
    trainer.begin(None)
    for _ in range(3):
        trainer.train_step()
    go_on, real = threading.Event(), state.write_tensors
    monkeypatch.setattr(state, "write_tensors", lambda *arguments: (go_on.wait(LONGEST), real(*arguments)))
    url = trainer.start_saving()
    for _ in range(2):
        trainer.train_step()
    assert not Path(url).exists(), "it is being written"
    go_on.set()
    trainer._writer.wait()
    trainer.close()
    assert Path(url).exists()
    assert_same(whole, trained(tmp_path / "run"))


def test_a_slow_rank_is_named_once_and_another_trouble_too(tmp_path, monkeypatch):
    trainer = Trainer(audio_task(), str(tmp_path / "run"), Alone(tmp_path / "run"))
    monkeypatch.setattr(trainer, "engine", SimpleNamespace(is_main=True, world_size=2))
    said: list[str] = []
    monkeypatch.setattr("pretrain.loop.progress.say", said.append)
    even, slow, slower = RankTimes(0, 0, 10, 5, 1), RankTimes(1, 0, 13, 2, 1), RankTimes(1, 0, 15, 0, 1)
    for other in (slow, even, slower, RankTimes(1, 9, 6, 0, 1)):
        monkeypatch.setattr(trainer.meter, "table", lambda engine, other=other: [even, other])
        trainer._rank_times()
    assert [text.split(";")[0] for text in said] == [
        "rank 1 computes 1.3 times as long as the median rank",
        "rank 1 waits for data 60 % of its time",
    ]


def test_two_seeds_train_differently(tmp_path):
    assert trained(tmp_path / "a", steps=2).losses != trained(tmp_path / "b", steps=2, seed=1).losses


def test_a_loss_that_is_no_number_stops_before_the_weights_are_touched_and_names_the_samples(tmp_path):
    trainer = Trainer(audio_task(), str(tmp_path), Alone(tmp_path))
    trainer.begin(None)
    trainer.train_step()
    before = {k: v.clone() for k, v in trainer.engine.unwrapped.state_dict().items()}
    taken = trainer.batches.next

    def poisoned():
        batch = taken()
        batch["features"][1, 3, 5] = float("nan")
        return batch

    trainer.batches.next = poisoned
    with pytest.raises(
        NonFiniteLoss, match=r"step 1, rank 0.*weights were not touched.*person\d/clip\d-0000\d"
    ) as caught:
        trainer.train_step()
    trainer.close()
    assert len(caught.value.keys) == 4
    for name, value in trainer.engine.unwrapped.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_state_that_is_saved_belongs_to_the_batches_consumed_not_to_those_prepared():
    class Counting:
        def __init__(self):
            self.at = 0

        def __iter__(self):
            while True:
                self.at += 1
                yield {"at": self.at}

        def state_dict(self):
            return {"at": self.at}

    ahead = Prefetcher(Counting(), depth=3)
    for expected in range(1, 6):
        assert ahead.next()["at"] == expected
        assert ahead.state == {"at": expected}
    ahead.close()


def test_batches_for_a_gpu_are_put_into_pinned_memory_with_their_keys_beside_them(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)

    class One:
        def state_dict(self):
            return {}

        def __iter__(self):
            yield {"keys": ["a"], "image": torch.ones(2)}

    for pin in (False, True):
        ahead = Prefetcher(One(), depth=0, pin=pin)
        assert ahead.next()["keys"] == ["a"]
        assert len(pinned) == int(pin)
        ahead.close()


def test_errors_of_the_reading_thread_reach_the_caller():
    class Broken:
        def __iter__(self):
            yield {"x": 1}
            raise InputError("shard 3 is damaged")

        def state_dict(self):
            return {}

    ahead = Prefetcher(Broken(), depth=2)
    ahead.next()
    with pytest.raises(InputError, match="shard 3"):
        ahead.next()
    ahead.close()


def test_a_checkpoint_of_another_configuration_is_refused_with_both_values(tmp_path):
    trained(tmp_path, steps=3)
    with pytest.raises(InputError, match=r"'batch_size' was 4 and is 2"):
        trained(tmp_path, steps=4, batch_size=2)


def test_a_longer_run_may_resume_and_goes_on(tmp_path):
    trained(tmp_path, steps=3)
    assert trained(tmp_path, steps=5).step == 5


def test_a_checkpoint_written_with_other_data_is_refused(tmp_path):
    trained(tmp_path / "run", steps=3)
    kind = task_class("audio-expression")
    config = load_config(kind.config_class, SMALL)
    other = make_talkers(tmp_path / "other", people=3, segments=1)
    trainer = Trainer(kind(config, *open_split(kind, config, other)), str(tmp_path / "run"), Alone(tmp_path / "run"))
    with pytest.raises(InputError, match=r"other data|another|expected"):
        trainer.begin(trainer.context.latest_checkpoint())


def test_configurations_of_earlier_versions_stay_readable():
    info = {"config": {**SMALL, "diffusion": {"caution": 0.25}}}
    assert find_prior("audio-expression").config_of(info).diffusion.correction_weight == 0.25
    check_same_run({"diffusion": {"caution": 0.5}}, {"diffusion": {"correction_weight": 0.5}}, "run")


def test_what_may_change_between_runs_is_not_compared():
    check_same_run({"steps": 1, "seed": 0}, {"steps": 2, "seed": 0}, "run")
    with pytest.raises(InputError, match="'seed' was 0 and is 1"):
        check_same_run({"seed": 0}, {"seed": 1}, "run")


def test_resume_modes_say_what_they_found(tmp_path):
    run = str(tmp_path / "run")
    assert choose_checkpoint(run, True) is None
    assert choose_checkpoint(run, "latest-or-fresh") is None
    with pytest.raises(InputError, match="no complete checkpoint"):
        choose_checkpoint(run, "latest")
    with pytest.raises(InputError, match=r"state\.json is missing"):
        choose_checkpoint(run, str(tmp_path / "nowhere"))
    trained(Path(run), steps=3)
    found = choose_checkpoint(run, "latest")
    assert choose_checkpoint(run, found) == found == choose_checkpoint(run, True)
    with pytest.raises(InputError, match="already contains a run"):
        choose_checkpoint(run, False)


def test_a_run_resumed_without_a_configuration_keeps_its_own(tmp_path, monkeypatch):
    trained(tmp_path, steps=3)
    jobs = []
    monkeypatch.setattr(train, "launch", lambda name, job, **options: jobs.append(job) or {"finished": True})
    train.pretrain("audio-expression", talkers(), out=str(tmp_path), ray=False, resume=True, overrides=["steps=5"])
    assert jobs[0]["config"]["batch_size"] == SMALL["batch_size"]
    assert jobs[0]["config"]["model"]["width"] == SMALL["model"]["width"]
    assert jobs[0]["config"]["steps"] == 5
    with pytest.raises(InputError, match="'audio-expression', expected 'sync-expert'"):
        train.pretrain("sync-expert", talkers(), out=str(tmp_path), ray=False, resume=True)


def test_the_checkpoint_says_everything_that_a_resumed_run_needs(tmp_path):
    trained(tmp_path, steps=3)
    folder = Path(Alone(tmp_path).latest_checkpoint())
    state = json.loads((folder / "state.json").read_text())
    assert state["step"] == 3
    assert state["samples"] == 12
    assert state["config"]["seed"] == 0
    assert set(state["reader"]) >= {"epoch", "step"}
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"average.safetensors", "losses.txt", "engine/weights.safetensors", "engine/optimizer.safetensors"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pt", ".bin"))]


def test_the_rate_rises_then_falls_to_its_floor():
    config = OptimiserConfig(warmup=10, floor=0.1)
    assert rate(0, 100, config) == pytest.approx(0.1)
    assert rate(9, 100, config) == 1.0
    assert rate(55, 100, config) == pytest.approx(0.55, abs=0.01)
    assert rate(100, 100, config) == pytest.approx(0.1)


def test_the_average_follows_weights_and_copies_statistics():
    model, average = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(7.0)
    update_average(average, model, decay=0.5, step=1000)
    assert average.weight.tolist() == [2.0, 2.0]
    assert average.running_mean.tolist() == [7.0, 7.0]


def test_the_average_of_sharded_weights_forgets_the_first_ones_as_fast():
    model, often, rarely = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(7.0)
    for step in range(23):
        update_average(often, model, decay=0.99, step=step)
    for steps in (range(10), range(10, 20), range(20, 23)):
        update_average_from_state(rarely, model.state_dict(), 0.99, steps)
    assert often.weight.tolist() == pytest.approx([3.0, 3.0], abs=0.01), (
        "after 23 steps little is left of the first weights"
    )
    torch.testing.assert_close(rarely.state_dict(), often.state_dict())


def test_seeds_differ_by_purpose_and_repeat():
    assert derive(0, "a", 1) == derive(0, "a", 1)
    assert len({derive(0, "a", 1), derive(0, "a", 2), derive(1, "a", 1), derive(0, "b", 1)}) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_sise": 4}, "did you mean 'batch_size'"),
        ({"steps": 0}, "'steps' is 0"),
        ({"holdout": 1.5}, "holdout is 1.5"),
        ({"batch_size": 5, "engine": {"accumulate": 2}}, "batch_size 5 does not divide"),
        ({"keep": 1}, "keep is 1"),
        ({"targets": ["eyelids"]}, "leaves out 'expression'"),
        ({"window": 60}, "window is 60"),
        ({"model": {"width": 30, "heads": 4}}, "does not divide by model.heads"),
    ],
)
def test_wrong_configurations_are_one_sentence(change, message):
    with pytest.raises(InputError, match=message):
        load_config(task_class("audio-expression").config_class, {**SMALL, **change})


@pytest.mark.parametrize("prior", ["audio-expression", "expression-visual", "sync-expert"])
@pytest.mark.parametrize("size", ["tiny", "base", "large"])
def test_every_shipped_configuration_is_valid(prior, size):
    config = load_config(task_class(prior).config_class, f"pretrain/{prior}/{size}")
    for name in ("steps", "batch_size", "seed", "checkpoint_every", "allow_unknown_licence"):
        assert hasattr(config, name)


def _doubled(given: dict, defaults: dict, where: str = "") -> list[str]:
    """Keys of a YAML file that say what the class says already."""
    found = []
    for key, value in given.items():
        if isinstance(value, dict):
            found += _doubled(value, defaults[key], f"{where}{key}.")
        elif value == defaults[key]:
            found.append(f"{where}{key}")
    return found


@pytest.mark.parametrize("path", [*HERE.glob("pretrain/*/*.yaml"), *HERE.glob("cluster/*.yaml")], ids=str)
def test_every_default_stands_in_one_place(path):
    kind = ClusterConfig if path.parent.name == "cluster" else find_prior(path.parent.name).config_class
    assert _doubled(yaml.safe_load(path.read_text()), to_dict(kind())) == []


def test_bad_datasets_are_refused_with_what_to_do(tmp_path):
    kind = task_class("audio-expression")

    def opening(data, **changes):
        config = load_config(kind.config_class, {**SMALL, **changes})
        return open_split(kind, config, data)

    with pytest.raises(InputError, match=r"'hubert', but the dataset has logmel"):
        opening(talkers(), features="hubert")
    with pytest.raises(InputError, match="nobody"):
        opening(talkers(), holdout=["nobody"])
    one = make_talkers(tmp_path / "one", people=1, segments=1)
    with pytest.raises(InputError, match="needs two or more"):
        opening(one)
    unknown = make_talkers(tmp_path / "unknown", people=2, segments=1, consent="unknown")
    with pytest.raises(InputError, match="allow_unknown_licence=true"):
        opening(unknown)
    assert opening(unknown, allow_unknown_licence=True, holdout=0.5)


def test_a_dataset_of_another_rig_is_refused(monkeypatch):
    class Other:
        name, sha256 = "other/1", "f" * 64

    monkeypatch.setattr("pretrain.data.rigs.load_rig", lambda *_: Other())
    with pytest.raises(InputError, match=r"made with the rig mediapipe.*has other/1"):
        open_split(
            task_class("audio-expression"), load_config(task_class("audio-expression").config_class, SMALL), talkers()
        )
