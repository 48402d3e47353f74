"""Recipes: how a clip becomes a head. Each is a short file that wires shared parts together.

A recipe is a module with ``Config`` (a frozen dataclass; ``configs/adapt/NAME.yaml`` fills it), ``build(context)``,
which makes the model before the first step, and ``run(fit, context)``, which optimises it within the budget.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from configs import InputError, nearest

RECIPES = ("headstart", "ggtalker", "talkinggaussian", "fg3dgs")


def recipe(name: str) -> ModuleType:
    """The recipe's module.

    Raises:
        InputError: no such recipe (with the nearest name).
    """
    if name not in RECIPES:
        raise InputError(f"recipe '{name}': no such recipe{nearest(name, RECIPES)}")
    return importlib.import_module(f"adapt.recipes.{name}")
