"""Measures of a face in rig units, the same for predicted and tracked expressions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from configs import InputError

# FaceMesh landmarks of the inner lips; the rig's first 478 vertices are these landmarks.
INNER_UPPER, INNER_LOWER = (13, 82, 312), (14, 87, 317)
CORNERS = (61, 291)
LIPS = (
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409),
    *(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415),
)


@lru_cache(maxsize=2)
def default_rig() -> Any:
    """The rig that shipped datasets are tracked with."""
    from heads.rig import load_rig

    return load_rig()


@lru_cache(maxsize=2)
def mirror_signs(rig: Any) -> dict[str, np.ndarray]:
    """What each coefficient of a mirrored head is multiplied by: ``identity`` (K_id,) and ``expression`` (K,), 1 or -1.

    Raises:
        InputError: a rig whose components are not each symmetric or antisymmetric; it cannot tell a mirrored head.
    """
    from scipy.spatial import cKDTree

    flip, mean = np.array([-1.0, 1.0, 1.0]), rig.mean.cpu().numpy()[: rig.n_landmarks or None]
    apart, other = cKDTree(mean).query(mean * flip)
    signs = {}
    for name in ("identity", "expression"):
        basis = getattr(rig, name).cpu().numpy()[:, : len(mean)]
        mirrored = basis[:, other] * flip
        sign = np.sign((basis * mirrored).sum((1, 2)))
        signs[name] = sign.astype(np.float32)
        off = np.abs(mirrored - sign[:, None, None] * basis).max()
        if max(apart.max(), off) > 1e-3:
            raise InputError(f"rig {rig.name}: its {name} components are not symmetric, so heads cannot be mirrored; "
                             "set augment.mirror=0")  # fmt: skip
    return signs


@dataclass(frozen=True)
class LipMotion:
    """Lip vertices (T, L, 3) of a sequence and the mouth opening (T,), both in rig units."""

    lips: np.ndarray
    opening: np.ndarray


@torch.no_grad()
def lip_motion(rig: Any, identity: np.ndarray, expression: np.ndarray, block: int = 512) -> LipMotion:
    """Lips of one person under a sequence of expressions.

    Args:
        identity: (K_id,); expression: (T, K).
    """
    lips, opening = [], []
    person = torch.tensor(identity)[None]
    for start in range(0, len(expression), block):
        part = torch.tensor(expression[start : start + block])
        vertices = rig.vertices(person.expand(len(part), -1), part)
        lips.append(vertices[:, list(LIPS)].numpy())
        gap = vertices[:, list(INNER_LOWER), 1] - vertices[:, list(INNER_UPPER), 1]
        opening.append(gap.mean(1).numpy())
    return LipMotion(np.concatenate(lips), np.concatenate(opening))


@torch.no_grad()
def component_importance(rig: Any, scale: np.ndarray, lips: float) -> np.ndarray:
    """How far each expression component moves the face at its own spread ``scale`` (K,): (K,), mean 1.

    ``lips``: the share (0..1) that counts lip vertices alone; the rest counts all landmarks.
    """
    count = len(scale)
    identity = torch.zeros(count + 1, rig.n_identity)
    moves = torch.cat([torch.zeros(1, count), torch.diag(torch.from_numpy(np.asarray(scale, np.float32)))])
    vertices = rig.vertices(identity, moves)[:, :478]
    energy = (vertices[1:] - vertices[:1]).square().sum(-1)
    of_lips, of_all = energy[:, list(LIPS)].mean(1), energy.mean(1)
    mixed = lips * of_lips / of_lips.mean().clamp_min(1e-12) + (1 - lips) * of_all / of_all.mean().clamp_min(1e-12)
    return (mixed / mixed.mean()).numpy()


@torch.no_grad()
def mouth_directions(rig: Any, scale: np.ndarray) -> np.ndarray:
    """What each expression component does to the mouth at its spread ``scale`` (K,): (K, 2) opening and width, rig units.

    Exact for rigs that are linear in expression, the first order for others.
    """
    count = len(scale)
    identity = torch.zeros(count + 1, rig.n_identity)
    moves = torch.cat([torch.zeros(1, count), torch.diag(torch.from_numpy(np.asarray(scale, np.float32)))])
    vertices = rig.vertices(identity, moves)
    opening = (vertices[:, list(INNER_LOWER), 1] - vertices[:, list(INNER_UPPER), 1]).mean(1)
    width = (vertices[:, CORNERS[1]] - vertices[:, CORNERS[0]]).norm(dim=-1)
    measured = torch.stack([opening, width], 1)
    return (measured[1:] - measured[:1]).numpy()


def lip_error(a: np.ndarray, b: np.ndarray) -> float:
    """Mean distance of lip vertices (T, L, 3), rig units."""
    return float(np.sqrt(((a - b) ** 2).sum(-1)).mean())
