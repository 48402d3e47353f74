"""Tracks that are refined on the pixels: each frame is aligned to the person's own texture."""

from shards.tracking.refinement.photometric import FaceTexture, PhotometricRefiner

__all__ = ["FaceTexture", "PhotometricRefiner"]
