"""A small avatar, the page that was exported of it, and what Python makes of the same sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adapt.avatar.avatar import Avatar, load_avatar
from adapt.job import adapt as make_avatar
from adapt.talk.talker import Motion, Talker
from adapt.web.export import export_web
from tests.support.avatars import SIZE, World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A person who never lived, 2.6 s long."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def avatar(world: World, tmp_path_factory: pytest.TempPathFactory) -> Avatar:
    """Adapted with a regression on the clip, and a little past the point from which residuals are not zero."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.tracking.track_frames", world.segments)
        out = tmp_path_factory.mktemp("avatar") / "ada"
        make_avatar(world.video, out, budget="30it", prior="none", size=SIZE)
    return load_avatar(out, "cpu")


@pytest.fixture(scope="session")
def page(avatar: Avatar, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its page."""
    out = tmp_path_factory.mktemp("page") / "ada"
    export_web(str(avatar.path), out)
    return out


@pytest.fixture(scope="session")
def motions(avatar: Avatar, world: World) -> list[Motion]:
    """What drives the frames in which the avatar says the clip's sound."""

    class Driven(Talker):
        def _render(self, motion: Motion) -> list[Motion]:  # type: ignore[override]
            return [motion]

    talker = Driven(avatar, background="model")
    return [*talker.feed(world.sound), *talker.finish()]  # type: ignore[list-item]


@pytest.fixture(scope="session")
def spoken(avatar: Avatar, motions: list[Motion]) -> np.ndarray:
    """The frames ``[T, H, W, 3]`` themselves."""
    return np.concatenate([avatar.render(motion.drive) for motion in motions])
