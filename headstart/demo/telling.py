"""The record of a demo: stages with their times, failures, and everything that the page shows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from configs import progress


@dataclass
class Story:
    """What happened in a demo, in order: everything that the page shows."""

    title: str
    ray: bool = True
    began: float = field(default_factory=time.time)
    stages: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)  # clips that tracking refused, and why
    toy: list[str] = field(default_factory=list)
    corpus: dict[str, Any] = field(default_factory=dict)
    priors: dict[str, dict[str, Any]] = field(default_factory=dict)
    held_out: list[dict[str, Any]] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def stage(self, name: str, vital: bool = True) -> Iterator[None]:
        """Time a stage; if it is not vital and fails, the failure is recorded and the demo goes on."""
        began = time.time()
        progress.say(f"[{began - self.began:5.0f} s] {name}")
        try:
            yield
        except Exception as error:
            reason = str(error) or type(error).__name__
            self.failed.append({"stage": name, "reason": reason.splitlines()[-1][:300]})
            if vital:
                raise
            progress.say(f"          failed: {reason.splitlines()[-1][:200]}")
        finally:
            self.stages.append({"name": name, "start": began - self.began, "seconds": time.time() - began})
