"""Settings of a cluster as users write them."""

from __future__ import annotations

import pytest

from cluster.launch.launch import _settings
from cluster.launch.settings import worker_range
from configs import InputError
from headstart.cli.app import parser


def test_a_range_of_workers_is_the_fewest_and_the_most():
    assert worker_range("4") == (None, 4)
    assert worker_range("2-4") == (2, 4)
    for wrong in ("", "0", "4-2", "two", "1-2-3", "-1", "2-"):
        with pytest.raises(InputError, match="expected a number, such as 4, or a range"):
            worker_range(wrong)


def test_the_number_of_a_cluster_file_holds_unless_another_is_given():
    words = ["pretrain", "sync-expert", "--data", "d", "--cluster", "multi-node"]
    given = parser().parse_args(words)
    assert _settings("cluster/multi-node", workers=given.workers).workers == 32
    given = parser().parse_args([*words, "--workers", "8-24"])
    found = _settings("cluster/multi-node", workers=given.workers)
    assert (found.min_workers, found.workers) == (8, 24)


def test_budgets_below_no_limit_are_refused():
    for name in ("max_failures", "max_preemptions"):
        with pytest.raises(InputError, match=f"{name} is -2, expected 0 or more, or -1 for no limit"):
            _settings({name: -2})
