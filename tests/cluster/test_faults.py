"""Every fault is real: processes and nodes are killed, uploads torn, disks filled. Afterwards not a bit is different.

The reference is the same training undisturbed and without Ray: two processes joined by gloo, or one.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster import checkpoint
from cluster.launch.launch import ClusterConfig, launch
from cluster.storage.errors import StorageError

ROOT = Path(__file__).parents[2]
from tests.cluster.test_engine import run_workers  # noqa: E402
from tests.support.s3_faults import BUCKET, s3_server  # noqa: E402
from tests.support.waiting import wait_until  # noqa: E402

STEPS, EVERY, BATCH = 20, 5, 12
ALL = list(range(STEPS * BATCH))
TARGET = "tests.support.toy_training:train"
BODY = """
    from tests.support import toy_training
    from cluster.launch.worker import Context
    result = toy_training.train(config, Context(str(out / name), rank=rank, world_size=world))
    if rank == 0:
        results[name] = result
"""

pytestmark = pytest.mark.slow


def settings(**more) -> dict:
    """The toy training's configuration."""
    return {"steps": STEPS, "every": EVERY, "batch": BATCH, "pause": 0.05, **more}


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> dict:
    """Two workers, undisturbed."""
    return run_workers(tmp_path_factory.mktemp("two"), {"run": settings(pause=0)}, BODY)["run"]


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> dict:
    """One worker, undisturbed."""
    return launch(TARGET, settings(pause=0), run=str(tmp_path_factory.mktemp("one") / "run"), ray=False)


@pytest.fixture(scope="module")
def ray_here():
    """One private Ray for the tests of this file that can share it."""
    from cluster.launch import ray_train

    ray, _ = ray_train.connect(ClusterConfig(workers=2, cpus_per_worker=1))
    yield ray
    ray.shutdown()


def check(result: dict, reference: dict) -> None:
    """The same weights, bit for bit, and every sample exactly once, in order."""
    assert result["read"] == ALL
    assert result["steps"] == STEPS
    assert result["digest"] == reference["digest"]
    assert result["losses"] == reference["losses"]


def strike(tmp_path: Path, how: str, step: int, rank: int) -> dict:
    return {"how": how, "step": step, "rank": rank, "once": str(tmp_path / "struck")}


# ------------------------------------------------------------------------------------------------ workers


def workers_below() -> set[psutil.Process]:
    """The workers among this process's descendants."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "".join(process.cmdline()[:1]).startswith(("ray::Member", "ray::RayTrainWorker")):
                found.add(process)
    return found


@contextlib.contextmanager
def workers_seen() -> Iterator[set[psutil.Process]]:
    """Collects the workers that exist while the block runs."""
    seen: set[psutil.Process] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            seen.update(workers_below())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("spare_after", [1e6, 0.0], ids=["a new process", "the spare process"])
def test_a_worker_killed_at_a_random_step_costs_nothing_but_time_and_no_worker_stays(
    ray_here, two, tmp_path, monkeypatch, spare_after
):
    monkeypatch.setattr("cluster.launch.ray_group.SPARE_AFTER", spare_after)
    step, rank = random.randrange(1, STEPS), random.randrange(2)
    kill = strike(tmp_path, "SIGKILL", step, rank)
    with workers_seen() as seen:
        result = launch(TARGET, settings(kill=kill), run=str(tmp_path / "run"), cluster=ClusterConfig(workers=2))
    assert Path(kill["once"]).exists(), f"rank {rank} was not killed at step {step}"
    assert result["started_at"] == step // EVERY * EVERY
    check(result, two)
    assert len(seen) >= (3 if spare_after == 0 else 2), (
        "the workers were not found, so that none is left would say nothing"
    )
    wait_until(lambda: not any(process.is_running() for process in seen))  # their Ray still runs
    assert not workers_below()


def test_a_preempted_worker_saves_first_so_no_step_is_done_twice(ray_here, two, tmp_path):
    kill = strike(tmp_path, "SIGTERM", 6, 1)
    unforgiving = ClusterConfig(workers=2, max_failures=0)  # for a worker that saves and goes is no failure
    result = launch(TARGET, settings(kill=kill, every=100), run=str(tmp_path / "run"), cluster=unforgiving)
    assert result["started_at"] > 6
    check(result, two)


def test_an_error_that_no_restart_cures_is_raised_at_once_as_one_sentence(ray_here, tmp_path):
    from configs import InputError

    with pytest.raises(InputError, match=r"engine\.device is cuda|accumulate"):
        launch(
            TARGET,
            settings(engine={"accumulate": 0}),
            run=str(tmp_path / "run"),
            cluster=ClusterConfig(workers=2, max_failures=5),
        )


# ------------------------------------------------------------------------------------------------ security


def test_every_process_of_a_launch_listens_on_the_loopback_alone_and_shows_no_token(ray_here, tmp_path):
    found = launch(
        "tests.support.toy_training:listeners",
        {"driver": os.getpid()},
        run=str(tmp_path / "run"),
        cluster=ClusterConfig(workers=2),
    )
    assert found["count"] > 5
    addresses = [ipaddress.ip_address(text.removeprefix("::ffff:")) for text in found["addresses"]]
    assert all(address.is_loopback for address in addresses), found["addresses"]
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) >= 32
    assert not [line for line in found["lines"] if os.environ["RAY_AUTH_TOKEN"] in line]


# ------------------------------------------------------------------------------------------------ the driver

DRIVER = """
import json, sys
sys.path.insert(0, {tests!r})
from cluster.launch.launch import launch
if __name__ == "__main__":
    config, run, ray, resume = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3] == "ray", sys.argv[4] == "resume"
    print(json.dumps(launch("tests.support.toy_training:train", config, run=run, workers=2 if ray else 1, ray=ray, resume=resume)))
