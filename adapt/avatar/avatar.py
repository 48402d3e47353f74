"""Avatars in memory: one person's head, ready to render, made by a recipe or opened from its folder."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adapt.avatar import folder
from adapt.avatar.provenance import Provenance
from adapt.clip import FEATURES, Clip
from adapt.drivers.base import Driver
from adapt.drivers.loudness import LoudnessDriver
from adapt.drivers.prior import PriorDriver
from adapt.drivers.ridge import RidgeDriver
from adapt.models.base import HeadModel, over_original
from adapt.models.drive import Drive, drive_of
from adapt.priors import Priors, reopen_prior
from adapt.recipes import recipe as recipe_module
from cluster.storage.errors import is_remote
from cluster.storage.staging import Stage
from configs import InputError, load_config, to_dict
from shards.media.decode import read_frames, read_video
from shards.media.encode import VideoWriter, as_uint8
from shards.media.rates import FPS

BODY = "body.mp4"
THUMBNAIL = "thumbnail.jpg"
BACKGROUNDS = ("original", "plain", "rgba", "model")
PLAIN = (0.55, 0.6, 0.65)


def pick_device(device: str) -> torch.device:
    """``auto`` is CUDA where there is one.

    Raises:
        InputError: an unknown device, or CUDA where there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("device 'cuda': this machine has no CUDA device that PyTorch can use; use --device cpu")
    try:
        return torch.device(device)
    except RuntimeError:
        raise InputError(f"device '{device}': expected auto, cpu or cuda") from None


@dataclass
class Avatar:
    """One adapted person.

    Attributes:
        name, document: the folder's name and its ``avatar.json``.
        model: the head; rig: on the model's device.
        track: the training clip's ``rotation, translation, expression, eyelids, gaze, landmarks`` ``[T, ...]``.
        driver: what turns sound into expressions.
        path: the folder, ``None`` before it was saved.
    """

    name: str
    document: dict[str, Any]
    model: HeadModel
    rig: Any
    track: dict[str, np.ndarray]
    driver: Driver
    device: torch.device
    path: Path | None = None
    priors: Priors = field(default_factory=Priors)

    @property
    def size(self) -> int:
        """Side of its frames, px."""
        return self.model.size

    def provenance(self, audio: str) -> Provenance:
        """The statement that its outputs carry."""
        weights = self.document["files"][folder.WEIGHTS]["sha256"] if "files" in self.document else ""
        return Provenance.make(avatar=self.name, avatar_sha256=weights, recipe=self.document["recipe"], audio=audio)

    def tracked_drive(self, frames: np.ndarray | list[int]) -> Drive:
        """The drive of frames of the training clip, without sound."""
        return drive_of(self.track, self.device).pick(frames)

    def gaussians(self, frame: int | None = None):
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
        drive: Drive,
        *,
        background: str = "model",
        original: np.ndarray | None = None,
        head: np.ndarray | None = None,
    ) -> np.ndarray:
        """Frames for a drive.

        Args:
            background: ``model`` (the avatar's own body layer), ``original`` (a real frame's body through the
                inpainter), ``plain`` (the head alone on grey) or ``rgba`` (straight alpha).
            original: ``[B, H, W, 3]`` uint8 and ``head [B, H, W]`` its dilated head region, for ``original``.

        Returns:
            ``[B, H, W, 3]`` (4 for ``rgba``) float32 in [0, 1].
        """
        rendered = self.model(drive.to(self.device))
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
        elif background == "rgba":
            image = torch.cat([rendered.color / rendered.alpha.clamp(min=1e-3), rendered.alpha], -1)
        else:
            image = rendered.image
        return image.clamp(0, 1).cpu().numpy()


# --- saving ---------------------------------------------------------------------------------------------------------


def avatar_tensors(model: HeadModel, track: Mapping[str, np.ndarray], driver: Driver) -> dict[str, Tensor]:
    """Everything of an avatar that is numbers; large pictures in half precision."""
    tensors = {f"model.{key}": _stored(value) for key, value in model.state_dict().items()}
    tensors.update({f"track.{name}": torch.from_numpy(np.ascontiguousarray(rows)) for name, rows in track.items()})
    if isinstance(driver, RidgeDriver):
        tensors.update({f"ridge.{name}": value for name, value in driver.tensors().items()})
    if isinstance(driver, PriorDriver):
        tensors.update({f"voice.{name}": value for name, value in driver.tensors().items()})
    return tensors


def _stored(value: Tensor) -> Tensor:
    # Half precision resolves colours to 1/2048 and saves most of the folder's size; small tensors stay exact.
    return value.half() if value.is_floating_point() and value.numel() > 65536 else value


def thumbnail(image: np.ndarray, provenance: Provenance) -> bytes:
    """A JPEG with the statement in its comment."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(as_uint8(image)).save(buffer, "JPEG", quality=90, comment=provenance.statement().encode())
    return buffer.getvalue()


def body_video(clip: Clip, frames: int, provenance: Provenance) -> bytes:
    """The clip's own frames as H.264, the body behind the head in ``talk``; streamed through a temporary file."""
    with tempfile.TemporaryDirectory(prefix="headstart-body-") as temporary:
        path = Path(temporary) / BODY
        with VideoWriter(path, clip.size, clip.size, tags=provenance.tags(), crf=20) as writer:
            for frame in range(frames):
                writer.write(clip.frames([frame])[0])
        return path.read_bytes()


# --- opening --------------------------------------------------------------------------------------------------------


