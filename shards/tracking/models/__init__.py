"""The networks of MediaPipe, which are used nowhere else: face landmarks, face boxes and person matte."""

from shards.tracking.models.faces import FaceFinder
from shards.tracking.models.landmarks import FaceLandmarks, MirroredLandmarks
from shards.tracking.models.matte import PersonMatte
from shards.tracking.models.solutions import tessellation, version

__all__ = ["FaceFinder", "FaceLandmarks", "MirroredLandmarks", "PersonMatte", "tessellation", "version"]
