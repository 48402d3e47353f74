"""One protocol for every avatar and every other method's video."""
