"""What the driver is told when workers are lost or join."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cluster.launch import ray_train
from cluster.launch.board import Board
from configs import InputError


def told(*worlds: int, wanted: int = 4) -> list[str]:
    board = Board(wanted)
    for world in worlds:
        board.begin(world)
    return [text for kind, text in board.take() if kind == "say"]


def test_a_run_that_begins_as_it_was_asked_to_says_nothing():
    assert told(4) == []


@pytest.mark.parametrize(
    ("worlds", "sentence"),
    [
        ((3,), "the run begins with 3 of 4 workers, and takes the others when machines have room"),
        ((4, 3), "1 worker was lost: training goes on with 3 of 4 workers from the newest checkpoint"),
        ((4, 1), "3 workers were lost: training goes on with 1 of 4 workers from the newest checkpoint"),
        ((4, 2, 4), "2 workers joined: training goes on with 4 of 4 workers"),
        ((4, 4), "the workers were started again after a failure: 4 of 4 workers go on from the newest checkpoint"),
    ],
)
def test_workers_that_are_lost_or_join_are_named(worlds, sentence):
    assert told(*worlds)[-1] == sentence


@pytest.mark.parametrize(
    ("ray_says", "sentence"),
    [
        (
            "The actor died because of an error raised in its creation task\n\nRuntimeError: The actor with name Pool failed "
            "to import on the worker.\n\nModuleNotFoundError: No module named 'cluster'\n",
            r"another headstart than this command, or none \(ModuleNotFoundError: No module named 'cluster'\); start Ray",
        ),
        (
            "The actor died unexpectedly.\nIts node has died.",
            r"ended the run's own process on this machine \(Its node has died.\); add --resume to go on",
        ),
    ],
)
def test_a_board_that_ray_cannot_start_or_has_ended_is_one_sentence(ray_says, sentence):
    class RayActorError(Exception):
        pass

    def get(answer):
        raise RayActorError(ray_says)

    ray = SimpleNamespace(get=get, exceptions=SimpleNamespace(RayActorError=RayActorError))
    board = SimpleNamespace(take=SimpleNamespace(remote=lambda: None))
    with pytest.raises(InputError, match=sentence):
        ray_train._messages(ray, board)
