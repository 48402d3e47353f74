"""Recipes by name: those of this folder, and those that other packages offer as entry points ``headstart.recipes``.

A recipe is a module with five names, see :class:`Recipe` and docs/writing-a-recipe.md. It never imports another
recipe: what recipes share is in :mod:`adapt.fit` and :mod:`adapt.models`.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from adapt.avatar.document import ModelShape
from adapt.fit.config import RecipeConfig
from adapt.fit.context import Context
from adapt.fit.loop import Fit
from adapt.models.base import HeadModel
from configs import InputError, load_config, nearest
from configs.loading import read_values
from heads.rig import Rig

GROUP = "headstart.recipes"
# Name -> parameters of a recipe module's functions, in order.
FUNCTIONS = {
    "build": ("context",),
    "run": ("fit", "context"),
    "shape_of": ("model",),
    "empty": ("config", "document", "tensors", "rig"),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a head is fitted to a clip.

    Attributes:
        Config: a frozen keyword-only dataclass derived from :class:`adapt.fit.config.RecipeConfig`, filled from ``values``.
        values: the recipe's YAML file, which holds every default and its source.
        build: creates the model before the first step.
        run: optimises it within the budget, in stages.
        shape_of: what ``empty`` needs besides the configuration, for the avatar's document.
        empty: creates a model of the right shapes for an avatar's weights.
    """

    name: str
    Config: type[RecipeConfig]
    values: str
    build: Callable[[Context[Any]], HeadModel]
    run: Callable[[Fit, Context[Any]], None]
    shape_of: Callable[[HeadModel], ModelShape]
    empty: Callable[[object, Mapping[str, object], Mapping[str, Tensor], Rig], HeadModel]

    def config(self, stored: Mapping[str, Any] | None = None, changes: Sequence[str] = ()) -> RecipeConfig:
        """The recipe's configuration.

        Args:
            stored: what an avatar was made with; keys that it lacks take the current defaults.
            changes: ``key=value``.

        Raises:
            InputError: an unknown key, a wrong type, an impossible value.
        """
        if not stored:
            return load_config(self.Config, self.values, changes)
        return load_config(self.Config, _merged(read_values(self.values), stored), changes)


def recipe_names() -> list[str]:
    """Names of all recipes: ours first, then those of other packages."""
    return [*_ours(), *(name for name in _others() if name not in _ours())]


@lru_cache
def recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        InputError: no such recipe (names the nearest one), or a module that cannot be imported, is not a recipe or lacks
            its YAML file.
    """
    if name in _ours():
        return checked(name, importlib.import_module(f"adapt.recipes.{name}"), f"adapt/{name}")
    if name not in _others():
        raise InputError(f"recipe '{name}': no such recipe{nearest(name, recipe_names())}")
    entry = _others()[name]
    try:
        module = entry.load()
    except Exception as error:
        raise InputError(
            f"recipe '{name}' ({entry.value}): cannot be imported ({error}); repair or remove it"
        ) from None
    values = Path(str(module.__file__)).with_name(f"{name}.yaml")
    if not values.is_file():
        raise InputError(
            f"recipe '{name}' ({entry.value}): its defaults {values} are missing; the package that offers it must "
            "contain them (package-data, docs/extending.md)"
        )
    return checked(name, module, str(values))


def checked(name: str, module: ModuleType, values: str) -> Recipe:
    """A module as a recipe.

    Raises:
        InputError: a name is missing, a function takes another number of parameters, or ``Config`` is not a recipe's.
    """
    where = f"recipe '{name}' ({module.__name__})"
    for function, parameters in FUNCTIONS.items():
        found = getattr(module, function, None)
        if not callable(found):
            raise InputError(
                f"{where}: has no function {function}({', '.join(parameters)}); see docs/writing-a-recipe.md"
            )
        count = len(inspect.signature(found).parameters)
        if count != len(parameters):
            raise InputError(
                f"{where}: {function} takes {count} parameters, expected {len(parameters)} ({', '.join(parameters)})"
            )
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, RecipeConfig) and dataclasses.is_dataclass(config)):
        raise InputError(
            f"{where}: Config is {config!r}, expected a dataclass derived from adapt.fit.config.RecipeConfig"
        )
    functions = {function: getattr(module, function) for function in FUNCTIONS}
    return Recipe(name=name, Config=config, values=values, **functions)


@lru_cache
def _ours() -> tuple[str, ...]:
    """The modules of this folder, the default recipe first."""
    package = importlib.import_module("adapt.recipes")
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name not in ("registry",))
    return tuple(sorted(names, key=lambda name: name != "headstart"))


def _others() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _merged(values: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    merged = dict(values)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged
