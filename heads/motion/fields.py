"""Motion fields: how the Gaussians of a region move with sound and with the upper face.

Three kinds, each the identity at initialisation, since its last layer is zero:

* :class:`FaceMotion`: region-attention MLP → Δmean, Δscale, Δquaternion (TalkingGaussian 2024, eq. 6-8).
* :class:`MouthMotion`: translation only, for the inside of the mouth (TalkingGaussian, section 3.3).
* :class:`CrossModalMotion`: gated cross-modal attention → Δmean, for eyes and mouth (FG-3DGS 2026).

Positions are in head space, rig units. Every field takes one frame's inputs ``[C]``, or a batch ``[B, C]`` and then returns
``[B, N, ...]``. Position features do not depend on the frame: a caller whose canonical positions are frozen can keep the
result of :meth:`MotionField.features`.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from heads.motion.encoding import TriPlaneHash

UPPER_FACE_UNITS = ("AU1", "AU2", "AU4", "AU5", "AU6", "AU7", "AU45")
"""The seven upper-face action units of TalkingGaussian; AU45 is the blink."""
LEAK = 0.02
"""Slope of the layers' activations below 0, as in the audio networks. With ReLU, as in the papers' code, layers without a bias
died at the rates that budgets of minutes need: after 98 minutes at 512 px no unit of a face's last hidden layer was above 0."""

FARTHEST = 0.6
"""Rig units (eye distances) that no Gaussian moves beyond · guess: a jaw drops by half of one. Without a bound, half of
the mouth's Gaussians moved by more than 1.4 after 17,460 steps at 512 px, to where their losses do not see them: below the chin."""


@dataclass
class Motion:
    """Residuals to add to Gaussians: ``means [..., N, 3]``, log-``scales [..., N, 3]``, ``quats [..., N, 4]``.

    ``scales`` and ``quats`` are ``None`` for fields that only translate.
    """

    means: Tensor
    scales: Tensor | None = None
    quats: Tensor | None = None


def mlp(sizes: list[int], bias: bool = True, zero_last: bool = False) -> nn.Sequential:
    """Linear layers of the given sizes with leaky ReLU between them; with ``zero_last`` the output is initially zero."""
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        layers.append(nn.Linear(n_in, n_out, bias=bias))
        if i < len(sizes) - 2:
            layers.append(nn.LeakyReLU(LEAK))
    if zero_last:
        for parameter in layers[-1].parameters():
            nn.init.zeros_(parameter)
    return nn.Sequential(*layers)


def bounded(means: Tensor) -> Tensor:
    """Translations ``[..., 3]`` of any length as such of less than :data:`FARTHEST`; short ones stay about as they are."""
    return means * torch.rsqrt(1 + means.square().sum(-1, keepdim=True) / FARTHEST**2)


def _batched(value: Tensor, size: int, name: str) -> Tensor:
    if value.dim() not in (1, 2) or value.shape[-1] != size:
        raise ValueError(f"{name}: expected shape [{size}] or [B, {size}], got {tuple(value.shape)}")
    return value if value.dim() == 2 else value[None]


class MotionField(nn.Module):
    """Base of the three fields: the tri-plane encoding and the two optimiser groups of the papers."""

    encoding: TriPlaneHash

    def features(self, positions: Tensor) -> Tensor:
        """Position features ``[N, F]`` of canonical positions ``[N, 3]``."""
        if positions.dim() != 2 or positions.shape[-1] != 3:
            raise ValueError(f"positions: expected shape [N, 3], got {tuple(positions.shape)}")
        return self.encoding(positions)

    def _given(self, positions: Tensor | None, features: Tensor | None) -> Tensor:
        """The given features, or those of the positions.

        Raises:
            ValueError: neither is given.
        """
        if features is not None:
            return features
        if positions is None:
            raise ValueError("motion field: expected positions [N, 3] or features [N, F], got neither")
        return self.features(positions)

    def parameter_groups(self, rate: float = 5e-4, grid_rate: float = 5e-3) -> list[dict[str, Any]]:
        """Parameter groups for AdamW: hash grids at ``grid_rate`` without weight decay, everything else at ``rate``."""
        grids = set(map(id, self.encoding.parameters()))
        rest = [p for p in self.parameters() if id(p) not in grids]
        return [
            {"params": list(self.encoding.parameters()), "lr": grid_rate, "weight_decay": 0.0},
            {"params": rest, "lr": rate},
        ]


