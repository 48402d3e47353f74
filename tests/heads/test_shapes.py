"""Public tensor functions have the shapes that their docstrings promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from heads import losses, ridge
from heads.gaussians.layout import lay_out
from heads.gaussians.render import render_head
from heads.gaussians.uv import UVGaussians, triangle_frames
from heads.geometry import camera, rotation
from heads.lpips import LPIPS
from heads.masks import fill_polygons
from heads.measures import face, image
from heads.motion.audio import AudioAttention, AudioNet, frame_windows
from heads.motion.encoding import HashGrid2D, TriPlaneHash
from heads.motion.fields import CrossModalMotion
from heads.person import inputs
from heads.person.appearance import AppearanceBasis
from heads.person.backdrop import Backdrop
from heads.person.image_registration import predicted_by, register
from heads.person.inpaint import BodyInpainter
from heads.person.residual import CoefficientNet, LowRankResidual
from heads.raster.api import rasterization
from heads.raster.harmonics import sh_colors
from heads.rig import facemesh, load_rig
from heads.ssim_kernel import ssim_map
from tests.support.raster_scenes import scene
from tests.support.shapes import checked, shapes_of

R, F = torch.randn, torch.from_numpy


def matrices(*lead: int) -> torch.Tensor:
    return rotation.rotation_matrix(R(*lead, 3))


def uv() -> UVGaussians:
    return UVGaussians(load_rig(), 16)


CASES = {
    "rotation_vector": lambda: checked(rotation.rotation_vector)(matrices(2, 4)),
    "rotation_matrix": lambda: checked(rotation.rotation_matrix)(R(2, 4, 3)),
    "quaternions": lambda: checked(rotation.quaternions)(matrices(5)),
    "quaternion_matrices": lambda: checked(rotation.quaternion_matrices)(R(2, 5, 4)),
    "gaze_rotation": lambda: checked(rotation.gaze_rotation)(R(6, 2, 2)),
    "euler_to_rotation": lambda: checked(rotation.euler_to_rotation)(np.zeros(4), np.zeros(4), np.zeros(4)),
    "rotation_to_euler": lambda: checked(rotation.rotation_to_euler)(matrices(4).numpy()),
    "relative_angles": lambda: checked(rotation.relative_angles)(matrices(4).numpy(), np.eye(3)),
    "to_camera": lambda: checked(camera.to_camera)(R(2, 7, 3), matrices(2), R(2, 3)),
    "to_pixels": lambda: checked(camera.to_pixels)(R(2, 7, 3), torch.eye(3).expand(2, 3, 3)),
    "project": lambda: checked(camera.project)(R(2, 7, 3), matrices(2), R(2, 3), torch.eye(3).expand(2, 3, 3)),
    "landmarks_to_camera": lambda: checked(camera.landmarks_to_camera)(np.ones((2, 9, 3)), np.eye(3)),
    "camera_to_landmarks": lambda: checked(camera.camera_to_landmarks)(np.ones((2, 9, 3)), np.eye(3)),
    "mean_square_error": lambda: checked(image.mean_square_error)(R(3, 8, 9, 3), R(3, 8, 9, 3), R(3, 8, 9)),
    "mouth_opening": lambda: checked(face.mouth_opening)(R(3, 478, 3)),
    "lid_gap": lambda: checked(face.lid_gap)(R(3, 478, 3)),
    "component_importance": lambda: checked(face.component_importance)(load_rig(), np.ones(32, np.float32), 0.5),
    "mouth_directions": lambda: checked(face.mouth_directions)(load_rig(), np.ones(32, np.float32)),
    "ridge_weights": lambda: checked(ridge.ridge_weights)(np.eye(4), np.ones((4, 2)), 0.1),
    "ssim_map": lambda: checked(ssim_map)(torch.rand(2, 20, 24, 3), torch.rand(2, 20, 24, 3)),
    "offset_penalty": lambda: checked(losses.offset_penalty)(R(9, 3)),
    "fill_polygons": lambda: checked(fill_polygons)(np.ones((2, 5, 2)), 8, 9),
    "mirror_pairs": lambda: checked(facemesh.mirror_pairs)(load_rig().mean[:478].numpy()),
    "Rig.vertices": lambda: checked(load_rig().vertices)(R(2, 64), R(2, 32), R(2, 2), R(2, 2, 2)),
    "Rig.landmarks": lambda: checked(load_rig().landmarks)(R(2, 3, 1915, 3)),
    "Rig.lid_scale": lambda: checked(load_rig().lid_scale)(R(2, 64)),
    "Rig.eyeball_positions": lambda: checked(load_rig().eyeball_positions)(R(2, 64)),
    "lay_out": lambda: checked(lay_out)(load_rig().face_uvs, 8),
    "triangle_frames": lambda: checked(triangle_frames)(load_rig().mean[None], load_rig().faces),
    "UVGaussians.neutral": lambda: checked(uv().neutral)(),
    "UVGaussians.gather": lambda: checked(uv().gather)(R(2, 5, 16, 16)),
    "UVGaussians.scatter": lambda: checked(uv().scatter)(R(2, uv().n, 5)),
    "render_head": lambda: checked(render_head)(
        uv().bind(load_rig().mean[None], uv().neutral()[None]), matrices(2), torch.tensor([[0, 0, 9.0]] * 2),
        F(camera.intrinsics_for(16.0)).expand(2, 3, 3), 16, 12,
    ),
    "rasterization": lambda: checked(rasterization)(*scene(9, (12, 8), lead=(2,), cameras=3)),
    "sh_colors": lambda: checked(sh_colors)(R(2, 9, 4, 3), R(2, 9, 3), torch.eye(4).expand(2, 3, 4, 4), 1),
    "frame_windows": lambda: checked(frame_windows)(R(9, 5), 4),
    "AudioNet": lambda: checked(AudioNet(5, 6, window=8).forward)(R(3, 8, 5)),
    "AudioAttention": lambda: checked(AudioAttention(6).forward)(R(9, 6)),
    "HashGrid2D": lambda: checked(HashGrid2D(2, 2, 8, 4, 8).corners)(torch.rand(5, 2)),
    "TriPlaneHash": lambda: checked(TriPlaneHash(base=4, finest=8, backend="torch").forward)(torch.rand(5, 3)),
    "MotionField.features": lambda: checked(
        CrossModalMotion({"audio": 4}, base=4, finest=8, backend="torch").features
    )(torch.rand(5, 3)),
    "neighbourhood": lambda: checked(inputs.neighbourhood)(R(9, 4)),
    "pose_vectors": lambda: checked(inputs.pose_vectors)(R(9, 3 * 44)),
    "feature_windows": lambda: checked(inputs.feature_windows)(R(40, 5), torch.arange(3)),
    "CoefficientNet": lambda: checked(CoefficientNet(4, 6).forward)(R(2, 4)),
    "LowRankResidual": lambda: checked(LowRankResidual(7, 3, 4).forward)(R(2, 4)),
    "AppearanceBasis": lambda: checked(AppearanceBasis(4, 6, 5, torch.arange(5)).coefficients)(R(2, 4)),
    "Backdrop": lambda: checked(Backdrop(8, 9, 4).displacement)(R(4)),
    "register": lambda: checked(register)(torch.rand(3, 16, 16), torch.ones(3, 16, 16), 0),
    "predicted_by": lambda: checked(predicted_by)(R(9, 4), R(9, 2, 3), 0.1),
    "BodyInpainter": lambda: checked(BodyInpainter(4, 1).forward)(
        torch.rand(2, 8, 8, 3), torch.rand(2, 8, 8, 1), torch.rand(2, 8, 8, 3), torch.ones(2, 8, 8)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_call_has_the_shapes_that_the_docstring_promises(name):
    CASES[name]()


def test_documented_shapes_are_found_where_they_are_written():
    arguments, result = shapes_of(camera.project)
    assert arguments == {
        "points": ("B", "N", "3"), "rotation": ("B", "3", "3"), "translation": ("B", "3"),
        "intrinsics": ("B", "3", "3"),
    }  # fmt: skip
    assert result == ("B", "N", "2")
    assert shapes_of(rotation.rotation_vector) == ({"rotation": ("...", "3", "3")}, ("...", "3"))
    assert shapes_of(LPIPS.forward)[1] == ("B",)


def test_a_wrong_shape_is_told():
    def halved(points: torch.Tensor) -> torch.Tensor:
        """Points ``[B, N, 3]`` of ``points [B, N, 3]``."""
        return points[:, ::2]

    with pytest.raises(AssertionError, match=r"result: documented \['B', 'N', '3'\], got \[2, 2, 3\]"):
        checked(halved)(R(2, 4, 3))
    with pytest.raises(AssertionError, match="points: documented"):
        checked(halved)(R(2, 4, 2))
