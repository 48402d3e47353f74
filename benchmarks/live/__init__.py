"""Delay and cost of a live head."""
