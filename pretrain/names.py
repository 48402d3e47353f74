"""The names of all priors, known without importing any of them (nor torch)."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

GROUP = "headstart.priors"
HERE = Path(__file__).parent


def prior_names() -> tuple[str, ...]:
    """Names as on the command line: the folders of this package that hold a ``prior.py``, then installed entry points."""
    ours = sorted(path.parent.name.replace("_", "-") for path in HERE.glob("*/prior.py"))
    others = sorted(point.name for point in metadata.entry_points(group=GROUP))
    return tuple(dict.fromkeys([*ours, *others]))
