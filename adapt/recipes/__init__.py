"""Recipes: how a clip becomes a head, one file each."""

from adapt.recipes.registry import Recipe, recipe, recipe_names

__all__ = ["Recipe", "recipe", "recipe_names"]
