"""Items made by a thread ahead of their use."""

from __future__ import annotations

import threading

import pytest

from shards.tracking.ahead import ahead


def test_all_items_come_in_their_order_made_by_another_thread():
    made_by = set()

    def items():
        for number in range(20):
            made_by.add(threading.get_ident())
            yield number

    assert list(ahead(items(), 3)) == list(range(20))
    assert made_by.isdisjoint({threading.get_ident()})


def test_what_goes_wrong_is_raised_behind_the_items_before_it():
    def items():
        yield 1
        raise ValueError("broken")

    taken = ahead(items(), 4)
    assert next(taken) == 1
    with pytest.raises(ValueError, match="broken"):
        next(taken)


def test_closing_ends_the_thread_and_closes_the_items_however_many_wait():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    before = threading.active_count()
    taken = ahead(items(), 2)
    next(taken)
    taken.close()
    assert closed.is_set()
    assert threading.active_count() == before
