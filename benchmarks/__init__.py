"""Measurements of speed and memory: ratios between variants of one run, each held against a limit or a peer."""

import headstart as headstart  # first, for its threading environment: what users run with is what is measured
