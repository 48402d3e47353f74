"""Measures of a rendered video against the real one: one file each, found here and by entry point."""

from adapt.evaluate.measures.base import Column, Frame, Measure, Tools, Tracks
from adapt.evaluate.measures.registry import measures

__all__ = ["Column", "Frame", "Measure", "Tools", "Tracks", "measures"]
