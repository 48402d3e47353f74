"""The rig interface: identity, expression, eyelids and gaze to vertices; triangles, a UV atlas, regions and controls."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from configs import InputError
from heads.geometry.rotation import gaze_rotation
from heads.rig.facemesh import N_LANDMARKS

FORMAT = "headstart-rig/1"
CONTROLS = ("jaw", "blink_left", "blink_right", "brows_up", "brows_down", "smile", "pucker", "gaze_x", "gaze_y")


@dataclass(frozen=True)
class Control:
    """A named direction. Scaled by an amount (1 is strong but natural), it is added to a head's parameters."""

    expression: Tensor  # [K_exp]
    eyelids: Tensor  # [2] left, right
    gaze: Tensor  # [2, 2] left, right eye; yaw, pitch in radians

    def __call__(self, amount: float) -> dict[str, Tensor]:
        return {"expression": self.expression * amount, "eyelids": self.eyelids * amount, "gaze": self.gaze * amount}


class Rig:
    """A head whose vertices are linear in identity and expression; eyelids close and eyeballs turn.

    Head space: x to image right, y down, z away from the camera (OpenCV axes of a frontal head); origin between the
    eyes, inside; one unit is the mean head's eye distance, about 63 mm. "left" is the person's left.

    Attributes:
        name, sha256: which rig this is; the digest covers every defining array.
        n_identity, n_expression, n_vertices: K_id, K_exp, V.
        source: argument of :func:`heads.rig.load_rig` for this rig, such as ``mediapipe`` or ``ict:/path``.
        landmark_vertices: ``[478]`` the vertex of each FaceMesh landmark; empty for a rig that defines none.
        faces: ``[F, 3]`` int64, counter-clockwise seen from outside.
        face_uvs: ``[F, 3, 2]`` in [0, 1], u to the right, v down; per corner, so seams need no doubled vertices.
        face_regions: ``[F]`` int64 into ``regions``.
        regions: region name to label.
        controls: names to directions, see :class:`Control`.
    """

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.name = str(arrays["name"])
        self.sha256 = digest(arrays)
        self.regions = {str(name): k for k, name in enumerate(arrays["region_names"])}
        self.source = self.name
        self.landmark_vertices = torch.from_numpy(_landmark_vertices(arrays))
        # Landmarks that are the first vertices are a view of them.
        self._landmarks_first = bool((self.landmark_vertices == torch.arange(len(self.landmark_vertices))).all())
        floats = ("mean", "identity", "expression", "eyelids", "eyeball_centres", "eyeball_identity", "face_uvs")
        for key in floats:
            setattr(self, key, torch.from_numpy(np.ascontiguousarray(arrays[key], np.float32)))
        for key in ("faces", "face_regions", "eyeball_vertices"):
            setattr(self, key, torch.from_numpy(np.ascontiguousarray(arrays[key], np.int64)))
        self._gap = torch.from_numpy(np.ascontiguousarray(arrays["lid_gap"], np.float32))
        self.controls = self._named_controls(arrays)

    mean: Tensor  # [V, 3]
    identity: Tensor  # [K_id, V, 3]
    expression: Tensor  # [K_exp, V, 3]
    eyelids: Tensor  # [2, V, 3]
    eyeball_centres: Tensor  # [2, 3]
    eyeball_identity: Tensor  # [K_id, 2, 3]
    eyeball_vertices: Tensor  # [V] 0 none, 1 left, 2 right
    faces: Tensor
    face_uvs: Tensor
    face_regions: Tensor

    @property
    def n_identity(self) -> int:
        return len(self.identity)

    @property
    def n_expression(self) -> int:
        return len(self.expression)

    @property
    def n_vertices(self) -> int:
        return len(self.mean)

    @property
    def n_landmarks(self) -> int:
        """478, or 0 for a rig that defines no landmarks."""
        return len(self.landmark_vertices)

    @property
    def record(self) -> dict[str, str]:
        """What datasets, priors and avatars store about their rig: ``name``, ``sha256`` and ``source``."""
        return {"name": self.name, "sha256": self.sha256, "source": self.source}

    def landmarks(self, vertices: Tensor) -> Tensor:
        """The FaceMesh landmarks ``[..., 478, 3]`` of vertices, or of a basis, ``[..., V, 3]``.

        Raises:
            InputError: the rig defines no landmarks.
        """
        if not self.n_landmarks:
            raise InputError(
                f"rig {self.name} names no FaceMesh landmarks, which tracking and measures need; put a landmarks.json "
                f"with the {N_LANDMARKS} vertex numbers beside its file (docs/rig.md), or use the rig 'mediapipe'"
            )
        if self._landmarks_first:
            return vertices[..., : self.n_landmarks, :]
        return vertices[..., self.landmark_vertices, :]

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def to(self, device: torch.device | str) -> Rig:
        """The rig on the device: itself if it is already there, else a copy, which is cached per device."""
        if torch.device(device) == self.device:
            return self
        copies = self.__dict__.setdefault("_copies", {})
        if str(device) not in copies:
            copies[str(device)] = self._copy(device)
        return copies[str(device)]

    def _copy(self, device: torch.device | str) -> Rig:
        other = object.__new__(type(self))
        other.__dict__ = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in self.__dict__.items()}
        other.__dict__["_copies"] = {str(self.device): self}
        other.__dict__.pop("_eyeballs", None)
        other.controls = {
            name: Control(c.expression.to(device), c.eyelids.to(device), c.gaze.to(device))
            for name, c in self.controls.items()
        }
        return other

    def vertices(
        self, identity: Tensor, expression: Tensor, eyelids: Tensor | None = None, gaze: Tensor | None = None
    ) -> Tensor:
        """Vertices in head space.

        Args:
            identity: ``[B, K_id]``, in standard deviations of the people the basis was learned from.
            expression: ``[B, K_exp]``, likewise over frames; zero is the person's neutral face.
            eyelids: ``[B, 2]`` closure of the left and right eye, 0 open as usual, 1 closed; ``None``: open.
            gaze: ``[B, 2, 2]`` per eye (left, right) yaw towards +x and pitch towards +y, radians; ``None``: ahead.

        Returns:
            ``[B, V, 3]`` rig units, differentiable in every argument.

        Raises:
            ValueError: a shape that does not fit, with what was expected.
        """
        identity, expression = self._checked("identity", identity), self._checked("expression", expression)
        if identity.shape[0] != expression.shape[0] and 1 not in (identity.shape[0], expression.shape[0]):
            raise ValueError(
                f"rig {self.name}: identity has {identity.shape[0]} rows, expression {expression.shape[0]}"
            )
        vertices = self.mean + _combine(identity, self.identity) + _combine(expression, self.expression)
        if eyelids is not None:
            vertices = vertices + self._lids(identity, eyelids)
        if gaze is not None:
            vertices = self._turn_eyes(vertices, identity, gaze)
        return vertices

    def control(self, name: str, amount: float = 1.0) -> dict[str, Tensor]:
        """Deltas ``expression [K], eyelids [2], gaze [2, 2]`` of a named control.

        Raises:
            InputError: unknown name.
        """
        if name not in self.controls:
            raise InputError(f"rig {self.name} has no control '{name}'; it has {', '.join(self.controls)}")
        return self.controls[name](amount)

    def region_faces(self, *names: str) -> Tensor:
        """Indices ``[n]`` of the triangles of the named regions.

        Raises:
            InputError: unknown region.
        """
        unknown = [name for name in names if name not in self.regions]
        if unknown:
            raise InputError(f"rig {self.name} has no region '{unknown[0]}'; it has {', '.join(self.regions)}")
        return torch.isin(self.face_regions, self.faces.new_tensor([self.regions[n] for n in names])).nonzero()[:, 0]

    def eyeball_positions(self, identity: Tensor) -> Tensor:
        """Centres ``[B, 2, 3]`` about which the eyeballs of identities ``[B, K_id]`` turn."""
        return self.eyeball_centres + torch.einsum("bk,kec->bec", identity, self.eyeball_identity)

    def lid_scale(self, identity: Tensor) -> Tensor:
        """Eye opening ``[B, 2]`` of identities ``[B, K_id]`` relative to the mean head's, clamped to 0.25 … 4."""
        if not self._lids_open:
            return identity.new_ones(len(identity), 2)
        gap = self._mean_gap
        person = gap + torch.einsum("bk,kv,ev->be", identity, self.identity[:, :, 1], self._gap)
        return (person / gap).clamp(0.25, 4)

    @functools.cached_property
    def _mean_gap(self) -> Tensor:
        """Eye opening ``[2]`` of the mean head."""
        return torch.einsum("ev,vc->e", self._gap, self.mean[:, 1:2])

    @functools.cached_property
    def _lids_open(self) -> bool:
        return bool(self._gap.any())

    @functools.cached_property
    def _eyeballs(self) -> list[Tensor]:
        """Vertex indices of both eyeballs; cached, since finding them makes the host wait for the device."""
        return [(self.eyeball_vertices == eye + 1).nonzero()[:, 0] for eye in (0, 1)]

    @functools.cached_property
    def _both_eyeballs(self) -> Tensor:
        """``[2, n]``, where the eyeballs have the same number of vertices."""
        return torch.stack(self._eyeballs)

    def _lids(self, identity: Tensor, eyelids: Tensor) -> Tensor:
        return _combine(eyelids * self.lid_scale(identity), self.eyelids)

    def _turn_eyes(self, vertices: Tensor, identity: Tensor, gaze: Tensor) -> Tensor:
        rotation = gaze_rotation(gaze).expand(len(vertices), 2, 3, 3)
        centres = self.eyeball_positions(identity).expand(len(vertices), 2, 3)
        balls = self._eyeballs
        if balls[0].shape != balls[1].shape:
            for eye in (0, 1):
                vertices = _turned(vertices, balls[eye][None], rotation[:, eye, None], centres[:, eye, None])
            return vertices
        return _turned(vertices, self._both_eyeballs, rotation, centres)

    def _checked(self, what: str, value: Tensor) -> Tensor:
        expected = self.n_identity if what == "identity" else self.n_expression
        if value.ndim != 2 or value.shape[1] != expected:
            raise ValueError(f"rig {self.name}: {what} has shape {tuple(value.shape)}, expected (B, {expected})")
        return value

    def _named_controls(self, arrays: dict[str, np.ndarray]) -> dict[str, Control]:
        directions: dict[str, object] = {
            str(n): e for n, e in zip(arrays["control_names"], arrays["control_expression"])
        }
        zero = torch.zeros
        controls = {}
        for name in CONTROLS:
            expression = torch.from_numpy(np.array(directions.get(name, np.zeros(self.n_expression)), np.float32))
            eyelids, gaze = zero(2), zero(2, 2)
            if name.startswith("blink"):
                eyelids[int(name.endswith("right"))] = 1
            if name.startswith("gaze"):
                gaze[:, int(name.endswith("y"))] = 0.35  # radians · guess
            controls[name] = Control(expression, eyelids, gaze)
        return controls


