"""References and targets of one person, with the weights under which the targets are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from heads.masks import region_masks
from heads.rig import facemesh
from pretrain.expression_visual.config import ExpressionVisualConfig
from shards.format.schema import Sample
from shards.read.view import PairView

POSE = ("rotation", "translation", "intrinsics", "expression", "eyelids", "gaze")


@dataclass(frozen=True)
class ReferenceView:
    """Callable ``(sample, rng) -> batch entries``.

    With R references, G targets and S px: ``source_*`` and ``target_*`` of ``image`` (R|G, S, S, 3), ``matte``
    (R|G, S, S), ``rotation, translation, intrinsics, expression, eyelids, gaze``; ``identity`` ``[K_id]``,
    ``person`` (two numbers for each ``identity_index``, the odd one for the mirrored person), ``target_weight``
    ``[G, S, S]``, see :func:`pixel_weight`; ``seen`` ``[R]`` 0 for references to be passed over.

    Args:
        signs: what mirroring multiplies coefficients by, see :func:`heads.measures.face.mirror_signs`; unused with
            ``augment.mirror`` 0.
    """

    config: ExpressionVisualConfig
    signs: Mapping[str, np.ndarray] = field(compare=False, repr=False)
    features: ClassVar[str | None] = None
    window: ClassVar[int] = 1
    needs_sound: ClassVar[bool] = False

    def __call__(self, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        """Draw the frames; the same ``rng`` gives the same ones."""
        config = self.config
        extra = config.references - 1
        pair = PairView(size=config.size, across=config.across, targets=config.targets + extra, wide=config.wide)(
            sample, rng
        )
        names = ("image", "matte", "landmarks", *POSE)
        if config.targets + extra == 1:  # a lone target comes without an axis
            pair |= {f"target_{n}": pair[f"target_{n}"][None] for n in names}
        source = {n: np.concatenate([pair[f"source_{n}"][None], pair[f"target_{n}"][:extra]]) for n in names}
        target = {n: pair[f"target_{n}"][extra : extra + config.targets] for n in names}
        weight = pixel_weight(target.pop("landmarks"), target["matte"], config)
        del source["landmarks"]
        seen = np.ones(config.references, np.float32)
        if rng.random() >= config.augment.second:
            seen[1:] = 0
        identity, turned = pair["source_identity"], rng.random() < config.augment.mirror
        if turned:
            flip = self.signs["expression"]
            source, target = mirrored(source, flip), mirrored(target, flip)
            weight, identity = weight[:, :, ::-1].copy(), identity * self.signs["identity"]
        return {
            **{f"source_{n}": v for n, v in source.items()},
            **{f"target_{n}": v for n, v in target.items()},
            "identity": identity,
            "person": np.int64(2 * pair["identity_index"] + turned),
            "target_weight": weight,
            "seen": seen,
        }


def mirrored(frames: dict[str, np.ndarray], signs: np.ndarray) -> dict[str, np.ndarray]:
    """Frames ``image, matte`` and :data:`POSE` (n, ...) as a mirror shows them: another person under another light.

    Args:
        signs: of the expression ``[K]``, see :func:`heads.measures.face.mirror_signs`.
    """
    flip = np.array([-1, 1, 1], np.float32)
    intrinsics = frames["intrinsics"].copy()
    intrinsics[:, 0, 2] = frames["image"].shape[2] - intrinsics[:, 0, 2]
    return {
        "image": frames["image"][:, :, ::-1].copy(),
        "matte": frames["matte"][:, :, ::-1].copy(),
        "rotation": frames["rotation"] * flip[:, None] * flip,
        "translation": frames["translation"] * flip,
        "intrinsics": intrinsics,
        "expression": frames["expression"] * signs,
        "eyelids": frames["eyelids"][:, ::-1].copy(),
        "gaze": frames["gaze"][:, ::-1] * flip[:2],
    }


def pixel_weight(landmarks: np.ndarray, matte: np.ndarray, config: ExpressionVisualConfig) -> np.ndarray:
    """How much each pixel counts ``[G, S, S]``: the head, its hair and neck and the background beside it; not the clothes."""
    size = matte.shape[1]
    names = ("face", "eyes", "lips", "mouth_inside", "head", "hair_neck")
    masks = region_masks(landmarks, size, size, names, matte=matte)
    near = np.maximum(masks["head"], masks["hair_neck"]) * (1 - beside_neck(landmarks, size))
    detail = np.clip(masks["eyes"] + masks["lips"] + masks["mouth_inside"], 0, 1)
    weight = near + (config.loss.face - 1) * masks["face"] + (config.loss.detail - config.loss.face) * detail
    weight += (config.loss.inside - config.loss.detail) * masks["mouth_inside"]
    return np.clip(weight, 0, None).astype(np.float32)


def beside_neck(landmarks: np.ndarray, size: int) -> np.ndarray:
    """1 below the jaw and beside the neck, where shoulders and clothes are, else 0 ``[G, S, S]``, soft at the edges."""
    top, chin = landmarks[:, facemesh.FOREHEAD, :2], landmarks[:, facemesh.CHIN, :2]
    tall = np.maximum(np.linalg.norm(chin - top, axis=-1), 1e-3)[:, None, None]
    down = ((chin - top) / tall[:, 0])[:, None, None]
    centres = np.arange(size, dtype=np.float32) + 0.5
    x, y = centres[None, None] - chin[:, :1, None], centres[None, :, None] - chin[:, 1:, None]
    along = (x * down[..., 0] + y * down[..., 1]) / tall
    across = np.abs(x * down[..., 1] - y * down[..., 0]) / tall
    sides = landmarks[:, [facemesh.FACE_RIGHT, facemesh.FACE_LEFT], :2]
    broad = np.linalg.norm(np.diff(sides, axis=1)[:, 0], axis=-1)[:, None, None] / tall
    below, beside = np.clip((along + 0.12) / 0.05, 0, 1), np.clip((across - 0.42 * broad) / 0.05, 0, 1)
    return (below * beside).astype(np.float32)
