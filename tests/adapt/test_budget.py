"""Budgets: what is understood, how stages share them, how they stop and go on."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import numba
import pytest
from numba.core import event

from adapt import budget
from adapt.budget import Budget, Clock, graceful_stop, parse_budget
from adapt.job import adapt
from adapt.priors import open_priors
from configs import InputError
from heads.raster.simd import compiling
from tests.support.avatars import SIZE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("60s", Budget(seconds=60.0)),
        ("10m", Budget(seconds=600.0)),
        ("1.5h", Budget(seconds=5400.0)),
        ("30", Budget(seconds=30.0)),
        (45, Budget(seconds=45.0)),
        ("1000it", Budget(iterations=1000)),
    ],
)
def test_budgets_are_times_or_steps(text, expected):
    assert parse_budget(text) == expected


def run(clock, begin=0.0, until=1.0):
    """Do all steps of a stage; the progress at each."""
    seen = []
    for progress in clock.steps(begin, until):
        seen.append(progress)
        clock.tick()
    return seen


@pytest.mark.parametrize("text", ["0", "0s", "0it", "-5s", "soon", "", "10 parsecs", "1.5it"])
def test_what_is_no_budget_is_refused_with_a_sentence(text):
    with pytest.raises(InputError, match="budget"):
        parse_budget(text)


def test_stages_share_the_iterations_as_written():
    clock = Clock(parse_budget("100it"))
    counts = [len(run(clock, begin, until)) for begin, until in ((0, 0.3), (0.3, 0.9), (0.9, 1))]
    assert counts == [30, 60, 10]


def test_progress_runs_from_zero_to_one_within_a_stage():
    clock = Clock(parse_budget("100it"))
    run(clock, 0, 0.5)
    progress = run(clock, 0.5, 1.0)
    assert progress[0] == 0.0
    assert progress == sorted(progress)
    assert progress[-1] == pytest.approx(0.98)


def test_the_clock_stands_still_while_kernels_compile(monkeypatch):
    time = SimpleNamespace(now=0.0)
    for module in (budget, compiling):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: time.now))
    clock = Clock(parse_budget("10s"))
    with clock.waits_for_compiling(), clock.timed("steps"):
        time.now += 3
        event.start_event(compiling.KIND)
        time.now += 60
        assert clock.fraction == 0.3
        event.end_event(compiling.KIND)
        time.now += 1
    assert clock.seconds == clock.seconds_by_stage()["steps"] == 4
    assert clock.seconds_by_stage()["compiling"] == 60
    assert clock.seconds_left == 6


def test_an_adaptation_reports_what_compiled_beside_its_seconds(world, tmp_path, monkeypatch):
    @numba.njit
    def negated(x):
        return -x

    def opened(*arguments):
        negated(1)
        return open_priors(*arguments)

    monkeypatch.setattr("shards.tracking.track_frames", world.segments)
    monkeypatch.setattr("adapt.job.open_priors", opened)
    result = adapt(world.video, tmp_path / "ada", budget="1it", prior="none", size=SIZE)
    assert result["stages"]["compiling"] > 0


def test_every_stage_gets_one_step_of_a_tiny_budget():
    clock = Clock(parse_budget("1it"))
    assert [len(run(clock, i / 3, (i + 1) / 3)) for i in range(3)] == [1, 1, 1]


def test_a_wall_clock_budget_ends_on_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("adapt.budget.time", SimpleNamespace(monotonic=lambda: now[0]))
    clock, progress = Clock(parse_budget("4s")), []
    for done in clock.steps(0.0, 1.0):
        progress.append(done)
        now[0] += 0.5
    assert progress == [i / 8 for i in range(8)]
    assert clock.seconds == 4.0


def test_few_frames_end_a_long_budget_early():
    assert len(run(Clock(parse_budget("1h"), most=40))) == 40


def test_a_resumed_run_skips_what_was_done():
    clock = Clock(parse_budget("100it"), spent_iterations=50, spent_seconds=5.0)
    assert run(clock, 0.0, 0.3) == []
    assert len(run(clock, 0.3, 0.8)) == 30
    assert clock.seconds >= 5.0


def test_a_stage_that_had_its_one_step_before_gets_no_second_and_one_that_had_none_gets_it():
    clock = Clock(parse_budget("2it"), spent_iterations=2)
    assert list(clock.steps(0.0, 0.1, begun=True)) == []
    assert len(run(clock, 0.1, 0.2)) == 0, "without a place, the share that is spent decides"
    clock = Clock(parse_budget("2it"), spent_iterations=2)
    stage = clock.steps(0.1, 0.2, begun=False)
    assert next(stage) == 1.0


def test_a_share_of_a_budget_is_of_its_kind():
    assert parse_budget("60s").share(0.05) == Budget(seconds=3.0)
    assert parse_budget("200it").share(0.05) == Budget(iterations=10)
    assert parse_budget("1it").share(0.05) == Budget(iterations=1)


def test_a_signal_ends_the_stage_after_its_step_and_the_following_ones_at_once():
    clock = Clock(parse_budget("60s"))
    steps = 0
    with graceful_stop(clock):
        for _ in clock.steps(0.0, 1.0):
            steps += 1
            if steps == 3:
                os.kill(os.getpid(), signal.SIGTERM)
        assert list(clock.steps(0.0, 1.0)) == []
    assert steps == 3
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
