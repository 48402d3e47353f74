"""Pictures of a track: the rig's wireframe, irises and lips drawn over a frame."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from heads.rig import Rig, load_rig
from heads.rig.facemesh import IRIS_LEFT, IRIS_RIGHT, LIPS_INNER, LIPS_OUTER

COLOURS = {
    "face": (120, 200, 255), "lips": (255, 90, 110), "eye_left": (140, 255, 140), "eye_right": (140, 255, 140),
    "cranium": (255, 190, 90), "ear": (255, 120, 60), "neck": (200, 150, 255),
}  # fmt: skip


def overlay(
    frame: np.ndarray, track: Mapping[str, np.ndarray], t: int, *, rig: Rig | None = None, scale: int = 1
) -> np.ndarray:
    """The rig in the pose of a track, drawn over a frame.

    Args:
        frame: ``[H, W, 3]`` uint8 RGB, the track's frame ``t``.
        track: arrays of a sample's track.
        t: which frame of the track.
        rig: the track's rig; the shipped one by default.
        scale: size of the picture relative to the frame, a whole number.

    Returns:
        ``[H * scale, W * scale, 3]`` uint8.
    """
    from PIL import Image, ImageDraw

    rig = rig or load_rig()
    picture = Image.fromarray(frame).resize((frame.shape[1] * scale, frame.shape[0] * scale), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture, "RGBA")
    camera = _camera_points(rig, track, t)
    xy = camera[:, :2] / camera[:, 2:] * track["intrinsics"][0, 0] + track["intrinsics"][:2, 2]
    for a, b, colour in _front_edges(rig, camera):
        draw.line([*(xy[a] * scale), *(xy[b] * scale)], fill=(*colour, 80))
    landmarks = track["landmarks"][t][:, :2] * scale
    for loop, colour in ((LIPS_OUTER, (255, 60, 60)), (LIPS_INNER, (255, 255, 0))):
        draw.line([tuple(landmarks[i]) for i in (*loop, loop[0])], fill=(*colour, 255))
    for iris in (IRIS_LEFT, IRIS_RIGHT):
        _iris(draw, landmarks[list(iris)], (255, 255, 255, 255))
        _iris(draw, xy[list(iris)] * scale, (0, 255, 0, 255))
    return np.asarray(picture)


def _camera_points(rig: Rig, track: Mapping[str, np.ndarray], t: int) -> np.ndarray:
    with torch.no_grad():
        one = torch.from_numpy(np.array(track["identity"], np.float32))[None]
        rest = (torch.from_numpy(np.array(track[k][t], np.float32))[None] for k in ("expression", "eyelids", "gaze"))
        vertices = rig.vertices(one, *rest)[0].numpy()
    return vertices @ track["rotation"][t].T + track["translation"][t]


def _front_edges(rig: Rig, camera: np.ndarray) -> list[tuple[int, int, tuple[int, int, int]]]:
    """Edges of triangles that face the camera, with their region's colour."""
    faces, regions = rig.faces.numpy(), rig.face_regions.numpy()
    names = {label: name for name, label in rig.regions.items()}
    a, b, c = camera[faces].swapaxes(0, 1)
    front = (np.cross(b - a, c - a) * a).sum(-1) < 0
    edges: dict[tuple[int, int], tuple[int, int, int]] = {}
    for face, region in zip(faces[front], regions[front], strict=True):
        colour = COLOURS.get(names[int(region)])
        if colour is None:
            continue
        for k in range(3):
            i, j = sorted((int(face[k]), int(face[k - 1])))
            edges.setdefault((i, j), colour)
    return [(i, j, colour) for (i, j), colour in edges.items()]


def _iris(draw: object, points: np.ndarray, colour: tuple[int, int, int, int]) -> None:
    centre, radius = points[0], float(np.linalg.norm(points[1:] - points[0], axis=1).mean())
    box = [*(centre - radius), *(centre + radius)]
    draw.ellipse(box, outline=colour)  # type: ignore[attr-defined]
