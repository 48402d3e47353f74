"""How a rigged head is initialised: by the visual prior's map, or by one frame's texture copied onto the tracked mesh."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adapt.fit.config import RecipeConfig, RiggedConfig
from adapt.fit.context import Context, auto_resolution
from adapt.models.rigged import RiggedHead
from heads.gaussians.neck import FADE, neck_fade
from heads.gaussians.uv import UVGaussians
from heads.geometry.rotation import rotation_to_euler
from heads.measures.face import lip_gap
from heads.person.inputs import TRACKED, frame_vectors
from heads.person.talking_head import HeadConfig
from pretrain.roles import AppearancePrior

COLOR = slice(10, 13)  # columns of a map

OPAQUE, TRANSPARENT = 2.2, -5.0  # logits of opacity, at either end
# Lip gap in eye distances from which on a frame shows the inside of the mouth.
OPEN_GAP = 0.2
# Rig units along z of head space: what lies deeper than the ears (about one eye distance) is hidden in a frontal view.
VISIBLE_DEPTH = 1.2
LEAST_SEEN = 8  # texels of a region from which on their middle colour stands for the others · guess


def build_rigged(
    context: Context[RiggedConfig],
    parts: HeadConfig,
    *,
    residual: bool,
    appearance_basis: bool = False,
    resolution: int | None = None,
) -> RiggedHead:
    """A rigged head for the clip, its map from the prior if one is given and switched on.

    Args:
        context: clip, priors and configuration.
        parts: of the head, without its resolution.
        residual: whether eyes and mouth move beyond the rig.
        appearance_basis: whether the map depends on pose and expression through the prior's basis.
        resolution: side of the UV map, texels; by default :func:`full_resolution`.
    """
    config = context.config
    prior = context.priors.appearance if config.visual_prior else None
    resolution = resolution or full_resolution(context)
    model = RiggedHead(
        context.clip.size,
        context.intrinsics,
        rig=context.rig.to("cpu"),  # initialised on the CPU, then moved as a whole
        identity=context.identity,
        parts=replace(parts, resolution=resolution, neck=FADE),
        residual=residual,
    )
    model.talking.calibrate(context.tracked())
    context.start_backdrop(model.backdrop)
    frame = context.frontal_frame()
    with torch.no_grad():
        maps, seen = texture_maps(model, context, frame)
        if prior is not None:
            known = seen & ~hidden_mouth(model, context)
            frames = reference_frames(context, frame)
            nearest = nearest_texels(UVGaussians(model.rig, prior.resolution), model)
            maps = from_prior(prior_maps(prior, context, frames), nearest, prior.resolution, model, maps, known)
            if appearance_basis and prior.appearance_basis.rank:
                shared = prior.appearance_basis
                vectors = frame_vectors({name: context.clip.track[name][frames] for name in TRACKED})
                model.talking.add_appearance_basis(shared.rank, shared.rows).take(shared, vectors, nearest)
        set_maps(model, with_faded_neck(model, maps))
    return model.to(context.device)


def full_resolution(context: Context[RiggedConfig]) -> int:
    """Side of the UV map, texels: the configuration's, or what fits the clip's frames."""
    return context.config.resolution or auto_resolution(context.clip.size)


def with_faded_neck(model: RiggedHead, maps: Tensor) -> Tensor:
    """The map ``[N, 14]`` with a neck that fades out behind the jaw, where the body layer shows it, moved with the torso.

    Otherwise the neck's Gaussians take the colours of collars and smear them when the head turns.
    """
    fade = neck_fade(model.talking.uv, model.rig)
    faded = maps.clone()
    most = OPAQUE + (TRANSPARENT - OPAQUE) * fade.to(maps)
    faded[:, 13] = torch.where(fade > 0, torch.minimum(maps[:, 13], most), maps[:, 13])
    return faded


def calibrate(model: RiggedHead, context: Context[RiggedConfig]) -> None:
    """Update, once more frames are tracked, the input statistics of the networks, and body and background."""
    model.talking.calibrate(context.tracked())
    context.update_backdrop(model)


def set_maps(model: RiggedHead, maps: Tensor) -> None:
    """Replace the UV map's texels by ``[N, 14]``."""
    head = model.talking
    parameters = (head.offsets, head.quats, head.log_scales, head.colors, head.opacities)
    for part, parameter in zip(maps.split([3, 4, 3, 3, 1], 1), parameters, strict=True):
        parameter.copy_(part)
    model.start = maps.clone()


def reference_frames(context: Context[RecipeConfig], frame: int) -> list[int]:
    """The frontal ``frame`` and those that show what it hides: widest open mouth, head turned farthest to either side."""
    track = context.clip.track
    yaw = rotation_to_euler(track["rotation"])[:, 0]
    others = (lip_gap(track["landmarks"]).argmax(), yaw.argmin(), yaw.argmax())
    return list(dict.fromkeys([frame, *map(int, others)]))


def prior_maps(prior: AppearancePrior, context: Context[RecipeConfig], frames: list[int]) -> Tensor:
    """The map ``[N, 14]`` that the prior of appearance predicts from up to four frames, on the CPU."""
    clip = context.clip
    track = {name: clip.track[name][frames] for name in TRACKED}
    track["intrinsics"], track["identity"] = clip.intrinsics, np.array(clip.identity)
    return prior.predict(clip.frames(frames), clip.mattes(frames), track).float().cpu()


