"""Generated clouds, and the record that every file carries."""

from __future__ import annotations

import numpy as np
import pytest

from adapt.export_formats.cloud import Cloud
from adapt.provenance import Provenance


def make_cloud(n: int = 4000, seed: int = 0) -> Cloud:
    """Gaussians of a head's size with every rotation, and opacities and colours from one end to the other."""
    rng = np.random.default_rng(seed)
    opacities = np.concatenate([[0.0, 1.0, 1e-7], rng.uniform(0, 1, n - 3)])
    colors = np.concatenate([[[0, 0, 0], [1, 1, 1], [1, 0, 0.5]], rng.uniform(0, 1, (n - 3, 3))])
    scales = np.exp(rng.uniform(np.log(6e-5), np.log(0.03), (n, 3)))
    return Cloud.make(rng.normal(0, 0.08, (n, 3)), rng.normal(size=(n, 4)), scales, opacities, colors)


@pytest.fixture
def cloud() -> Cloud:
    """4,000 Gaussians."""
    return make_cloud()


@pytest.fixture
def record() -> dict[str, object]:
    """What an avatar's outputs say about themselves, with letters outside ASCII."""
    return Provenance.make(avatar="ada", avatar_sha256="ab" * 32, recipe="headstart", creator="Jörg Müller").as_dict()
