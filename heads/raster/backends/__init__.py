"""Rendering engines: one module each."""
