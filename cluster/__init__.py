"""Launching, training engine, checkpoints, storage and model registry; knows no paper and no dataset."""