"""


def drive(run: Path, ray: bool, resume: bool, **more) -> subprocess.Popen:
    """The command in a process of its own."""
    arguments = [json.dumps(settings(**more)), str(run), "ray" if ray else "here", "resume" if resume else "fresh"]
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER.format(tests=str(ROOT)), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def wait_for(run: Path, step: int, process: subprocess.Popen) -> None:
    """Until the run has a checkpoint at ``step`` or later."""
    while not any(c.step >= step for c in checkpoint.list_checkpoints(run)):
        if process.poll() is not None:
            raise AssertionError(process.communicate()[1][-3000:])
        time.sleep(0.02)


def result_of(process: subprocess.Popen) -> dict:
    out, error = process.communicate()
    assert process.returncode == 0, error[-3000:]
    return json.loads(out.strip().splitlines()[-1])


def test_sigterm_saves_and_ends_and_resume_goes_on_without_ray(one, tmp_path):
    process = drive(tmp_path / "run", ray=False, resume=False, every=8, stand=12)
    wait_for(tmp_path / "run", 8, process)
    process.send_signal(signal.SIGTERM)
    stopped = result_of(process)
    assert 8 < stopped["steps"] < STEPS
    result = result_of(drive(tmp_path / "run", ray=False, resume=True, every=8))
    assert result["started_at"] == stopped["steps"]
    check(result, one)


def test_a_driver_told_to_end_and_then_killed_goes_on_with_resume(ray_here, two, tmp_path):
    run = tmp_path / "run"
    process = drive(run, ray=True, resume=False, stand=12)
    wait_for(run, 5, process)
    process.send_signal(signal.SIGTERM)
    stopped = result_of(process)
    assert 5 < stopped["steps"] < STEPS

    process = drive(run, ray=True, resume=True, stand=18)
    wait_for(run, stopped["steps"] + 1, process)
    process.kill()
    process.communicate()
    last = checkpoint.list_checkpoints(run)[-1].step

    result = launch(TARGET, settings(), run=str(run), cluster=ClusterConfig(workers=2), resume=True)
    assert result["started_at"] >= last
    check(result, two)


def test_a_fresh_start_into_a_run_that_exists_is_refused(tmp_path):
    from configs import InputError

    launch(TARGET, settings(steps=5, pause=0), run=str(tmp_path), ray=False)
    with pytest.raises(InputError, match=r"already contains a run .*--resume"):
        launch(TARGET, settings(steps=5, pause=0), run=str(tmp_path), ray=False)


# ------------------------------------------------------------------------------------------------ storage


def test_a_checkpoint_upload_broken_half_way_costs_nothing_after_resume(one, monkeypatch):
    run = f"s3://{BUCKET}/run"
    with s3_server() as s3:
        monkeypatch.setenv("HEADSTART_STORAGE_RETRIES", "2")
        s3.fail("reset", 1000, "PUT", "step-00000010/engine/optimizer")
        with pytest.raises(StorageError, match="step-00000010"):
            launch(TARGET, settings(pause=0), run=run, ray=False)
        s3.heal()
        assert [c.step for c in checkpoint.list_checkpoints(run)] == [5]
        result = launch(TARGET, settings(pause=0), run=run, ray=False, resume=True)
        assert result["started_at"] == 5
        check(result, one)


def test_a_full_disk_ends_the_run_with_a_sentence_and_resume_goes_on(one, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here (needs root)")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 300_000)
        with pytest.raises(StorageError, match="the disk is full; free some space and run the same command again"):
            launch(TARGET, settings(pause=0, every=2), run=str(disk / "run"), ray=False)
        good = checkpoint.list_checkpoints(disk / "run")
        assert good
        ballast.unlink()
        result = launch(TARGET, settings(pause=0, every=2), run=str(disk / "run"), ray=False, resume=True)
        assert result["started_at"] == good[-1].step
        check(result, one)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


# ------------------------------------------------------------------------------------------------ nodes

QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}


@pytest.fixture
def two_nodes(monkeypatch):
    """A head without cores and two machines of one core each, all on the loopback."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()
    from cluster.launch import ray_start

    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "10")
    ray_start.prepare_environment(ClusterConfig(), imported=False)
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": QUICK, **small})
    for _ in range(2):
        cluster.add_node(num_cpus=1, **small)
    import ray

    ray.init(address=cluster.address, logging_level="WARNING")
    yield cluster, small
    ray.shutdown()
    cluster.shutdown()


