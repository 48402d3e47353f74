"""Eight-lane vectors in numba, and how the kernels are compiled and cached."""
