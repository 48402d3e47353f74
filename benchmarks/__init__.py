"""Measurements of speed and memory: ratios between variants of one run, each held against a limit or a peer."""

from configs import runtime

runtime.prepare()  # before torch and NumPy are imported: what users run with is what is measured