class FaceMotion(MotionField):
    """Region attention: each position weights the audio and the upper-face units by its own learned factors.

    Args:
        audio: size of the audio vector.
        units: number of upper-face action units; the last one (blink) bypasses the mixing, as in the paper.
        bound: half side of the encoded cube, rig units.
        base, finest: grid resolutions (16 → 256 for the face).
        hidden: width of the output MLP.
        step: rig units per unit of network output; log-scales and quaternions take the output as it is.
    """

    def __init__(
        self,
        audio: int = 32,
        units: int = len(UPPER_FACE_UNITS),
        bound: float = 2.5,
        base: int = 16,
        finest: int = 256,
        hidden: int = 64,
        step: float = 0.17,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.audio, self.units, self.step = audio, units, step
        self.encoding = TriPlaneHash(bound, base=base, finest=finest, backend=backend)
        size = self.encoding.out_features
        self.audio_attention = mlp([size, 32, audio], bias=False)
        self.unit_attention = mlp([size, 16, units], bias=False)
        self.unit_mix = mlp([units - 1, 16, units - 1], bias=False)
        self.decide = mlp([size + audio + units, hidden, hidden, 10], bias=False, zero_last=True)

    def attention(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Region attention of features ``[N, F]``: to audio ``[N, audio]`` and to units ``[N, units] >= 0``.

        It is learned as a change from 1. The paper's code learns it from 0, where the features also begin: the motion then
        starts only after thousands of steps, more than a CPU takes in minutes.
        """
        return 1 + self.audio_attention(features), torch.relu(1 + self.unit_attention(features))

    def forward(
        self, positions: Tensor | None, audio: Tensor, units: Tensor, *, features: Tensor | None = None
    ) -> Motion:
        """Residuals at ``positions [N, 3]`` for ``audio [(B,) audio]`` and upper-face ``units [(B,) units]``."""
        single = audio.dim() == 1
        audio, units = _batched(audio, self.audio, "audio"), _batched(units, self.units, "units")
        features = self._given(positions, features)
        to_audio, to_units = self.attention(features)
        mixed = torch.cat([self.unit_mix(units[:, :-1]), units[:, -1:]], dim=-1)
        out = self._decide(features, audio[:, None] * to_audio, mixed[:, None] * to_units)
        out = out[0] if single else out
        return Motion(bounded(out[..., :3] * self.step), out[..., 3:6], out[..., 6:10])

    def _decide(self, features: Tensor, audio: Tensor, units: Tensor) -> Tensor:
        features = features.expand(len(audio), *features.shape)
        return self.decide(torch.cat([features, audio, units], dim=-1))


class MouthMotion(MotionField):
    """Translation-only field of the inside of the mouth, mostly vertical (TalkingGaussian).

    Args:
        audio: entries of the audio vector.
        base, finest: grid resolutions (64 → 384 for the mouth).
        sideways: factor on x and z relative to y (one fifth in the paper's code).
    """

    def __init__(
        self,
        audio: int = 32,
        bound: float = 2.5,
        base: int = 64,
        finest: int = 384,
        hidden: int = 32,
        step: float = 0.17,
        sideways: float = 0.2,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.audio = audio
        self.encoding = TriPlaneHash(bound, base=base, finest=finest, backend=backend)
        self.decide = mlp([self.encoding.out_features + audio, hidden, hidden, 3], bias=False, zero_last=True)
        self.register_buffer("axes", torch.tensor([sideways, 1.0, sideways]) * step, persistent=False)

    def forward(self, positions: Tensor | None, audio: Tensor, *, features: Tensor | None = None) -> Motion:
        """Translations ``[(B,) N, 3]`` at ``positions [N, 3]`` for ``audio [(B,) audio]``."""
        single = audio.dim() == 1
        audio = _batched(audio, self.audio, "audio")
        features = self._given(positions, features)
        shape = (len(audio), len(features))
        joined = torch.cat([features.expand(*shape, -1), audio[:, None].expand(*shape, -1)], dim=-1)
        means = bounded(self.decide(joined) * self.axes)
        return Motion(means[0] if single else means)


class CrossModalMotion(MotionField):
    """Gated cross-modal attention (FG-3DGS) from positions to modalities.

    Each modality (audio, expression, …) gives ``tokens`` key and value vectors; a position's query attends to all of
    them; the attended vector is gated per position by a sigmoid of itself and the query, and only the mean is moved. The gate
    is our reading of the paper.

    Args:
        modalities: name → size of that modality's vector, for example ``{"audio": 32, "units": 7}``.
        base, finest: grid resolutions of the region (eyes as face, mouth 64 → 384).
        width: size of queries, keys and values; ``heads`` must divide it.
        tokens: key/value vectors per modality.
    """

    def __init__(
        self,
        modalities: dict[str, int],
        bound: float = 2.5,
        base: int = 64,
        finest: int = 384,
        width: int = 32,
        heads: int = 4,
        tokens: int = 4,
        step: float = 0.1,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"cross-modal motion: width {width} is not a multiple of heads {heads}")
        self.modalities, self.heads, self.tokens, self.step = dict(modalities), heads, tokens, step
        self.encoding = TriPlaneHash(bound, base=base, finest=finest, backend=backend)
        size = self.encoding.out_features
        self.query = mlp([size, width, width])
        self.keys_values = nn.ModuleDict({name: nn.Linear(n, tokens * width * 2) for name, n in modalities.items()})
        self.gate = nn.Linear(2 * width, width)
        self.decide = mlp([size + width, width, 3], zero_last=True)

    def forward(self, positions: Tensor | None, *, features: Tensor | None = None, **modalities: Tensor) -> Motion:
        """Translations ``[(B,) N, 3]``; one keyword per modality, each ``[size]`` or ``[B, size]``."""
        if modalities.keys() != self.modalities.keys():
            raise ValueError(f"modalities: expected {sorted(self.modalities)}, got {sorted(modalities)}")
        single = next(iter(modalities.values())).dim() == 1
        vectors = {name: _batched(v, self.modalities[name], name) for name, v in modalities.items()}
        features = self._given(positions, features)
        query = self.query(features)
        attended = self._attend(query, *self._keys_values(vectors))  # [B, N, W]
        query = query.expand_as(attended)
        gated = torch.sigmoid(self.gate(torch.cat([attended, query], dim=-1))) * attended
        joined = torch.cat([features.expand(len(gated), *features.shape), gated], dim=-1)
        means = bounded(self.decide(joined) * self.step)
        return Motion(means[0] if single else means)

    def _keys_values(self, vectors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        rows = [
            self.keys_values[name](vector).view(len(vector), self.tokens, 2, -1) for name, vector in vectors.items()
        ]
        keys, values = torch.cat(rows, dim=1).unbind(dim=2)  # [B, M * tokens, W] each
        return keys, values

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, n_tokens, width = key.shape
        split = width // self.heads
        q = query.view(len(query), self.heads, split)
        k, v = (x.view(batch, n_tokens, self.heads, split) for x in (key, value))
        scores = torch.einsum("nhc,bthc->bhnt", q, k) / math.sqrt(split)
        return torch.einsum("bhnt,bthc->bnhc", scores.softmax(dim=-1), v).reshape(batch, len(query), width)
