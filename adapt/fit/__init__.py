"""The optimisation loop and what it is made of: losses, samplers, initial maps, refinement of tracks, alignment."""