def from_prior(
    predicted: Tensor, nearest: Tensor, resolution: int, model: RiggedHead, texture: Tensor, known: Tensor
) -> Tensor:
    """The prior's map ``[N, 14]`` on the model's texels.

    At another resolution each texel takes its ``nearest [N]`` source texel, its scales shrunk by the ratio; the frame's
    own texture, which is finer, then keeps its colours where it is ``known [N]``.
    """
    maps = predicted[nearest]
    if resolution == model.resolution:
        return maps
    maps[:, 7:10] -= float(np.log(model.resolution / resolution))
    return torch.where(known[:, None] & _colour_columns(), texture, maps)


def nearest_texels(source: UVGaussians, model: RiggedHead) -> Tensor:
    """For each of the model's texels, the nearest one ``[N]`` of the same region in another map."""
    target = model.talking.uv
    if source.resolution == target.resolution and source.n == target.n:
        return torch.arange(target.n)
    from scipy.spatial import cKDTree

    places, wanted = _texel_centres(source), _texel_centres(target)
    nearest = torch.empty(target.n, dtype=torch.long)
    # Texels of another part (teeth beside lips in the atlas) must not lend their Gaussians.
    for region in target.regions.unique():
        here = (target.regions == region).nonzero()[:, 0].cpu()
        there = (source.regions == region).nonzero()[:, 0].cpu()
        if not len(there):  # a part too small for the coarser map
            there = torch.arange(source.n)
        nearest[here] = there[torch.from_numpy(cKDTree(places[there]).query(wanted[here])[1])]
    return nearest


def _texel_centres(uv: UVGaussians) -> np.ndarray:
    """Middles ``[N, 2]`` of the texels, the map's side being 1."""
    return (uv.texels.cpu().numpy() + 0.5) / uv.resolution


def mouth_texels(model: RiggedHead) -> Tensor:
    """Which texels ``[N]`` bool belong to the inside of the mouth."""
    inside = [model.rig.regions[name] for name in ("mouth_inside", "teeth_upper", "teeth_lower")]
    return torch.isin(model.talking.uv.regions.cpu(), torch.tensor(inside))


def hidden_mouth(model: RiggedHead, context: Context[RecipeConfig]) -> Tensor:
    """Texels ``[N]`` bool of the inside of a mouth that no frame so far opens: the pixels there belong to the lips."""
    shown = float(lip_gap(context.clip.track["landmarks"]).max()) > OPEN_GAP
    return mouth_texels(model) & (not shown)


def _colour_columns() -> Tensor:
    columns = torch.zeros(1, 14, dtype=torch.bool)
    columns[:, COLOR] = True
    return columns


def texture_maps(model: RiggedHead, context: Context[RecipeConfig], frame: int) -> tuple[Tensor, Tensor]:
    """Neutral Gaussians ``[N, 14]`` with the colours of the pixels that they project to in one frame, and which were seen ``[N]``.

    Colours of the inside of the mouth come from the frame that opens it widest. A texel that was not seen has the middle
    colour of its region's seen ones: hair of hair, neck of neck.
    """
    maps = model.talking.maps().detach().clone()
    known = torch.ones(len(maps), dtype=torch.bool)
    widest = int(lip_gap(context.clip.track["landmarks"]).argmax())
    for texels, seen_in in ((known.clone(), frame), (mouth_texels(model), widest)):
        one = context.inputs().to("cpu").pick([seen_in])
        colors, seen = frame_colors(context, model.gaussians(one).means[0], seen_in)
        maps[texels, COLOR], known[texels] = colors[texels], seen[texels]
    maps[:, COLOR] = filled_by_region(maps[:, COLOR], known, model.talking.uv.regions.cpu())
    return maps, known


def filled_by_region(colors: Tensor, known: Tensor, regions: Tensor) -> Tensor:
    """Colours ``[N, 3]`` that are ``known [N]``; the others get the median of their region's known ones, if there are enough."""
    filled = colors.clone()
    for region in regions[~known].unique():
        here = regions == region
        if int((here & known).sum()) >= LEAST_SEEN:
            filled[here & ~known] = colors[here & known].median(0).values
    return filled


def frame_colors(context: Context[RecipeConfig], points: Tensor, frame: int) -> tuple[Tensor, Tensor]:
    """Colours ``[N, 3]`` that points of head space ``[N, 3]`` have in one frame of the clip, and which were seen ``[N]``.

    Points deeper than ``VISIBLE_DEPTH``, or projected off the head, take the mean colour of what is head but not face (hair).
    """
    batch = context.clip.batch([frame])
    one = context.inputs().to("cpu").pick([frame])
    camera = (points @ one.rotation[0].T + one.translation[0]) @ context.intrinsics.T
    grid = (camera[:, :2] / camera[:, 2:] / context.clip.size * 2 - 1)[None, None]
    layers = torch.cat([batch.image, batch.head], -1).permute(0, 3, 1, 2)
    found = functional.grid_sample(layers, grid, mode="bilinear", align_corners=False)[0, :, 0].T
    head = batch.head[0, ..., 0] > 0.5
    hair = head & (batch.masks["face"][0, ..., 0] < 0.5)
    region = hair if bool(hair.any()) else head if bool(head.any()) else torch.ones_like(head)
    seen = (found[:, 3:] > 0.5) & (points[:, 2:] < VISIBLE_DEPTH)
    return torch.where(seen, found[:, :3], batch.image[0][region].mean(0)), seen[:, 0]