def _turned(vertices: Tensor, index: Tensor, rotation: Tensor, centres: Tensor) -> Tensor:
    """Vertices ``[B, V, 3]``, those of E groups ``index [E, n]`` turned by ``[B, E, 3, 3]`` about ``[B, E, 3]``."""
    local = vertices[:, index] - centres[:, :, None]
    turned = local @ rotation.transpose(2, 3) + centres[:, :, None]
    return vertices.index_copy(1, index.flatten(), turned.flatten(1, 2))


def _combine(coefficients: Tensor, basis: Tensor) -> Tensor:
    """``[B, K]`` x ``[K, V, 3]`` -> ``[B, V, 3]``."""
    return (coefficients @ basis.flatten(1)).unflatten(1, basis.shape[1:])


def _landmark_vertices(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Vertex indices ``[478]`` or ``[0]``; older files, which do not list them, have the landmarks first."""
    if "landmark_vertices" in arrays:
        return np.ascontiguousarray(arrays["landmark_vertices"], np.int64)
    return np.arange(int(arrays.get("n_landmarks", N_LANDMARKS)))


@dataclass(frozen=True)
class RigKind:
    """A kind of rig that :func:`heads.rig.load_rig` can load.

    Attributes:
        name: the word before the colon of a source, ``ict`` in ``ict:/path``.
        about: what the path must be, for help and error messages.
        accepts: whether a path holds such a rig; it checks names and reads as little as possible.
        load: the rig of a path, or of ``None`` if the kind has a default.
    """

    name: str
    about: str
    accepts: Callable[[Path], bool]
    load: Callable[[Path | None], Rig]


def digest(arrays: dict[str, np.ndarray]) -> str:
    """sha256 over the names, shapes and bytes of all arrays."""
    sha = hashlib.sha256()
    for key in sorted(arrays):
        value = np.ascontiguousarray(arrays[key])
        sha.update(f"{key}:{value.dtype.kind}:{value.shape};".encode())
        sha.update(value.tobytes())
    return sha.hexdigest()
