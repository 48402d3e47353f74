"""A stand-in accelerator: a device in host memory that is as strict as CUDA and counts its operations."""

from benchmarks.standin.device import NAME, Counts, counting, load, missing

__all__ = ["NAME", "Counts", "counting", "load", "missing"]
