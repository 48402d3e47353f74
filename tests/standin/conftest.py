"""The stand-in device and the kernels played on it, in the process that :mod:`tests.standin.test_standin` starts."""

from __future__ import annotations

import pytest
import torch

from benchmarks.standin import load
from benchmarks.standin.kernels import played
from tests.support.registries import empty_store, home

__all__ = ["empty_store", "home"]


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The stand-in, with gsplat and tinycudann."""
    made = load()
    with played():
        yield made
