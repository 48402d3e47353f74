"""Measures of a rendered video against the real one: one file each, found here and by entry point."""

from adapt.evaluate.measures.base import Column, Frame, Measure, Tools, Tracks

__all__ = ["Column", "Frame", "Measure", "Tools", "Tracks"]
