"""Gaussians of an avatar in files that other tools open: one module per format."""
