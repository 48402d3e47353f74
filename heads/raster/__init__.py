"""Rasterisation: one function, its backends, and the numba kernels and thread pool of the CPU backend."""
