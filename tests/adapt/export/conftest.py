"""A generated cloud, and the record that every file carries."""

from __future__ import annotations

import pytest

from adapt.avatar.export import Cloud
from adapt.avatar.provenance import Provenance
from tests.support.export_samples import make_cloud


@pytest.fixture
def cloud() -> Cloud:
    """4,000 Gaussians."""
    return make_cloud()


@pytest.fixture
def record() -> dict[str, object]:
    """What an avatar's outputs say about themselves, with letters outside ASCII."""
    return Provenance.make(avatar="ada", avatar_sha256="ab" * 32, recipe="headstart", creator="Jörg Müller").as_dict()
