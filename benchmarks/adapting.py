"""Adaptation for benchmarks: a run that a signal ended early gives no figures."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from adapt import job
from adapt.avatar.document import Adapted


def adapt(video: str | Path, out: str | Path, **options: Any) -> Adapted:
    """:func:`adapt.job.adapt` with the same arguments.

    Raises:
        SystemExit: a signal ended it before its budget was spent; the avatar is removed, so that no run takes it for a whole
            one.
    """
    result = job.adapt(video, out, **options)
    if not result["complete"]:
        shutil.rmtree(out)
        raise SystemExit(f"{video}: stopped after {result['iterations']} steps; nothing of it is measured")
    return result
