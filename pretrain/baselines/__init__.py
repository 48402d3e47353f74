"""Baselines that the priors are compared with."""
