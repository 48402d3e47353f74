"""Free Gaussians: a canonical cloud that is densified during training (TalkingGaussian, FG-3DGS).

Densification is ``gsplat.strategy``'s, on every backend: it needs only the gradient of the projected means, which all
backends provide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from configs import InputError
from heads.adam import Adam
from heads.gaussians.cloud import Gaussians

PARTS = ("means", "quats", "scales", "opacities", "colors")
# Adam's learning rates; that of means is multiplied by the scene's size · paper (3DGS, its code)
RATES = {"means": 1.6e-4, "quats": 1e-3, "scales": 5e-3, "opacities": 5e-2, "colors": 2.5e-3}


class FreeGaussians(nn.Module):
    """N Gaussians without a rig; N changes during training. Stored as means, quats, log-scales, opacity logits and colours.

    Args:
        points: starting centres ``[N, 3]``, rig units.
        colors: starting colours ``[N, D]``; grey if None.
        opacity: initial opacity of every Gaussian, in (0, 1).
        scale: initial standard deviation, rig units; None: the distance to the nearest neighbours
            (:func:`neighbour_distance`).

    Raises:
        InputError: ``points`` or ``colors`` of another shape.
    """

    def __init__(
        self, points: Tensor, colors: Tensor | None = None, opacity: float = 0.1, scale: float | None = None
    ) -> None:
        super().__init__()
        if points.dim() != 2 or points.shape[1] != 3 or len(points) == 0:
            raise InputError(f"free Gaussians: points: expected [N, 3] with N at least 1, got {list(points.shape)}")
        colors = torch.full_like(points, 0.5) if colors is None else colors
        if colors.dim() != 2 or len(colors) != len(points):
            raise InputError(f"free Gaussians: colors: expected [{len(points)}, D], got {list(colors.shape)}")
        spread = neighbour_distance(points) if scale is None else torch.full_like(points[:, 0], scale)
        quats = torch.zeros(len(points), 4, dtype=points.dtype, device=points.device)
        quats[:, 0] = 1
        start = {
            "means": points,
            "quats": quats,
            "scales": spread.clamp_min(1e-6).log()[:, None].expand(-1, 3),
            "opacities": torch.full_like(points[:, 0], opacity).logit(),
            "colors": colors,
        }
        self.params = nn.ParameterDict({name: nn.Parameter(start[name].detach().clone()) for name in PARTS})

    @property
    def n(self) -> int:
        """Number of Gaussians now."""
        return len(self.params["means"])

    def gaussians(self) -> Gaussians:
        """The cloud as a batch of one, activations applied."""
        p = self.params
        return Gaussians(
            p["means"][None],
            p["quats"][None],
            p["scales"].exp()[None],
            p["opacities"].sigmoid()[None],
            p["colors"][None],
        )

    def _load_from_state_dict(self, state: Mapping[str, Tensor], prefix: str, *rest: object) -> None:
        """Resize to the stored number of Gaussians before loading."""
        for name in PARTS:
            stored = state.get(f"{prefix}params.{name}")
            old = self.params[name]
            if stored is not None and len(stored) != len(old):
                self.params[name] = nn.Parameter(old.new_zeros(len(stored), *old.shape[1:]))
        super()._load_from_state_dict(state, prefix, *rest)


def neighbour_distance(points: Tensor, neighbours: int = 3) -> Tensor:
    """Root mean square distance ``[N]`` of points ``[N, 3]`` to their ``neighbours`` nearest others; 0 for a single point."""
    from scipy.spatial import cKDTree

    neighbours = min(neighbours, len(points) - 1)
    if neighbours == 0:
        return torch.zeros_like(points[:, 0])
    positions = points.detach().double().cpu().numpy()
    distances, _ = cKDTree(positions).query(positions, neighbours + 1)
    return torch.from_numpy((distances[:, 1:] ** 2).mean(1) ** 0.5).to(points)


class Densifier:
    """Optimisers and ``gsplat.strategy.DefaultStrategy`` of one cloud.

    Usage, each step::

        image, alpha, meta = render_head(cloud.gaussians(), ...)
        densifier.before_backward(meta)
        loss.backward()
        densifier.after_backward(meta)     # steps the optimisers, then clones, splits and prunes

    Args:
        cloud: the Gaussians.
        scene_scale: size of the scene in rig units. It scales the step size of means and the size above which Gaussians
            are split instead of cloned.
        rates: learning rates by part, which replace those of ``RATES``.
        strategy: fields of ``DefaultStrategy`` (``refine_every``, ``grow_grad2d``, ``absgrad``, ...).

    Raises:
        InputError: gsplat is not installed, or ``rates`` names an unknown part.
    """

    def __init__(
        self,
        cloud: FreeGaussians,
        scene_scale: float = 1.0,
        rates: Mapping[str, float] | None = None,
        **strategy: Any,
    ) -> None:
        self.cloud, self.steps = cloud, 0
        rates = RATES | dict(rates or {})
        unknown = set(rates) - set(PARTS)
        if unknown:
            raise InputError(f"free Gaussians: rates: unknown part {sorted(unknown)[0]!r}, expected {', '.join(PARTS)}")
        rates["means"] *= scene_scale
        self.optimizers = {
            name: Adam([{"params": [cloud.params[name]], "lr": rates[name]}], eps=1e-15) for name in PARTS
        }
        self.strategy = _default_strategy(**strategy)
        self.strategy.check_sanity(cloud.params, self.optimizers)
        self.state = self.strategy.initialize_state(scene_scale=scene_scale)

    def before_backward(self, meta: Mapping[str, Any]) -> None:
        """Make autograd retain the gradient of the projected means."""
        if meta["means2d"].requires_grad:
            meta["means2d"].retain_grad()

    def after_backward(self, meta: Mapping[str, Any], first: int = 0) -> None:
        """Step the optimisers, then refine the cloud.

        Args:
            meta: the rasteriser's meta dictionary of the step's rendering, after the backward pass.
            first: index of the cloud's first Gaussian in the rendered scene, where the cloud was joined with others.

        Raises:
            InputError: the strategy uses ``absgrad`` and the picture was rendered without.
        """
        info = self._info(meta, first)
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        if info is not None:
            self.strategy.step_post_backward(self.cloud.params, self.optimizers, self.state, self.steps, info)
        self.steps += 1

    def _info(self, meta: Mapping[str, Any], first: int) -> dict[str, Any] | None:
        """The cloud's part of a meta dictionary, batch and cameras merged; None without a gradient of the means."""
        means2d = meta["means2d"]
        if means2d.grad is None:
            return None
        part = slice(first, first + self.cloud.n)
        flat = means2d.detach()[..., part, :].flatten(0, -3)
        flat.grad = means2d.grad[..., part, :].flatten(0, -3)
        absolute = getattr(means2d, "absgrad", None)
        if self.strategy.absgrad:
            if absolute is None:
                raise InputError("free Gaussians: the strategy wants absgrad: render with absgrad=True")
            flat.absgrad = absolute[..., part, :].flatten(0, -3)
        radii = meta["radii"][..., part, :].flatten(0, -3)
        sizes = {"width": meta["width"], "height": meta["height"], "n_cameras": len(flat)}
        return {"means2d": flat, "radii": radii, "gaussian_ids": None, **sizes}


def _default_strategy(**options: Any) -> Any:
    try:
        from gsplat.strategy import DefaultStrategy
    except ImportError as error:
        raise InputError("densification needs gsplat (its strategies run on any device): pip install gsplat") from error
    return DefaultStrategy(**options)
