"""Measurements of speed and memory: ratios between variants of one run, each held against a limit or a peer."""
