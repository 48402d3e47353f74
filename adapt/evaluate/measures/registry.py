"""Which measures there are: the modules of this folder, and classes of other packages by entry point.

A package adds one by ``[project.entry-points."headstart.measures"]`` ``NAME = "module:Class"``.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points

from adapt.evaluate import measures as folder
from adapt.evaluate.measures.base import Column, Measure

GROUP = "headstart.measures"
NOT_MEASURES = {"base", "registry"}


@cache
def measures() -> tuple[type[Measure], ...]:
    """Every measure's class, in the order of the table.

    Raises:
        TypeError: an entry point that names something else.
        ValueError: two measures give the same column.
    """
    names = [module.name for module in pkgutil.iter_modules(folder.__path__) if module.name not in NOT_MEASURES]
    found = [_of_module(name) for name in names]
    found += [_checked(point.load(), point.value) for point in entry_points(group=GROUP)]
    found.sort(key=lambda measure: measure.place)
    _refuse_doubles(found)
    return tuple(found)


def columns() -> dict[str, Column]:
    """Every column of the table, in its order."""
    return {name: column for measure in measures() for name, column in measure.columns.items()}


def _of_module(name: str) -> type[Measure]:
    module = importlib.import_module(f"{folder.__name__}.{name}")
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Measure) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise TypeError(f"{module.__name__}: expected one subclass of Measure, found {len(classes)}")
    return classes[0]


def _checked(value: object, where: str) -> type[Measure]:
    if not (isinstance(value, type) and issubclass(value, Measure) and value.columns):
        raise TypeError(f"entry point {where} of {GROUP}: expected a subclass of Measure with columns")
    return value


def _refuse_doubles(found: list[type[Measure]]) -> None:
    owners: dict[str, str] = {}
    for measure in found:
        for name in measure.columns:
            if name in owners:
                raise ValueError(f"measure column '{name}' is given by {owners[name]} and by {measure.__name__}")
            owners[name] = measure.__name__
