"""What long steps tell: only to who listens, and in order."""

from __future__ import annotations

import logging

from configs import progress


class Ear:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def say(self, text: str) -> None:
        self.heard.append(text)

    def start(self, label, total, unit):
        self.heard.append((label, total, unit))
        return self

    def update(self, done=None, *, total=None, note=None) -> None:
        self.heard.append((done, total, note))

    def advance(self, by=1) -> None:
        self.heard.append(by)

    def stop(self, task) -> None:
        self.heard.append("end")


def test_a_listener_is_told_of_sentences_and_tasks():
    ear = Ear()
    with progress.listen(ear):
        progress.say("hello")
        assert list(progress.tracked("ab", "letters", 2, "letters")) == ["a", "b"]
        with progress.task("reading") as task:
            task.update(3, note="slow")
    assert ear.heard == [
        "hello",
        ("letters", 2, "letters"),
        1,
        1,
        "end",
        ("reading", None, ""),
        (3, None, "slow"),
        "end",
    ]


def test_a_task_that_fails_has_ended():
    ear = Ear()
    try:
        with progress.listen(ear), progress.task("reading"):
            raise ValueError
    except ValueError:
        pass
    assert ear.heard[-1] == "end"


def test_without_a_listener_sentences_are_logged(caplog):
    with caplog.at_level(logging.INFO, "headstart"):
        progress.say("hello")
        with progress.task("reading", 3) as task:
            task.advance()
    assert caplog.messages == ["hello"]


def test_a_warning_that_is_met_often_is_said_once_to_each_listener_and_logged_without_one(caplog):
    for _ in range(2):
        ear = Ear()
        with progress.listen(ear):
            progress.warn("one channel is heard alone")
            progress.warn("one channel is heard alone")
        assert ear.heard == ["one channel is heard alone"]
    with caplog.at_level(logging.WARNING):
        progress.warn("one channel is heard alone")
    assert caplog.text.count("one channel is heard alone") == 1
