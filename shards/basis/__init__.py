"""Bases of the rig, learned from tracked people."""
