"""What an avatar's folder holds, as tensors and bytes; :mod:`adapt.avatar.folder` puts it on disk."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adapt.avatar.provenance import Provenance
from adapt.drivers.base import Driver
from adapt.drivers.prior import PriorDriver
from adapt.drivers.ridge import RidgeDriver
from adapt.marking.marker import Marker
from adapt.models.base import HeadModel
from shards.media.encode import as_uint8
from shards.tracking.refinement import FaceTexture

BODY = "body.mp4"
THUMBNAIL = "thumbnail.jpg"
PREVIEW = "preview.jpg"
# Floating-point tensors of a model with more elements than this are stored in half precision.
EXACT_UP_TO = 65536


def avatar_tensors(
    model: HeadModel, track: Mapping[str, np.ndarray], driver: Driver, texture: FaceTexture | None = None
) -> dict[str, Tensor]:
    """All tensors of an avatar, as ``model.KEY``, ``track.NAME``, ``texture.NAME`` and the driver's; large weights in half
    precision."""
    tensors = {f"model.{key}": _stored(value) for key, value in model.state_dict().items()}
    tensors.update({f"track.{name}": torch.from_numpy(np.ascontiguousarray(rows)) for name, rows in track.items()})
    if texture is not None:
        tensors.update({f"texture.{name}": torch.from_numpy(values) for name, values in vars(texture).items()})
    if isinstance(driver, RidgeDriver):
        tensors.update({f"ridge.{name}": value for name, value in driver.tensors().items()})
    if isinstance(driver, PriorDriver):
        tensors.update({f"voice.{name}": value for name, value in driver.tensors().items()})
    return tensors


def exact_tensors(model: HeadModel) -> dict[str, Tensor]:
    """The weights that :func:`avatar_tensors` rounds, as ``exact/KEY``: ``--resume`` continues with these."""
    return {f"exact/{key}": value for key, value in model.state_dict().items() if _rounded(value)}


def restore_exact(model: HeadModel, state: Mapping[str, Tensor]) -> None:
    """Undo the rounding of a model that was opened from its avatar."""
    own = model.state_dict()
    for key, value in state.items():
        name = key.removeprefix("exact/")
        if name != key and name in own:
            own[name].copy_(value)


def _rounded(value: Tensor) -> bool:
    # Half precision resolves colours to 1/2048 and saves most of the folder's size; small tensors stay exact.
    return value.is_floating_point() and value.numel() > EXACT_UP_TO


def _stored(value: Tensor) -> Tensor:
    return value.half() if _rounded(value) else value


def thumbnail(image: np.ndarray, provenance: Provenance) -> bytes:
    """A JPEG of ``image [H, W, 3]`` in [0, 1] with the watermark, and the statement in its comment.

    The avatar's hash is not known before its folder is written, so the watermark names no avatar.
    """
    buffer = io.BytesIO()
    Image.fromarray(Marker("")(as_uint8(image))).save(
        buffer, "JPEG", quality=90, comment=provenance.statement().encode()
    )
    return buffer.getvalue()