def lose_a_node(cluster, mark: Path) -> None:
    """Kill the machine on which the worker waits that wrote ``mark``."""
    import psutil

    pid = json.loads(mark.read_text())["pid"]
    above = {parent.pid for parent in psutil.Process(pid).parents()}
    node = next(n for n in cluster.worker_nodes if n.all_processes["raylet"][0].process.pid in above)
    cluster.remove_node(node, allow_graceful=False)


def saved(run: Path) -> int:
    """The step of the newest checkpoint; 0 before the first."""
    return max((found.step for found in checkpoint.list_checkpoints(str(run))), default=0)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_lost_node_costs_nothing_whether_another_comes_at_once_or_later(two_nodes, two, tmp_path, at_once):
    """Later: the run goes on with one worker, and with two again when the other machine has joined."""
    cluster, small = two_nodes
    kill = strike(tmp_path, "wait", 7, 1)
    run, outcome = tmp_path / "run", {}
    elastic = {"min_workers": 2} if at_once else {"min_workers": 1, "resize_every": 1.0}

    def train() -> None:
        try:
            outcome["result"] = launch(
                TARGET,
                settings(kill=kill, company=13),
                run=str(run),
                cluster=ClusterConfig(workers=2, address=cluster.address, **elastic),
            )
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=train)
    thread.start()
    wait_until(lambda: Path(kill["once"]).exists() or not thread.is_alive())
    lose_a_node(cluster, Path(kill["once"]))
    if not at_once:
        wait_until(lambda: saved(run) == 10 or not thread.is_alive())
    cluster.add_node(num_cpus=1, **small)
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    wait_until(lambda: not workers_below())
    result = outcome["result"]
    assert result["world"] == 2
    assert result["read"] == ALL
    if at_once:
        assert result["started_at"] == 5
        check(result, two)
    else:
        assert 10 < result["started_at"] <= 13, "the one worker saved when the other had joined"
        assert result["losses"] == pytest.approx(two["losses"], rel=1e-4, abs=1e-5)
