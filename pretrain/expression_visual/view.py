"""References and targets of one person, with the weights under which the targets are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pretrain.expression_visual.config import ExpressionVisualConfig
from pretrain.expression_visual.weight import pixel_weight
from shards.read.view import PairView

POSE = ("rotation", "translation", "intrinsics", "expression", "eyelids", "gaze")


@dataclass(frozen=True)
class ReferenceView:
    """Callable ``(sample, rng) -> batch entries``.

    With R references, G targets and S px: ``source_*`` and ``target_*`` of ``image`` (R|G, S, S, 3), ``matte``
    (R|G, S, S), both uint8, ``rotation, translation, intrinsics, expression, eyelids, gaze``; ``identity`` (K_id,),
    ``person`` (two numbers for each ``identity_index``, the odd one for the mirrored person), ``target_weight``
    (G, S, S), see :func:`pixel_weight`; ``seen`` (R,) 0 for references to be passed over.

    Args:
        signs: what mirroring multiplies coefficients by, see :func:`heads.measures.face.mirror_signs`; unused with
            ``augment.mirror`` 0.
    """

    config: ExpressionVisualConfig
    signs: Mapping[str, np.ndarray] = field(compare=False, repr=False)
    features: ClassVar[str | None] = None
    window: ClassVar[int] = 1
    needs_sound: ClassVar[bool] = False

    def __call__(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Draw the frames; the same ``rng`` gives the same ones."""
        config = self.config
        extra = config.references - 1
        count = config.targets + extra
        pair = PairView(size=config.size, across=config.across, targets=count, wide=config.wide, bytes=True)(sample, rng)
        names = ("image", "matte", "landmarks", *POSE)
        if count == 1:  # a lone target comes without an axis
            pair |= {f"target_{n}": pair[f"target_{n}"][None] for n in names}
        source = {n: np.concatenate([pair[f"source_{n}"][None], pair[f"target_{n}"][:extra]]) for n in names}
        target = {n: pair[f"target_{n}"][extra : extra + config.targets] for n in names}
        weight = pixel_weight(target.pop("landmarks"), target["matte"], config.loss)
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
        signs: of the expression (K,), see :func:`heads.measures.face.mirror_signs`.
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
