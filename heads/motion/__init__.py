"""Motion fields: encodings of position, networks that move Gaussians, and the audio encoder they listen with."""
