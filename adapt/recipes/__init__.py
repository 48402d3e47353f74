"""Recipes: how a head is fitted to a clip, one file each."""

from adapt.recipes.registry import Recipe, recipe, recipe_names

__all__ = ["Recipe", "recipe", "recipe_names"]
