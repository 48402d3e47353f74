"""After the last step: whatever happens, the run can be finished again, and its prior is registered once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.registry import mlflow_client, registry, run_log
from cluster.storage import storage
from configs import InputError
from pretrain import finish
from pretrain.finish import register_run
from pretrain.train import pretrain
from tests.pretrain.test_loop import SMALL
from tests.support.talkers import talkers

PRIOR = "audio-expression"
CONFIG = {**SMALL, "steps": 2, "checkpoint_every": 2}


def train(run: Path, **changes) -> dict:
    return pretrain(PRIOR, talkers(), {**CONFIG, **changes}, str(run), ray=False, resume=True)


def versions() -> list[dict]:
    return registry.list_models()[0]["versions"]


# Each is a moment between the last step and the end: (object, function, whether it has done its work).
MOMENTS = [
    (finish, "write_prior", False),
    (finish, "write_report", True),
    (storage, "upload_tree", False),
    (storage, "upload_tree", True),
    (registry, "register", False),
    (registry, "register", True),
    (storage, "write_json", False),
]


def test_a_run_killed_at_any_moment_of_its_end_is_finished_by_resuming(home, tmp_path, monkeypatch):
    whole = train(tmp_path / "whole")
    run = tmp_path / "run"
    for owner, name, done in MOMENTS:
        real = getattr(owner, name)

        def killed(*args, real=real, done=done, **kwargs):
            if done:
                real(*args, **kwargs)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, killed)
            with pytest.raises(KeyboardInterrupt):
                train(run)
    result = train(run)
    again = train(run)
    assert result["weights_sha256"] == again["weights_sha256"] == whole["weights_sha256"]
    assert (
        result["registered"] == again["registered"] == {"name": PRIOR, "version": 2, "champion": False, "misfit": None}
    )
    assert result["validation"].keys() == whole["validation"].keys()
    assert [v["version"] for v in versions()] == [1, 2]
    pulled = registry.resolve(f"{PRIOR}/2")
    assert storage.sha256(pulled / "weights.safetensors") == result["weights_sha256"]
    assert storage.read_json(run / "result.json")["registered"]["version"] == 2


def test_a_run_whose_held_out_clips_are_too_short_says_so(home, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("pretrain.audio_expression.evidence.LEAST_FRAMES", 10**6)
    caplog.set_level("INFO", "headstart")
    train(tmp_path / "run")
    assert "no figures on held-out people: none of their clips has 60 frames (2.4 s)" in caplog.text


def test_a_longer_run_replaces_its_prior_and_registers_another_version(home, tmp_path):
    run = tmp_path / "run"
    first = train(run)
    longer = train(run, steps=4)
    assert longer["steps"] == 4
    assert longer["weights_sha256"] != first["weights_sha256"]
    assert [(v["version"], v["weights_sha256"]) for v in versions()] == [
        (1, first["weights_sha256"]),
        (2, longer["weights_sha256"]),
    ]
    assert storage.read_json(run / "prior" / "prior.json")["weights_sha256"] == longer["weights_sha256"]
    assert len((run / "prior" / "losses.txt").read_text().splitlines()) == 4
    for version, result in enumerate((first, longer), 1):
        pulled = registry.resolve(f"{PRIOR}/{version}")
        assert storage.sha256(pulled / "weights.safetensors") == result["weights_sha256"]


def test_a_registry_that_says_no_ends_the_run_before_its_first_step(home, tmp_path):
    client = mlflow_client.client()
    client.delete_experiment(mlflow_client.experiment(client))
    with pytest.raises(InputError, match="was deleted"):
        train(tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_a_registry_that_says_no_at_the_end_leaves_a_result_and_register_run_makes_up_for_it(
    home, tmp_path, monkeypatch
):
    def refuse(*args, **kwargs):
        raise OSError("the disk of the server is full")

    from mlflow import MlflowClient

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifacts", refuse)
        result = train(run)
    assert result["registered"]["version"] is None
    assert json.loads((run / "result.json").read_text())["weights_sha256"] == result["weights_sha256"]
    for _ in range(2):
        assert register_run(str(run))["version"] == 1
    assert json.loads((run / "result.json").read_text())["registered"]["version"] == 1
    assert not list((home / "registrations").glob("*")), "nothing waits any more"
    assert run_log.run_key(run) is not None


def test_a_run_that_is_not_finished_cannot_be_registered(home, tmp_path):
    with pytest.raises(InputError, match="contains no finished prior"):
        register_run(str(tmp_path))


KILLS = '''
import os, random, signal, sys, time
# All that a run imports, before the first fork: no attempt spends its time on that.
import accelerate, alembic.command, boto3, cryptography.fernet, diffusers.schedulers, PIL.Image, scipy.stats, torch._dynamo
import mlflow.store.model_registry.sqlalchemy_store, mlflow.store.tracking.sqlalchemy_store
from pretrain import finish, train
from pretrain.prior import find_prior
from pretrain.train import pretrain
from tests.pretrain.test_finish import CONFIG, PRIOR

find_prior(PRIOR)
data, whole, run, seed = *sys.argv[1:4], int(sys.argv[4])
rng = random.Random(seed)
torch.set_num_threads(1)

def start(folder):
    """A run in a child; returns at the beginning of its end."""
    ready, begun = os.pipe()
    child = os.fork()
    if not child:
        real = train.finish
        def announced(*args):
            os.write(begun, b"x")
            return real(*args)
        train.finish = announced
        pretrain(PRIOR, data, CONFIG, folder, ray=False, resume=True)
        os._exit(0)
    os.close(begun)
    os.read(ready, 1)
    os.close(ready)
    return child

child, begin = start(whole), time.monotonic()
assert os.waitpid(child, 0)[1] == 0
longest = time.monotonic() - begin
for attempt in range(20):
    child = start(run)
    time.sleep(rng.uniform(0.0, longest))
    os.kill(child, signal.SIGKILL)
    print(os.waitpid(child, 0)[1])
'''


@pytest.mark.slow
def test_twenty_kills_at_random_moments_of_the_end_register_once_with_the_same_weights(home, tmp_path):
    seed = int.from_bytes(os.urandom(4), "little")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", KILLS, talkers(), str(tmp_path / "whole"), str(tmp_path / "run"), str(seed)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    kills = done.stdout.split().count(str(int(signal.SIGKILL)))
    assert kills, f"seed {seed}: none of 20 came before the end"
    whole, result = storage.read_json(tmp_path / "whole" / "result.json"), train(tmp_path / "run")
    assert result["weights_sha256"] == whole["weights_sha256"], f"seed {seed}"
    assert [v["version"] for v in versions()] == [1, 2], f"seed {seed}"
    assert result["registered"]["version"] == 2
