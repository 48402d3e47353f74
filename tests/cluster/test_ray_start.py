"""What a private Ray gets from this machine's environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cluster.launch import ray_start
from cluster.launch.settings import ClusterConfig

START = """
import sys
from cluster.launch import ray_start
from cluster.launch.settings import ClusterConfig
ray, owned = ray_start.connect(ClusterConfig(workers=1, cpus_per_worker=1))
print(ray.is_initialized())
ray.shutdown()
"""


@pytest.mark.parametrize(
    ("folder", "own", "used"),
    [
        ("/tmp/job", None, None),
        ("/scratch/users/ann/slurm-jobs/job-1234567/tmp", None, "/tmp"),
        ("/scratch/users/ann/slurm-jobs/job-1234567/tmp", "/dev/shm", "/dev/shm"),
    ],
)
def test_ray_lies_elsewhere_if_the_temporary_folders_path_is_too_long_for_its_sockets(monkeypatch, folder, own, used):
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", {"TMPDIR": folder} | ({"RAY_TMPDIR": own} if own else {}))
        ray_start.prepare_environment(ClusterConfig(workers=1), imported=False)
        assert os.environ.get("RAY_TMPDIR") == used


def test_a_ray_that_does_not_start_here_gives_no_advice_about_an_address():
    long = OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: /x")
    assert "set RAY_TMPDIR to a folder of at most 39 characters" in ray_start._no_ray(ClusterConfig(), long)
    assert "--no-ray" in ray_start._no_ray(ClusterConfig(), RuntimeError(""))
    assert "RAY_AUTH_TOKEN" in ray_start._no_ray(ClusterConfig(address="auto"), RuntimeError("x"))


@pytest.mark.slow
def test_a_private_ray_starts_below_a_long_temporary_folder(tmp_path):
    folder = tmp_path / ("a-batch-system-of-long-names" * 3)
    folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "RAY_TMPDIR"} | {"TMPDIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", START], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True"], done.stderr
