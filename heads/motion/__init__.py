"""Motion fields: positional encoding, networks that move Gaussians, and their audio encoder."""
