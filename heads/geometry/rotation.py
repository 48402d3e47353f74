"""Rotations as matrices, rotation vectors, quaternions ``wxyz`` and Euler angles.

Tensor functions are differentiable. Angles are radians. Axes are those of the camera (OpenCV): x right, y down,
z forward; a frontal head's nose points along -z.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from configs.devices import constant, is_accelerator

_IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
# The matrix of a cross product by x, y, z: entries by rows.
_CROSS = (
    (0, 0, 0, 0, 0, -1, 0, 1, 0),
    (0, 0, 1, 0, 0, 0, -1, 0, 0),
    (0, -1, 0, 1, 0, 0, 0, 0, 0),
)
# The vector of a matrix's skew part, twice: entries by rows.
_SKEW = (
    (0, 0, 0), (0, 0, -1), (0, 1, 0),
    (0, 0, 1), (0, 0, 0), (-1, 0, 0),
    (0, -1, 0), (1, 0, 0), (0, 0, 0),
)  # fmt: skip
# Entries of a gaze's rotation, by rows: sign and two of (cos yaw, cos pitch, sin yaw, sin pitch, 1), or nothing.
_CY, _CP, _SY, _SP, _ONE = range(5)
_ENTRIES = (
    (1, _CY, _ONE), (-1, _SY, _SP), (-1, _SY, _CP),
    (0, 0, 0), (1, _CP, _ONE), (-1, _SP, _ONE),
    (1, _SY, _ONE), (1, _CY, _SP), (1, _CY, _CP),
)  # fmt: skip
_GAZE = tuple(
    tuple(float(sign) if pair == (first, second) else 0.0 for sign, first, second in _ENTRIES)
    for pair in itertools.product(range(5), repeat=2)
)


def rotation_vector(rotation: Tensor) -> Tensor:
    """Rotation vectors ``[..., 3]`` (radians) of matrices ``[..., 3, 3]``; exact below a half turn."""
    skew = torch.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        dim=-1,
    )
    cosine = ((rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1)
    sine = skew.norm(dim=-1) / 2
    angle = torch.atan2(sine, cosine)
    return skew * torch.where(sine > 1e-6, angle / (2 * sine).clamp_min(1e-9), torch.full_like(sine, 0.5))[..., None]


def rotation_matrix(vector: Tensor) -> Tensor:
    """Rotation matrices ``[..., 3, 3]`` of rotation vectors ``[..., 3]`` (Rodrigues' formula), smooth at zero."""
    return _Turn.apply(vector) if is_accelerator(vector.device) else _rodrigues(vector)[0]


def _rodrigues(vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The matrix, and its two factors ``[..., 1, 1]``: sin / angle, (1 - cos) / angle²."""
    cross = (vector @ constant(_CROSS, vector)).unflatten(-1, (3, 3))
    square = vector.square().sum(-1)[..., None, None]
    angle = (square + 1e-12).sqrt()
    a, b = torch.sin(angle) / angle, (1 - torch.cos(angle)) / (square + 1e-12)
    # The second factor suffers cancellation near zero; its limit is one half.
    b = torch.where(square < 1e-6, 0.5 - square / 24, b)
    return constant(_IDENTITY, vector) + a * cross + b * (cross @ cross), a, b


class _Saved(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]


class _Turn(torch.autograd.Function):
    """:func:`_rodrigues` with its gradient in closed form: on accelerators, each of autograd's forty operators is a launch."""

    @staticmethod
    def forward(ctx: FunctionCtx, vector: Tensor) -> Tensor:
        rotation, a, b = _rodrigues(vector)
        ctx.save_for_backward(vector, rotation, a, b)
        return rotation

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _Saved, upstream: Tensor) -> Tensor:
        vector, rotation, a, b = ctx.saved_tensors
        # The torque of the upstream gradient, then the transposed left Jacobian 1 - b v x + c v x v x.
        torque = (upstream @ rotation.transpose(-1, -2)).flatten(-2) @ constant(_SKEW, vector)
        once = torch.linalg.cross(vector, torque)
        c = ((1 - a) / (vector.square().sum(-1)[..., None, None] + 1e-12))[..., 0]
        return torch.addcmul(torch.addcmul(torque, b[..., 0], once, value=-1), c, torch.linalg.cross(vector, once))


def quaternions(rotation: Tensor) -> Tensor:
    """Unit quaternions wxyz ``[..., 4]`` of rotation matrices ``[..., 3, 3]``, differentiable everywhere."""
    m = rotation.flatten(-2).unbind(-1)
    squares = torch.stack(
        [1 + m[0] + m[4] + m[8], 1 + m[0] - m[4] - m[8], 1 - m[0] + m[4] - m[8], 1 - m[0] - m[4] + m[8]], -1
    )
    # Row k is the quaternion times four times its component k; the row of the largest component is well conditioned.
    rows = torch.stack(
        [
            torch.stack([squares[..., 0], m[7] - m[5], m[2] - m[6], m[3] - m[1]], -1),
            torch.stack([m[7] - m[5], squares[..., 1], m[1] + m[3], m[2] + m[6]], -1),
            torch.stack([m[2] - m[6], m[1] + m[3], squares[..., 2], m[5] + m[7]], -1),
            torch.stack([m[3] - m[1], m[2] + m[6], m[5] + m[7], squares[..., 3]], -1),
        ],
        -2,
    )
    best = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    return F.normalize(rows.gather(-2, best)[..., 0, :], dim=-1)


def quaternion_product(p: Tensor, q: Tensor) -> Tensor:
    """Hamilton product of quaternions wxyz ``[..., 4]``: the rotation by ``q``, followed by that of ``p``."""
    pw, pv, qw, qv = p[..., :1], p[..., 1:], q[..., :1], q[..., 1:]
    vector = pw * qv + qw * pv + torch.linalg.cross(pv, qv)
    return torch.cat([pw * qw - (pv * qv).sum(-1, True), vector], -1)


def quaternion_matrices(quats: Tensor) -> Tensor:
    """Rotation matrices ``[..., 3, 3]`` of quaternions wxyz ``[..., 4]`` of any length; zero means no rotation."""
    w, x, y, z = F.normalize(quats, dim=-1).unbind(-1)
    rows = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def gaze_rotation(gaze: Tensor) -> Tensor:
    """Rotations ``[..., 3, 3]`` from straight ahead, (0, 0, -1), to ``gaze [..., 2]``: yaw towards +x, pitch towards +y."""
    one = constant((1.0,), gaze).expand(*gaze.shape[:-1], 1)
    terms = torch.cat([gaze.cos(), gaze.sin(), one], -1)  # cos yaw, cos pitch, sin yaw, sin pitch, 1
    products = (terms[..., None] * terms[..., None, :]).flatten(-2)
    return (products @ constant(_GAZE, gaze)).unflatten(-1, (3, 3))


def turn_vectors(rotation: np.ndarray) -> np.ndarray:
    """Rotation vectors ``[T, 3]`` of NumPy matrices ``[T, 3, 3]``, in their dtype; see :func:`rotation_vector`."""
    r = rotation
    skew = np.stack([r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]], -1)
    cosine = np.clip((r[:, 0, 0] + r[:, 1, 1] + r[:, 2, 2] - 1) / 2, -1, 1)
    sine = np.sqrt((skew * skew).sum(-1)) / 2
    factor = np.where(sine > 1e-6, np.arctan2(sine, cosine) / np.maximum(2 * sine, 1e-9), 0.5)
    return (skew * factor[:, None]).astype(rotation.dtype)


