"""Our CPU rasteriser: numba kernels without the GIL on a thread pool of our own, and a plain PyTorch reference."""
