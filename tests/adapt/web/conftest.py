"""A small avatar, the page that was exported of it, and what Python makes of the same sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adapt.avatar.avatar import Avatar, load_avatar
from adapt.talk.talker import Motion, Talker
from adapt.web.export import export_web
from tests.support.avatars import World


@pytest.fixture(scope="session")
def avatar(ada: Path) -> Avatar:
    """The one of this room."""
    return load_avatar(ada, "cpu")


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
