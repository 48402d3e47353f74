"""Kernels that compile: said once, counted once, and never counted when they come from the cache."""

from __future__ import annotations

import numba
import pytest

from configs import progress
from heads.raster.simd import compiling
from heads.raster.simd.compiling import SAID, Compilations, compilations


class Heard:
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


@pytest.fixture
def heard():
    listener = Heard()
    with progress.listen(listener):
        yield listener.said


@pytest.fixture
def time(monkeypatch):
    """Seconds that pass when the test says so."""

    class Time:
        now = 100.0

        def monotonic(self):
            return self.now

    time = Time()
    monkeypatch.setattr(compiling, "time", time)
    return time


def test_a_kernel_that_compiles_is_said_once_and_counted_and_one_that_has_compiled_is_not(heard):
    @numba.njit
    def doubled(x):
        return 2 * x

    with compilations() as compiled:
        assert compiled.seconds == 0
        assert not heard
        doubled(1)
        after_one = compiled.seconds
        assert after_one > 0
        assert heard == [SAID]
        doubled(2)
        assert compiled.seconds == after_one
        doubled(1.0)  # another type is another kernel
        assert compiled.seconds > after_one
        assert heard == [SAID]


def test_nothing_is_counted_or_said_once_the_block_has_ended(heard):
    @numba.njit
    def tripled(x):
        return 3 * x

    with compilations() as compiled:
        pass
    tripled(1)
    assert compiled.seconds == 0
    assert not heard


def test_kernels_within_kernels_and_in_several_threads_count_the_same_seconds_once(time):
    compiled = Compilations()
    compiled.on_start(None)
    time.now += 2
    compiled.on_start(None)
    assert compiled.seconds == 2
    time.now += 3
    compiled.on_end(None)
    time.now += 1
    assert compiled.seconds == 6
    compiled.on_end(None)
    time.now += 50
    assert compiled.seconds == 6
