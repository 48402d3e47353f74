"""From sound to expressions: the drivers of an avatar."""
