"""Where a run's workers live: the keys of ``configs/cluster/*.yaml``."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Annotated

from configs import InputError
from configs.bounds import Count, Within


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Where a run's workers live (``configs/cluster/*.yaml``)."""

    workers: Count = 1
    min_workers: int | None = None  # fewest to start or to continue with; None: all on one machine, half on a cluster
    gpus_per_worker: int = 0
    cpus_per_worker: Count | None = None  # None: an equal share of this machine's cores; 1 on a cluster
    address: str | None = None  # a Ray cluster, "auto" or host:port; None starts a private one on the loopback
    max_failures: Annotated[int, Within(-1)] = 3  # restarts after failures before the run is given up; -1: no limit
    # A process that waits, with its libraries imported, to take a killed worker's place: 0.3 GB of memory; only where one
    # machine runs all workers.
    spare: bool = True
    max_preemptions: Annotated[
        int, Within(-1)
    ] = -1  # restarts after preempted workers that saved first; counted separately
    object_store_mb: Annotated[int, Within(75)] = (
        80  # MiB of shared memory of a private Ray; batches do not go through it
    )
    dashboard: bool = False  # dashboard of a private Ray, on 127.0.0.1:8265
    start_timeout: float = 30.0  # seconds to wait for all workers before a run starts with fewer
    resize_every: Annotated[float, Within(0.1)] = 60.0  # seconds between checks for machines that came back
    quiet: bool = True  # what Ray and the workers' libraries print stays in Ray's log folder; our lines are shown

    def check(self) -> None:
        """Refuse values that contradict each other.

        Raises:
            InputError: names both keys.
        """
        if self.min_workers is not None and not 1 <= self.min_workers <= self.workers:
            raise InputError(f"min_workers is {self.min_workers}, expected 1 to workers ({self.workers})")
        if self.address and self.dashboard:
            raise InputError("dashboard is for a private Ray and address joins a running one; remove one of them")

    @property
    def least_workers(self) -> int:
        """The number of workers below which the run waits."""
        if self.min_workers is not None:
            return self.min_workers
        return max(1, self.workers // 2) if self.address else self.workers

    @property
    def cpus(self) -> int:
        """Cores that each worker reserves and its torch threads use."""
        if self.cpus_per_worker is not None:
            return self.cpus_per_worker
        return 1 if self.address else max(1, cores() // self.workers)

    def on_one_machine(self, gpus: int) -> ClusterConfig:
        """The same with as many workers of the range as this machine has GPUs for, or cores where they use none."""
        fit = gpus // self.gpus_per_worker if self.gpus_per_worker else cores() // (self.cpus_per_worker or 1)
        return replace(self, workers=min(self.workers, max(self.least_workers, fit)))


def cores() -> int:
    """Cores of this machine."""
    return os.cpu_count() or 1


def worker_range(text: str) -> tuple[int | None, int]:
    """``"4"`` as (None, 4), ``"2-4"`` as (2, 4): the fewest workers to continue with, and the most.

    Raises:
        InputError: something else.
    """
    least, dash, most = text.strip().partition("-")
    if not least.isdigit() or (dash and not most.isdigit()) or not int(least) or (dash and int(most) < int(least)):
        raise InputError(f"workers '{text}': expected a number, such as 4, or a range, such as 2-4")
    return (int(least), int(most)) if dash else (None, int(least))
