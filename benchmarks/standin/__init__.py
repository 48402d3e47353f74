"""A stand-in accelerator: a device in host memory that is as strict as CUDA and counts what it is asked to do."""

from benchmarks.standin.device import NAME, Counts, counting, load, missing

__all__ = ["NAME", "Counts", "counting", "load", "missing"]
