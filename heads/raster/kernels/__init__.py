"""Numba kernels: the CPU rasteriser's, binding, losses, layering and unwrapping."""
