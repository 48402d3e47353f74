"""Operators with CPU kernels of their own: convolutions by tiles, normalisation with activation, penalties on maps."""
