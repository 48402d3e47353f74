"""The names of all priors, without importing any of them or torch."""

from __future__ import annotations

import sys
from functools import cache
from importlib import metadata
from pathlib import Path

GROUP = "headstart.priors"
HERE = Path(__file__).parent


def prior_names() -> tuple[str, ...]:
    """Names as on the command line: the folders of this package that hold a ``prior.py``, then installed entry points."""
    ours = sorted(path.parent.name.replace("_", "-") for path in HERE.glob("*/prior.py"))
    return tuple(dict.fromkeys([*ours, *_others(tuple(sys.path))]))


@cache
def _others(_path: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the entry points along ``sys.path``; cached, since reading all packages' records takes about 0.1 s."""
    return tuple(sorted(point.name for point in metadata.entry_points(group=GROUP)))
