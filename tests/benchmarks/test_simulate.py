"""The simulator: nothing lost or repeated whatever fails, and times that add up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.training.simulate import Fleet, Restart, Simulation, Store

SAMPLES, BATCH = 4000, 40


def positions(start: int) -> tuple[list[int], int]:
    end = min(SAMPLES, start + BATCH)
    return list(range(start, end)), end


def simulate(fleet: Fleet, store: Store | None = None, restart: Restart | None = None, seed: int = 0):
    simulation = Simulation(
        positions,
        0,
        lambda at: at >= SAMPLES,
        fleet=fleet,
        store=store or Store(),
        restart=restart or Restart(checkpoint_every=10),
        shard_of=lambda sample: sample // 32,
        seed=seed,
    )
    return simulation.run()


CALM = Fleet(ranks=20, ranks_per_node=4, slow_nodes=0.0, hours_between_failures=1e9)


def test_an_undisturbed_run_reads_every_sample_once_and_evenly():
    report = simulate(CALM)
    assert (report.samples_read, report.samples_lost, report.samples_repeated) == (SAMPLES, 0, 0)
    assert report.rank_samples == (200, 200)
    assert (report.steps, report.failures, report.steps_redone) == (100, 0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_failing_machines_cost_time_and_no_sample(seed):
    report = simulate(replace(CALM, hours_between_failures=0.05, hours_to_replace=0.02), seed=seed)
    assert report.failures > 0
    assert (report.samples_read, report.samples_lost, report.samples_repeated) == (SAMPLES, 0, 0)
    assert report.steps == 100
    assert report.least_ranks < 20
    assert report.restarting > 0


def test_the_shares_of_time_add_up_to_the_whole():
    fleet = replace(CALM, hours_between_failures=0.2, slow_nodes=0.2)
    report = simulate(fleet, Store(latency=0.5))
    shares = [report.useful, report.waiting_for_data, report.waiting_for_stragglers]
    shares += [report.restarting, report.redoing, report.checkpointing]
    assert sum(shares) == pytest.approx(1.0, abs=1e-6)


def test_one_slow_machine_slows_all_by_its_factor():
    free = Restart(checkpoint=0.0)
    calm = simulate(replace(CALM, jitter=0.0), Store(latency=0.0), free)
    slow = simulate(replace(CALM, jitter=0.0, slow_nodes=1.0, slow_factor=1.5), Store(latency=0.0), free)
    assert slow.wall / calm.wall == pytest.approx((1.5 + 0.05) / (1.0 + 0.05), rel=1e-3)


def test_a_store_too_slow_for_the_batches_shows_as_waiting_for_data():
    thin = simulate(CALM, Store(bytes_per_sample=1e6, total_bandwidth=1e7))
    assert thin.waiting_for_data > 0.5
    assert simulate(CALM).waiting_for_data < 0.05


def test_the_same_seed_gives_the_same_report():
    fleet = replace(CALM, hours_between_failures=0.1)
    assert simulate(fleet, seed=3) == simulate(fleet, seed=3)
