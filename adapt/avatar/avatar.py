"""Avatars in memory: one person's head, ready to render, made by a recipe or opened from its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from adapt.avatar import folder
from adapt.avatar.document import AvatarDocument, PriorRecord
from adapt.avatar.provenance import Provenance, tool_version
from adapt.drivers.base import Driver
from adapt.drivers.loudness import LoudnessDriver
from adapt.drivers.prior import PriorDriver
from adapt.drivers.ridge import RidgeDriver
from adapt.models.base import HeadModel, over_original
from adapt.models.inpainting import Inpainting
from adapt.priors import open_rig, record_of, reopen_prior
from adapt.recipes.registry import recipe
from cluster.storage.errors import is_remote
from cluster.storage.staging import Stage
from cluster.storage.tensors import misfit
from configs import InputError, to_dict
from configs.devices import pick_device
from heads.gaussians.cloud import Gaussians
from heads.person.inputs import HeadInputs, head_inputs
from heads.rig import Rig
from pretrain.roles import MOTION, MotionPrior
from shards.people.consent import UNKNOWN
from shards.tracking.refinement import FaceTexture

BACKGROUNDS = ("original", "plain", "rgba", "model")
PLAIN = (0.55, 0.6, 0.65)  # RGB in [0, 1] behind the head for ``plain``


@dataclass
class Avatar:
    """One adapted person.

    Attributes:
        name, document: the folder's name and its ``avatar.json``.
        model: the head; rig: on the model's device.
        track: the training clip's ``rotation, translation, expression, eyelids, gaze, landmarks`` ``[T, ...]``.
        driver: what turns sound into expressions.
        texture: what the training clip's faces were aligned to; ``None`` if its track was not refined on the pixels.
        path: the folder, ``None`` before it was saved.
    """

    name: str
    document: AvatarDocument
    model: HeadModel
    rig: Rig
    track: dict[str, np.ndarray]
    driver: Driver
    device: torch.device
    path: Path | None = None
    texture: FaceTexture | None = None

    @property
    def size(self) -> int:
        """Side of its frames, px."""
        return self.model.size

    def provenance(self, audio: str) -> Provenance:
        """The statement that its outputs carry."""
        weights = self.document["files"][folder.WEIGHTS]["sha256"] if "files" in self.document else ""
        agreed = self.document.get("consent") or {}
        return Provenance.make(
            avatar=self.name,
            avatar_sha256=weights,
            recipe=self.document["recipe"],
            audio=audio,
            **{name: str(agreed.get(name) or UNKNOWN) for name in ("consent", "licence")},
        )

    def tracked_drive(self, frames: np.ndarray | list[int]) -> HeadInputs:
        """Inputs of these frames of the training clip, as tracked, without audio features."""
        return head_inputs(self.track, self.device).pick(frames)

    def gaussians(self, frame: int | None = None) -> Gaussians:
        """The head's Gaussians in head space, for one frame of the training clip or at rest.

        Raises:
            InputError: no such frame.
        """
        with torch.no_grad():
            if frame is None:
                return self.model.gaussians(None)
            count = len(self.track["rotation"])
            if not 0 <= frame < count:
                raise InputError(f"frame {frame}: the avatar's clip has frames 0 to {count - 1}")
            return self.model.gaussians(self.tracked_drive([frame]))

    @torch.no_grad()
    def render(
        self,
        inputs: HeadInputs,
        *,
        background: str = "model",
        original: np.ndarray | None = None,
        head: np.ndarray | None = None,
    ) -> np.ndarray:
        """Render frames.

        Args:
            inputs: pose, expression, eyelids and gaze of ``B`` frames, with audio features where the recipe needs them.
            background: ``model`` (the avatar's own body layer), ``original`` (a real frame's body through the
                inpainter), ``plain`` (the head alone on grey) or ``rgba`` (straight alpha).
            original: real frames ``[B, H, W, 3]`` uint8, needed for ``original``.
            head: their dilated head regions ``[B, H, W]`` in [0, 1], needed for ``original``.

        Returns:
            ``[B, H, W, 3]`` (4 channels for ``rgba``) float32 in [0, 1].

        Raises:
            ValueError: ``original`` without frames and head regions.
        """
        inputs = inputs.to(self.device)
        if background == "model":
            return self.model.pictures(inputs).cpu().numpy()
        rendered = self.model(inputs)
        if background == "original":
            if original is None or head is None:
                raise ValueError("background 'original' needs the original frames and their head regions")
            frame = torch.from_numpy(np.ascontiguousarray(original)).to(self.device).float() / 255.0
            region = torch.from_numpy(np.ascontiguousarray(head)).to(self.device).float()[..., None]
            if self.model.inpainting is not None:
                image = self.model.inpainting(rendered, frame, region)
            else:
                image = over_original(rendered, frame, region)
        elif background == "plain":
            image = rendered.color + (1 - rendered.alpha) * torch.tensor(PLAIN, device=self.device)
        else:
            image = torch.cat([rendered.color / rendered.alpha.clamp(min=1e-3), rendered.alpha], -1)
        return image.clamp(0, 1).cpu().numpy()


# --- opening --------------------------------------------------------------------------------------------------------


def load_avatar(
    path: str | Path, device: str = "auto", *, prior: str | Path | None = None, speaks: bool = True
) -> Avatar:
    """Open an avatar folder, every file checked against its hash.

    Args:
        path: the folder, or the ``s3://`` URL of a published one, which is copied for as long as the avatar is in use.
        device: ``auto``, ``cpu``, ``cuda``, or another that torch knows.
        prior: new location of its audio-expression prior, if that was moved.
        speaks: False if its own driver is not needed: its prior may then be missing, and loudness drives the avatar.

    Raises:
        InputError: missing or altered files, a different rig, a prior that is missing or has changed, no such device.
    """
    place = pick_device(device)
    if not is_remote(path):
        return _load_folder(Path(str(path)), place, prior, speaks)
    with Stage() as stage:
        avatar = _load_folder(stage.fetch(path), place, prior, speaks)
        stage.hold_for(avatar)
    return avatar


def _load_folder(path: Path, place: torch.device, prior: str | Path | None, speaks: bool) -> Avatar:
    document, tensors = folder.read_folder(path)
    model, rig = restore_model(document, tensors, place, path)
    model.eval().requires_grad_(False)
    track = {name: value.float().numpy() for name, value in _with_prefix(tensors, "track.").items()}
    restored = _restore_driver(document, tensors, rig, path, prior) if speaks else None
    driver = restored or loudness_driver(rig, track["expression"])
    texture = {name: value.numpy() for name, value in _with_prefix(tensors, "texture.").items()}
    return Avatar(
        path.name, document, model, rig, track, driver, place, path, FaceTexture(**texture) if texture else None
    )


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def restore_model(
    document: AvatarDocument, tensors: Mapping[str, Tensor], device: torch.device, path: Path
) -> tuple[HeadModel, Rig]:
    """Rebuild an avatar's model from its document and weights; the model and its rig are returned on ``device``.

    Raises:
        InputError: weights that do not fit the recipe, or a different rig.
    """
    try:
        rig = open_rig(document["rig"])
    except InputError as error:
        raise InputError(f"avatar '{path}' was made for another rig: {error}") from None
    made, weights = recipe(document["recipe"]), _with_prefix(tensors, "model.")
    try:
        model = made.empty(made.config(document["config"]), document, weights, rig)
        if any(key.startswith("inpainting.") for key in weights):
            model.inpainting = Inpainting()
        model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    except (RuntimeError, LookupError, ValueError, TypeError) as error:
        tool = f"{document['provenance']['tool']} made it, this is {tool_version()}"
        raise InputError(
            f"avatar '{path}': its weights do not fit its recipe ({misfit(error)}; {tool}); "
            "use the version that made it, or adapt again"
        ) from None
    return model.to(device), rig.to(device)


def _restore_driver(
    document: AvatarDocument, tensors: dict[str, Tensor], rig: Rig, path: Path, prior: str | Path | None
) -> Driver:
    record = record_of(document.get("priors"), MOTION)
    if record is not None and document.get("driver") == "prior":
        record = cast(PriorRecord, {**record, "uri": str(prior)}) if prior is not None else record
        opened = reopen_prior(record, rig, inside=None if prior is not None else path / "priors" / record["name"])
        if not isinstance(opened, MotionPrior):
            raise InputError(f"avatar '{path}': its {record['name']} prior turns no sound into motion; adapt again")
        return PriorDriver.from_tensors(opened, _with_prefix(tensors, "voice."), record)
    ridge = _with_prefix(tensors, "ridge.")
    if ridge:
        return RidgeDriver.from_tensors(ridge)
    return loudness_driver(rig, tensors["track.expression"].float().numpy())


def loudness_driver(rig: Rig, expression: np.ndarray) -> LoudnessDriver:
    """The fallback driver: loudness opens the jaw around the median of the clip's ``expression [T, K]``."""
    jaw = rig.control("jaw", 1.0)["expression"].cpu().numpy()
    return LoudnessDriver(np.median(expression, 0), jaw)


def config_dict(config: object) -> dict[str, object]:
    """A recipe's configuration as JSON-compatible values."""
    return json.loads(json.dumps(to_dict(config)))
