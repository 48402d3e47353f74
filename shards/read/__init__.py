"""Datasets opened, planned and read in batches."""
