"""The CPU rasteriser's numba kernels."""
