"""What every test shares: quiet, bounded threads, a home of its own, and the real clips where they exist."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import LONGEST

# Before torch, ray or mlflow are imported: tests never write to the user's home and never phone out.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Matrix products round by the number of BLAS threads: one, here and in every child, so that bits can be compared.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")

from cluster.registry import run_log  # noqa: E402

CLIPS = Path(__file__).resolve().parents[2] / "shared" / "clips"
# `make test` runs two processes, each of which takes a room at a time. A room's tests stay together and in order: they share
# avatars and datasets, and no two of its files start Ray at once. The rooms that take longest start first.
LONGEST_FIRST = ("adapt", "cluster", "pretrain", "shards", "end_to_end", "standin")


@pytest.fixture(autouse=True, scope="session")
def _home(tmp_path_factory: pytest.TempPathFactory):
    """The registry, caches and spools of the tests live in a folder of their own."""
    home = tmp_path_factory.mktemp("home")
    before = os.environ.get("HEADSTART_HOME")
    os.environ["HEADSTART_HOME"] = str(home)
    # However busy the machine, what a training said of itself is in its registry when the test looks.
    run_log.PATIENCE = LONGEST
    yield home
    if before is None:
        os.environ.pop("HEADSTART_HOME", None)
    else:
        os.environ["HEADSTART_HOME"] = before


@pytest.fixture(scope="session")
def clips() -> Path:
    """The folder of real clips beside the project; the test is skipped where it is absent."""
    if not CLIPS.is_dir():
        pytest.skip("the real clips are not here: ../shared/clips is absent")
    return CLIPS


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n``, each process takes a room at a time; ``--dist`` chooses another way."""
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Rooms(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _room(nodeid)

    config.option.loadscopereorder = False  # it would sort by the number of tests
    return Rooms(config, log)


def _room(nodeid: str) -> str:
    return nodeid.removeprefix("tests/").split("/")[0]


def _rank(item: pytest.Item) -> int:
    room = _room(item.nodeid)
    return LONGEST_FIRST.index(room) if room in LONGEST_FIRST else len(LONGEST_FIRST)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest rooms first where processes share the tests; skip, with a reason, what this machine cannot run."""
    if hasattr(config, "workerinput"):
        items.sort(key=_rank)
    for item in items:
        if item.get_closest_marker("clips") and not CLIPS.is_dir():
            item.add_marker(pytest.mark.skip(reason="the real clips are not here: ../shared/clips is absent"))
        if item.get_closest_marker("gpu"):
            import torch

            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device; torch.cuda.is_available() is False"))
