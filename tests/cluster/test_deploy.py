"""What is written for other people's clusters parses and names what exists; what workers elsewhere get is no secret."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster.launch.launch import ClusterConfig
from cluster.launch.ray_train import _forwarded
from cluster.registry.mlflow_client import is_secret
from configs import load_config
from headstart.cli.app import parser

DOCS = Path(__file__).parents[2] / "docs"


def check_command(line: str) -> None:
    """The command line, a configuration and a cluster file that it names, are ours."""
    words = shlex.split(line)
    assert words[0] == "headstart"
    taken = parser().parse_args(words[1:])
    assert (Path(__file__).parents[2] / "configs" / "pretrain" / taken.prior / f"{taken.config}.yaml").is_file()
    assert load_config(ClusterConfig, f"cluster/{taken.cluster}").workers > 1
    assert taken.resume, "a rescheduled driver must go on"


def test_the_kuberay_manifest_parses_and_starts_a_command_that_exists():
    manifest = yaml.safe_load((DOCS / "kuberay.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    check_command(manifest["spec"]["entrypoint"])
    cluster = manifest["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in groups):
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
            names = {entry["name"] for entry in container["env"]}
            assert not [name for name in names if is_secret(name)], "secrets come from Kubernetes, by name"
            assert container["envFrom"] == [{"secretRef": {"name": "headstart-s3"}}]


def test_the_kuberay_operator_can_submit_the_job_and_nobody_without_its_token_can():
    cluster = yaml.safe_load((DOCS / "kuberay.yaml").read_text())["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "0.0.0.0"


def test_the_slurm_script_parses_and_starts_a_command_that_exists():
    script = DOCS / "slurm.sh"
    assert subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False).stderr == ""
    text = script.read_text().replace("\\\n", " ")
    command = re.search(r"^headstart .*?(?= &$)", text, re.MULTILINE).group()
    for name, value in {"$DATA": "data", "$RUN": "run", "$ADDRESS": "127.0.0.1:6379"}.items():
        command = command.replace(name, value)
    check_command(re.sub(r"\$\(\(.*?\)\)", "32", command))


@pytest.mark.parametrize(
    "name", ["AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "HEADSTART_TOKEN", "HEADSTART_API_KEY"]
)
def test_workers_of_other_machines_get_settings_and_no_secrets(monkeypatch, name):
    monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hush@127.0.0.1:5000")
    monkeypatch.setenv("HEADSTART_STORAGE_RETRIES", "3")
    sent = _forwarded()
    assert sent["HEADSTART_STORAGE_RETRIES"] == "3"
    assert sent["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"
    assert "hush" not in str(sent)
