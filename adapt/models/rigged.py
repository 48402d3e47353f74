"""The rigged head of ``headstart`` and ``ggtalker``: ``heads.person.talking_head.TalkingHead`` behind the interface of every model.

``headstart`` can add residual motion of eyes and mouth (FG-3DGS's high-frequency branches) on top of the rig.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from adapt.avatar.document import AvatarContent, ModelShape
from adapt.models.base import HeadModel
from configs.devices import constant, is_accelerator
from heads.gaussians.cloud import Gaussians
from heads.gaussians.neck import EARLIER_FADE
from heads.gaussians.neighbours import Neighbours, neighbours
from heads.gaussians.uv import MAP_CHANNELS
from heads.keeping import Tie, map_penalty
from heads.motion.fields import CrossModalMotion, Motion
from heads.person.backdrop import Backdrop
from heads.person.inference import Frozen, HeadInference, stacked
from heads.person.inputs import HeadInputs
from heads.person.layers import Window
from heads.person.talking_head import HeadConfig, TalkingHead, moved
from heads.rig import Rig

EYE_REGIONS = ("eye_left", "eye_right", "eyeball_left", "eyeball_right")
SKIN = ("face",)  # hair and lips have relief of their own
MOUTH_REGIONS = ("lips", "mouth_inside", "teeth_upper", "teeth_lower")


# Weight of the squared code of a person on the prior's basis: that of pretraining (``loss.code``).
CODE = 2e-4
# Weight of the penalties on offsets and scales above FREE triangle sizes and on needles: small against a picture loss of
# about 0.02, so that they act where no pixel does (a guess, kept since the first study).
PENALTY, FREE = 0.01, 2.0
# Usual change of a good initial map in a fit: offsets (triangle sizes), quaternion, log-scales, colours, opacity (logit).
USUAL_DRIFT = (0.5,) * 3 + (0.3,) * 4 + (0.4,) * 3 + (0.15,) * 3 + (1.5,)


class RiggedHead(HeadModel):
    """One person's head on a rig.

    Args:
        rig: the rig (``heads.rig.load_rig``).
        identity: ``[K_id]`` the person's shape.
        parts: resolution of the UV map and ranks of its residuals.
        maps: initial map ``[N, 14]``, such as a prior's prediction; neutral by default.
        residual: whether eyes and mouth move beyond the rig.

    Attributes:
        start: the initial map, for the anchor; not part of the avatar.
    """

    start: Tensor | None
    rest_means: Tensor
    _frozen_head: Frozen[HeadInference] | None = None
    _skin: Neighbours | None = None

    def __init__(
        self,
        size: int,
        intrinsics: Tensor,
        *,
        rig: Rig,
        identity: Tensor,
        parts: HeadConfig,
        maps: Tensor | None = None,
        residual: bool = True,
    ) -> None:
        super().__init__(size, intrinsics)
        self.talking = TalkingHead(rig, identity, size, size, parts, maps)
        self.motion = nn.ModuleDict()
        # Not persistent: no part of the avatar.
        self.register_buffer("start", None, persistent=False)
        if residual:
            self._add_motion()

    def _add_motion(self) -> None:
        names, region = self.rig.regions, self.talking.uv.regions.cpu()
        for name, members in (("eyes", EYE_REGIONS), ("mouth", MOUTH_REGIONS)):
            inside = torch.isin(region, torch.tensor([names[member] for member in members]))
            self.register_buffer(f"{name}_texels", inside.nonzero()[:, 0], persistent=False)
            self.motion[name] = CrossModalMotion(
                {"expression": self.rig.n_expression, "eyes": 6}, bound=2.0, base=16, finest=96
            )
        with torch.no_grad():
            # Fields are evaluated at a Gaussian's position on the resting head.
            self.register_buffer("rest_means", self.gaussians(None).means[0])

    @property
    def backdrop(self) -> Backdrop:  # type: ignore[override]
        """Body and background, which belong to the talking head."""
        assert self.talking.backdrop is not None
        return self.talking.backdrop

    @property
    def rig(self) -> Rig:
        """The rig, on the model's device."""
        return self.talking.rig

    @property
    def resolution(self) -> int:
        """Side of the UV map, texels."""
        return self.talking.config.resolution

    def shape(self) -> ModelShape:
        """Sizes that an avatar's document records, from which :meth:`empty` rebuilds the shapes."""
        basis = self.talking.appearance_basis
        neck = self.talking.config.neck
        shape = ModelShape(resolution=self.resolution, neck=list(neck) if neck else None)
        if basis is not None:
            shape["appearance_basis"] = {"rank": basis.rank, "rows": basis.rows}
        return shape

    @classmethod
    def empty(
        cls, parts: HeadConfig, residual: bool, document: AvatarContent, tensors: Mapping[str, Tensor], rig: Rig
    ) -> RiggedHead:
        """A model of the right shapes for an avatar's weights."""
        shape = document["model"]
        model = cls(
            document["size"],
            tensors["intrinsics"],
            rig=rig,
            identity=tensors["talking.identity"].float(),
            parts=replace(parts, resolution=shape["resolution"], neck=_neck_of(shape)),
            maps=torch.zeros(len(tensors["talking.colors"]), MAP_CHANNELS),
            residual=residual,
        )
        if "appearance_basis" in shape:
            model.talking.add_appearance_basis(**shape["appearance_basis"])
        return model

    def delta(self, inputs: HeadInputs) -> Motion | None:
        """Residual motion ``[B, N, 3]`` of all Gaussians, zero outside eyes and mouth."""
        if not len(self.motion):
            return None
        eyes = torch.cat([inputs.eyelids, inputs.gaze.flatten(1)], 1)
        means = self.rest_means.new_zeros(len(inputs), *self.rest_means.shape)
        for name, field in self.motion.items():
            texels = getattr(self, f"{name}_texels")
            means = means.index_add(
                1, texels, field(self.rest_means[texels], expression=inputs.expression, eyes=eyes).means
            )
        return Motion(means)

    def head(self, inputs: HeadInputs, window: Window | None = None, shrink: int = 1) -> tuple[Tensor, Tensor]:
        """Premultiplied colour and alpha; see :class:`HeadModel`."""
        fast = self._inference(inputs) if window is None and shrink == 1 else None
        if fast is not None:
            intrinsics = self.intrinsics.numpy()
            frames = [fast(inputs, i, intrinsics) for i in range(len(inputs))]
            return stacked([color for color, _ in frames]), stacked([alpha for _, alpha in frames])
        projected, delta = self._projected(inputs), self.delta(inputs)
        size = (self.size // shrink, self.size // shrink)
        refined = self.refiner is not None and inputs.index is not None
        if is_accelerator(inputs.vectors.device) and window is None and not refined:
            return self.talking.together(projected, size, delta)  # there launches count, not pixels
        parts = []
        for i in range(len(inputs)):
            motion = None if delta is None else Motion(delta.means[i : i + 1])
            refinement = self.refinement(inputs, i)
            parts.append(self.talking.render(projected, i, size, None, window, refinement, motion))
        return _batch([part.head for part in parts]), _batch([part.alpha for part in parts])

    def _inference(self, inputs: HeadInputs) -> HeadInference | None:
        """The head as fused kernels, if nothing of it is being trained and the rig alone moves it."""
        refined = self.refiner is not None and inputs.index is not None
        if refined or len(self.motion) or not HeadInference.fits(self.size, self.size):
            return None
        if self._frozen_head is None:
            self._frozen_head = Frozen(self.talking, lambda: HeadInference(self.talking))
        return self._frozen_head.made()

    def refinement(self, inputs: HeadInputs, i: int) -> Tensor | None:
        """The correction of frame ``i`` of the batch; ``None`` unless it is a training frame with a refiner."""
        return None if self.refiner is None or inputs.index is None else self.refiner(inputs.index[i])

    def _projected(self, inputs: HeadInputs) -> HeadInputs:
        return inputs.with_(intrinsics=self.intrinsics)

    def gaussians(self, inputs: HeadInputs | None) -> Gaussians:
        """Gaussians ``[1, N, ...]`` in head space for the first frame of ``inputs``; at rest for ``None``."""
        talking = self.talking
        if inputs is None:
            zero = torch.zeros(1, self.rig.n_expression, device=talking.identity.device)
            return talking.uv.bind(self.rig.vertices(talking.identity[None], zero), talking.maps()[None])
        bound, _ = talking.gaussians(self._projected(inputs), 0)
        delta = self.delta(inputs)
        return bound if delta is None else moved(bound, Motion(delta.means[:1]))

    def penalty(self, anchor: float = 0.0, smoothness: float = 0.0) -> Tensor:
        """A scalar that keeps offsets near their triangle, scales of its size, the code small and the map near its start.

        Args:
            anchor: weight of the squared distance from the initial map, each column in units of ``USUAL_DRIFT``. In texels
                that the clip shows, the gradients of the pixels are stronger; in the others this gradient is the only
                one, so that they keep what the prior predicted.
            smoothness: weight of the mean squared difference of how far neighbours on the skin have moved from their start.
        """
        head = self.talking
        parts = (head.offsets, head.quats, head.log_scales, head.colors, head.opacities)
        start = head.maps().detach() if self.start is None else self.start
        shares = constant(tuple(anchor / (len(start) * drift**2) for drift in USUAL_DRIFT), start)
        tie = Tie(self._neighbours(), smoothness) if smoothness else None
        value = map_penalty(parts, start, shares, PENALTY, FREE, tie)
        return value if head.appearance_basis is None else value + CODE * head.appearance_basis.code.square().sum()

    def _neighbours(self) -> Neighbours:
        talking = self.talking
        if self._skin is None or self._skin.links.device != talking.offsets.device:
            self._skin = neighbours(talking.uv, self.rig, SKIN)
        return self._skin


def _neck_of(shape: ModelShape) -> tuple[float, float] | None:
    """Where the neck of an avatar fades out, if texels there have no Gaussian."""
    if "neck" not in shape:
        return EARLIER_FADE if shape.get("short_neck") else None
    heights = shape["neck"]
    return (heights[0], heights[1]) if heights else None


def _batch(pictures: list[Tensor]) -> Tensor:
    """Pictures ``[H, W, C]`` as a batch; one alone is not copied."""
    return pictures[0][None] if len(pictures) == 1 else torch.stack(pictures)
