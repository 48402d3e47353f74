"""Gaussians of heads: maps over a rig's UV atlas, free clouds, and one call that renders a batch."""