def load_avatar(path: str | Path, device: str = "auto", *, prior: str | Path | None = None) -> Avatar:
    """Open an avatar folder, every file checked against its hash.

    Args:
        path: the folder, or the ``s3://`` URL of a published one, which is copied for as long as the avatar is in use.
        device: ``auto``, ``cpu``, ``cuda``.
        prior: where its audio-expression prior is now, if not where it was when the avatar was made.

    Raises:
        InputError: missing or altered files, another rig, a prior that is gone or another one, no such device.
    """
    place = pick_device(device)
    if not is_remote(path):
        return _load_folder(Path(str(path)), place, prior)
    with Stage() as stage:
        avatar = _load_folder(stage.fetch(path), place, prior)
        stage.hold_for(avatar)
    return avatar


def _load_folder(path: Path, place: torch.device, prior: str | Path | None) -> Avatar:
    from heads.rig import load_rig

    document, tensors = folder.read_folder(path)
    rig = load_rig(document["rig"].get("source", "mediapipe"))
    if rig.sha256 != document["rig"]["sha256"]:
        raise InputError(
            f"avatar '{path}' was made for rig {document['rig']['name']} ({document['rig']['sha256'][:12]}), but "
            f"{rig.name} is now {rig.sha256[:12]}; use the version of headstart that made it, or adapt again"
        )
    rig = rig.to(place)
    model = _restore_model(document, _with_prefix(tensors, "model."), rig, path).to(place).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    track = {name: value.float().numpy() for name, value in _with_prefix(tensors, "track.").items()}
    driver = _restore_driver(document, tensors, rig, path, prior)
    return Avatar(path.name, document, model, rig, track, driver, place, path)


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _restore_model(document: dict[str, Any], tensors: dict[str, Tensor], rig: Any, path: Path) -> HeadModel:
    module = recipe_module(document["recipe"])
    config = load_config(module.Config, document["config"])
    try:
        model = module.empty(config, document, tensors, rig)
        if any(key.startswith("inpainting.") for key in tensors):
            from adapt.fit.alignment import Inpainting

            model.inpainting = Inpainting()
        model.load_state_dict({key: value.float() if value.is_floating_point() else value
                               for key, value in tensors.items()})  # fmt: skip
    except (RuntimeError, KeyError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"avatar '{path}': its weights do not fit its recipe ({first}); adapt again") from None
    return model


def _restore_driver(
    document: dict[str, Any], tensors: dict[str, Tensor], rig: Any, path: Path, prior: str | Path | None
) -> Driver:
    record = (document.get("priors") or {}).get("audio-expression")
    if record is not None and document.get("driver") == "prior":
        record = {**record, "uri": str(prior)} if prior is not None else record
        opened = reopen_prior(record, rig, inside=None if prior is not None else path / "priors" / "audio-expression")
        return PriorDriver.from_tensors(opened, _with_prefix(tensors, "voice."), record)
    ridge = _with_prefix(tensors, "ridge.")
    if ridge:
        return RidgeDriver.from_tensors(ridge)
    return loudness_driver(rig, tensors["track.expression"].float().numpy())


def loudness_driver(rig: Any, expression: np.ndarray) -> LoudnessDriver:
    """The driver of last resort, around the clip's median face."""
    jaw = rig.control("jaw", 1.0)["expression"].cpu().numpy()
    return LoudnessDriver(np.median(expression, 0), jaw)


# --- the body behind the head ---------------------------------------------------------------------------------------


class BodyFrames:
    """The training clip's frames and head regions by number, for ``background='original'``.

    Frames are decoded from the avatar's ``body.mp4`` as they are asked for, forwards; a jump back decodes anew, and a
    window of frames around the last one is kept, so playing to and fro costs little and memory stays constant.
    """

    def __init__(self, avatar: Avatar, keep: int = 64) -> None:
        self.avatar, self.keep = avatar, keep
        self.path = avatar.path / BODY if avatar.path is not None else None
        if self.path is None or not self.path.is_file():
            raise InputError(f"avatar '{avatar.name}' holds no {BODY}; use --background plain or adapt again")
        self.held: dict[int, np.ndarray] = {}

    def __call__(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Frames ``[n, H, W, 3]`` uint8 and dilated head regions ``[n, H, W]`` in [0, 1]."""
        frames = np.stack([self._frame(int(index)) for index in indices])
        return frames, self._heads(indices)

    def _heads(self, indices: np.ndarray) -> np.ndarray:
        from heads.masks import region_masks

        size = self.avatar.size
        unique, back = np.unique(indices, return_inverse=True)
        return region_masks(self.avatar.track["landmarks"][unique], size, size, ("head",))["head"][back]

    def _frame(self, index: int) -> np.ndarray:
        if index not in self.held:
            self._decode_around(index)
        return self.held[index]

    def _decode_around(self, index: int) -> None:
        first = max(0, index - self.keep // 2)
        pictures = read_video(self.path, start=first / FPS, seconds=self.keep / FPS)
        self.held = dict(enumerate(pictures, first))
        if index not in self.held:
            raise InputError(f"avatar '{self.avatar.name}': {BODY} ends before frame {index}; adapt again")


def frames_of(avatar: Avatar) -> Iterator[np.ndarray]:
    """The training clip's frames, in order."""
    yield from read_frames(avatar.path / BODY)


def config_dict(config: Any) -> dict[str, Any]:
    """A recipe's configuration as JSON will keep it."""
    return json.loads(json.dumps(to_dict(config)))


def features_record() -> dict[str, Any]:
    """What the avatar hears."""
    from shards.features import feature_size

    return {"name": FEATURES, "size": feature_size(FEATURES)}
