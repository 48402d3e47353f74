"""The person and the two small avatars that many tests of this room only read; each is made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapt.avatar.folder import verify_folder
from adapt.job import adapt as make_avatar
from tests.support.avatars import SIZE, World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A person who never lived, 2.6 s long."""
    return make_world(tmp_path_factory.mktemp("world"))


def made(world: World, out: Path, **options: object) -> Iterator[Path]:
    """An avatar's folder; it is the same afterwards, or a test has changed what others read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.tracking.track_frames", world.segments)
        make_avatar(world.video, out, prior="none", size=SIZE, **options)  # type: ignore[arg-type]
    yield out
    verify_folder(out)


@pytest.fixture(scope="session")
def ada(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Adapted with a regression on the clip, and a little past the point from which residuals are not zero."""
    yield from made(world, tmp_path_factory.mktemp("avatar") / "ada", budget="30it")


@pytest.fixture(scope="session")
def grace(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An avatar whose head listens to the sound itself."""
    changes = ["densify=false", "face_points=2000", "mouth_points=300"]
    out = tmp_path_factory.mktemp("avatar") / "grace"
    yield from made(world, out, recipe="talkinggaussian", budget="8it", set=changes)
