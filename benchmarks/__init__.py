"""Measurements of quality, speed and memory; where possible, ratios between variants measured in one run."""

from configs import runtime

runtime.prepare()  # before torch and NumPy are imported: what users run with is what is measured
