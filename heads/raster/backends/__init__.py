"""Rendering backends: one module each."""
