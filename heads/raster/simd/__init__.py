"""Eight numbers at a time in numba, and how the kernels are compiled."""
