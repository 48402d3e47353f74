"""The films that the tests of this folder begin with, made once."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from shards.synthetic import synthetic_video

SIZE, SECONDS, PEOPLE = 192, 4.0, 3


class Films(NamedTuple):
    """Generated talkers, four seconds each."""

    people: list[Path]
    stranger: Path


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Films:
    """Three people for a corpus, and one who is not in it; tests copy what they use."""
    folder = tmp_path_factory.mktemp("films")

    def film(number: int) -> Path:
        return Path(synthetic_video(number, SECONDS, folder / f"{number}.mp4", size=SIZE)["video"])

    return Films([film(number) for number in range(PEOPLE)], film(900))