def turn_matrix(vector: np.ndarray) -> np.ndarray:
    """:func:`rotation_matrix` of one vector ``[3]``, float32 and without a gradient."""
    x, y, z = (float(v) for v in vector)
    square = x * x + y * y + z * z
    angle = math.sqrt(square + 1e-12)
    a = math.sin(angle) / angle
    b = 0.5 - square / 24 if square < 1e-6 else (1 - math.cos(angle)) / (square + 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return (np.eye(3) + a * cross + b * (cross @ cross)).astype(np.float32)


def gaze_matrix(yaw: float, pitch: float) -> np.ndarray:
    """:func:`gaze_rotation` of one eye ``[3, 3]``, float32 and without a gradient."""
    sy, cy, sp, cp = math.sin(yaw), math.cos(yaw), math.sin(pitch), math.cos(pitch)
    return np.array([[cy, -sy * sp, -sy * cp], [0, cp, -sp], [sy, cy * sp, cy * cp]], np.float32)


def euler_to_rotation(yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Matrices ``[T, 3, 3]`` float32 of yaw, pitch and roll ``[T]`` each: ``R = R_y(-yaw) R_x(pitch) R_z(roll)``.

    Positive yaw turns the nose to the image's right, positive pitch lowers it, positive roll tilts clockwise.
    """
    yaw, pitch, roll = np.broadcast_arrays(*(np.atleast_1d(np.asarray(a, np.float64)) for a in (yaw, pitch, roll)))
    # The nose points along -z: turning it to +x is a rotation about y by -yaw, and to +y about x by +pitch.
    cy, sy, cp, sp, cr, sr = np.cos(-yaw), np.sin(-yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    zero, one = np.zeros_like(cy), np.ones_like(cy)
    about_y = np.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).reshape(-1, 3, 3)
    about_x = np.stack([one, zero, zero, zero, cp, -sp, zero, sp, cp], -1).reshape(-1, 3, 3)
    about_z = np.stack([cr, -sr, zero, sr, cr, zero, zero, zero, one], -1).reshape(-1, 3, 3)
    return (about_y @ about_x @ about_z).astype(np.float32)


def euler_matrix(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """:func:`euler_to_rotation` of one frame ``[3, 3]``."""
    cy, sy, cp, sp = math.cos(yaw), -math.sin(yaw), math.cos(pitch), math.sin(pitch)
    cr, sr = math.cos(roll), math.sin(roll)
    rows = (
        (cy * cr + sy * sp * sr, -cy * sr + sy * sp * cr, sy * cp),
        (cp * sr, cp * cr, -sp),
        (-sy * cr + cy * sp * sr, sy * sr + cy * sp * cr, cy * cp),
    )
    return np.array(rows, np.float32)


def rotation_to_euler(rotation: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll ``[T, 3]`` of matrices ``[T, 3, 3]``; the inverse of :func:`euler_to_rotation`."""
    pitch = np.arcsin(np.clip(-rotation[:, 1, 2], -1.0, 1.0))
    yaw = -np.arctan2(rotation[:, 0, 2], rotation[:, 2, 2])
    roll = np.arctan2(rotation[:, 1, 0], rotation[:, 1, 1])
    return np.stack([yaw, pitch, roll], -1)


def angles_to_frontal(rotation: np.ndarray) -> np.ndarray:
    """Angle ``[T]`` between the head's and the camera's z-axis, for matrices ``[T, 3, 3]``."""
    return np.arccos(np.clip(rotation[:, 2, 2], -1, 1))


def relative_angles(rotation: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Angle ``[T]`` of the relative rotation between each of ``rotation [T, 3, 3]`` and ``reference [3, 3]``."""
    trace = np.einsum("tij,ij->t", rotation, reference)
    return np.arccos(np.clip((trace - 1) / 2, -1, 1))
