"""The roles that priors take in an adaptation, with the interface that a loaded prior of each role must have.

A :class:`pretrain.prior.Prior` declares its role. Adaptation asks for a role and never for a prior's name, so that a prior
from another package can be used instead. A prior without a role is trained, registered and served, but adaptation
ignores it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from cluster.registry.prior_folder import PriorInfo
from heads.person.appearance import AppearanceBasis

# Expressions from audio; Gaussians from pictures; how well lips and audio agree.
MOTION, APPEARANCE, SYNC = "motion", "appearance", "sync"
ROLES = (MOTION, APPEARANCE, SYNC)


class Ready(Protocol):
    """A loaded prior."""

    @property
    def info(self) -> PriorInfo:
        """Its ``prior.json``."""
        ...


class MotionStreamer(Protocol):
    """Audio in, motion out, in blocks; ``lookahead`` is the number of later rows that a frame may need."""

    @property
    def lookahead(self) -> int: ...

    def push(self, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """Take in feature rows ``[n, C]``; returns ``{"expression": [m, K], ...}`` of the frames that became final."""
        ...

    def finish(self) -> Mapping[str, np.ndarray]:
        """The frames that remain."""
        ...


@runtime_checkable
class MotionPrior(Ready, Protocol):
    """Role ``motion``: expressions from audio, in a speaking style; ``mean_style`` is ``[S]``."""

    @property
    def mean_style(self) -> np.ndarray: ...

    def find_style(
        self, features: np.ndarray, track: dict[str, np.ndarray], *, iterations: int = 0, seed: int = 0
    ) -> np.ndarray:
        """The style ``[S]`` of a person, from feature rows ``[T, C]`` and the track of the same frames."""
        ...

    def streamer(
        self,
        *,
        style: np.ndarray | None = None,
        seed: int = 0,
        steps: int = 1,
        temperature: float = 0.0,
        guidance: float = 1.0,
    ) -> MotionStreamer:
        """A new stream; a prior without a sampler may ignore ``seed``, ``steps``, ``temperature``, ``guidance``."""
        ...


@runtime_checkable
class FineTunable(MotionPrior, Protocol):
    """Additional interface of a ``motion`` prior that adaptation fine-tunes on the person's clip.

    ``audio_encoder`` stays frozen; ``window`` is the length of a training window, in frames.
    """

    @property
    def model(self) -> nn.Module: ...

    @property
    def window(self) -> int: ...

    @property
    def audio_encoder(self) -> nn.Module: ...

    def expect(self, features: np.ndarray, *, style: np.ndarray | None = None) -> dict[str, np.ndarray]: ...

    def loss(self, features: Tensor, expression: Tensor, eyelids: Tensor, style: Tensor) -> Tensor: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


@dataclass(frozen=True)
class LiveFilter:
    """A prior's regression for live use: ``(rows - mean) @ weight`` is the motion around the resting face.

    Attributes:
        feature: name of the audio feature, of the same weights as the prior's.
        mean: ``[C]`` mean row of the people that it was fitted on.
        weight: ``[C, K]`` float32.
        closure: ``[C]``, to how much more probable than usual it is that the lips are shut; ``None``: it cannot tell.
        revision: of the feature.
    """

    feature: str
    mean: np.ndarray
    weight: np.ndarray
    closure: np.ndarray | None = None
    revision: int = 1


@runtime_checkable
class LiveMotion(MotionPrior, Protocol):
    """Additional interface of a ``motion`` prior that can have a regression for live use."""

    @property
    def live(self) -> LiveFilter | None: ...


@runtime_checkable
class ClosureMotion(MotionPrior, Protocol):
    """Additional interface of a ``motion`` prior whose motion can come with ``closure [T]``, by how much shut lips are more
    probable than usual."""

    @property
    def tells_closure(self) -> bool: ...


class AppearancePrior(Ready, Protocol):
    """Role ``appearance``: the Gaussians of a head from pictures of it.

    ``resolution`` is the side of its UV map in texels. ``appearance_basis`` is how the map changes with pose and expression;
    its rank is 0 if the map does not change.
    """

    @property
    def resolution(self) -> int: ...

    @property
    def appearance_basis(self) -> AppearanceBasis: ...

    def predict(self, frames: np.ndarray, mattes: np.ndarray, tracks: dict[str, np.ndarray]) -> Tensor:
        """A UV map ``[N, 14]`` from frames ``[R, H, W, 3]``, mattes ``[R, H, W]`` and their track."""
        ...


class SyncPrior(Ready, Protocol):
    """Role ``sync``: how well lips and audio agree, in windows of ``window`` frames."""

    @property
    def window(self) -> int: ...

    def loss(self, frames: Tensor, landmarks: Tensor, features: Tensor, mean: Tensor | None = None) -> Tensor:
        """A distance to minimise, from frames ``[B, T, H, W, 3]``, landmarks ``[B, T, L, 3]``, feature rows ``[B, T, C]``."""
        ...

    def frame_features(self, frames: np.ndarray | Tensor, landmarks: np.ndarray | Tensor, block: int = 32) -> Tensor:
        """Features of the lips in each frame, the first argument of :meth:`confidence_of`."""
        ...

    def confidence_of(self, frame_features: Tensor, features: np.ndarray | Tensor) -> tuple[float, float, int]:
        """Confidence, distance, and the audio's offset in frames (positive: the audio is late)."""
        ...
