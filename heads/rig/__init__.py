"""Rigs: a head's vertices from identity, expression, eyelids and gaze, behind one interface."""

from heads.rig.registry import load_rig
from heads.rig.rig import CONTROLS, Control, Rig

__all__ = ["CONTROLS", "Control", "Rig", "load_rig"]
