"""Why a group of workers ended: the workers' own errors inside Ray's, and preemption, which is no failure."""

from __future__ import annotations


class Preempted(RuntimeError):
    """This worker was preempted after it saved its state; the run should continue without it."""


def causes(error: BaseException) -> list[BaseException]:
    """The workers' own errors in an error of Ray Train, in the order of ranks; none where the group failed otherwise."""
    return [getattr(failure, "_base_exc", failure) for failure in getattr(error, "worker_failures", {}).values()]
