"""FaceMesh's landmark network on its own: its layers, read from MediaPipe's file, and kernels that run them fused."""

from shards.tracking.models.mesh.network import SIDE, MeshNetwork

__all__ = ["SIDE", "MeshNetwork"]
