"""Affine registration of a region to a reference picture, and the regression of its motion on other inputs.

Gauss-Newton on brightness differences with robust weights, from coarse to fine and batched over frames. The slopes are
those of the reference, so they are computed once. Sources: Lucas & Kanade (1981) for the step, Baker & Matthews (2004)
for taking it in the reference and removing gain and offset, Geman & McClure (1987) for the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from configs.devices import constant
from heads.ridge import ridge_weights

# Brightness difference, of 1, at which a pixel's weight falls to a quarter, on the coarsest level and those after it (further
# ones as on the last): 0.1 on all lost 1.6 dB of the body on a clip that moves by a fifth of the picture, and 0.2 dB on another.
ROBUST = (0.3, 0.15, 0.3)
STEPS = 4  # Gauss-Newton steps on each level
COARSEST = 32  # px, largest longer side of the coarsest level
LONGEST = 0.05  # largest step per coefficient, in half pictures · guess
# Prior spread of an affine map in half pictures: shift, scale and rotation, stretch and shear. Without it, a region with
# little texture is stretched instead of moved · guess.
SPREADS = (0.5, 0.5, 0.05, 0.05, 0.02, 0.02)
NOISE = 0.05  # brightness difference of a pixel that is aligned · guess
# Pixels whose differences count as one: of a level's pixels, and at least. Twice as many on every level lost torsos that move
# fast (`vico_fd21te`), half as many lost 0.1 dB of the whole frame on others.
CORRELATED, LEAST_CORRELATED = 0.0025, 10
LEAST_WEIGHT = 0.3  # of a pixel of the reference that takes part
# The outline: weight of a pixel's matte against that of its brightness, the difference of mattes at which this falls to a quarter,
# the least slope of a matte, per half picture, that counts as outline (an edge of some pixels has 10 and more at 128 px).
OUTLINE, OUTLINE_ROBUST, LEAST_SLOPE = 0.1, 0.4, 0.5
_ADJUGATE = ((0, 0, 0, 1), (0, -1, 0, 0), (0, 0, -1, 0), (1, 0, 0, 0))  # of the entries of a 2 x 2 matrix, by rows
# Columns: shift x, shift y, scale, rotation, stretch, shear; rows: coefficients of (1, x, y) per direction.
_PARTS = (
    (1, 0, 0, 0, 0, 0),
    (0, 0, 1, 0, 1, 0),
    (0, 0, 0, -1, 0, 1),
    (0, 1, 0, 0, 0, 0),
    (0, 0, 0, 1, 0, 1),
    (0, 0, 1, 0, -1, 0),
)


def planes(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Sampling coordinates ``[H, W, 2]`` (x, y in [-1, 1]) and the affine basis ``[H, W, 3]`` (1, x, y)."""
    y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height * 2 - 1
    x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width * 2 - 1
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y], -1), torch.stack([torch.ones_like(x), x, y], -1)


@dataclass(frozen=True)
class Reference:
    """What frames are registered to.

    Attributes:
        picture: ``[H, W]`` brightness in [0, 1].
        weight: ``[H, W]`` in [0, 1] of the region that moves together.
        guide: ``[2]`` (x, y) in half pictures: a place that moves about as the region does, such as the head's, if known.
        starts: ``[N, 2, 3]`` displacements that the region had before, if known.
        outlined: whether the region's outline moves with it, as a torso's does; a background's is that of what hides it.
        outline: ``[H, W]`` in [0, 1], where the region's outline is registered as well, if anywhere: on the finest level, since it
            is thin.
    """

    picture: Tensor
    weight: Tensor
    guide: Tensor | None = None
    starts: Tensor | None = None
    outlined: bool = True
    outline: Tensor | None = None

    @cached_property
    def levels(self) -> list[_Level]:
        """From coarse to fine."""
        both = torch.stack([self.picture, self.weight])[None]
        *coarse, (finest,) = _pyramid(both, self.outlined)
        return [*(_Level(level[0, 0], level[0, 1]) for level in coarse), _Level(finest[0], finest[1], self.outline)]

    def compared(self, frames: Tensor, weights: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """What :func:`align` calls agreement, for given displacements, in its two parts: the correlation, and the share seen."""
        return self.levels[-1].compared(torch.stack([frames, weights], 1), motion)


def align(
    frames: Tensor,
    weights: Tensor,
    reference: Reference,
    start: Tensor | None = None,
    levels: int | None = None,
    outline: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Affine displacements ``[T, 2, 3]`` that map a reference to each frame, and how well they agree ``[T]``.

    Args:
        frames: ``[T, H, W]`` brightness in [0, 1], of the reference's size.
        weights: ``[T, H, W]`` in [0, 1], where a frame shows the region.
        start: ``[(T,) 2, 3]`` displacements to start from; by default none.
        levels: of the reference that are used, from the coarsest on; by default all.
        outline: ``[T, H, W]`` in [0, 1], where frames show the region's outline, for references that have one.

    Returns:
        Coefficients of (1, x, y) per direction (x, y), in half pictures: ``frame(p + u(p))`` shows the reference's ``p``.
        Agreement is the correlation of the aligned brightness, times the share of the region that the frame shows; below 0
        it is 0.
    """
    motion = frames.new_zeros(len(frames), 2, 3) if start is None else start.expand(len(frames), 2, 3)
    both = torch.stack([frames, weights], 1)
    pictures = _pyramid(both, reference.outlined)
    if outline is not None:
        pictures[-1] = torch.cat([both, outline[:, None]], 1)
    for number, (level, shown) in enumerate(list(zip(reference.levels, pictures, strict=True))[:levels]):
        robust = ROBUST[min(number, len(ROBUST) - 1)]
        for _ in range(STEPS):
            motion = level.step(shown, motion, robust)
    correlation, share = reference.levels[-1].compared(both, motion)
    return motion, correlation * share


def mean_reference(
    frames: Tensor, weights: Tensor, motion: Tensor, outlined: bool = True, outline: Tensor | None = None
) -> Reference:
    """The mean of frames ``[T, H, W]`` that are moved back by displacements ``[T, 2, 3]``; other arguments as of :func:`align`."""
    grid, basis = planes(frames.shape[1], frames.shape[2], frames)
    moved = grid + torch.einsum("hwk,tck->thwc", basis, motion)
    pictures = torch.stack([frames, weights, *([] if outline is None else [outline])], 1)
    aligned = F.grid_sample(pictures, moved, padding_mode="border", align_corners=False)
    picture = (aligned[:, 0] * aligned[:, 1]).sum(0) / aligned[:, 1].sum(0).clamp_min(1e-3)
    least = None if outline is None else aligned[:, 2].amin(0)
    return Reference(picture, aligned[:, 1].mean(0), outlined=outlined, outline=least)


def inverse(motion: Tensor) -> Tensor:
    """Displacements ``[..., 2, 3]`` of the inverse affine maps."""
    shift, linear = motion[..., :1], motion[..., 1:]
    one = constant(((1.0, 0.0), (0.0, 1.0)), motion)
    entries = (linear + one).flatten(-2)
    a, b, c, d = entries.split(1, -1)
    back = ((entries @ constant(_ADJUGATE, motion)) / (a * d - b * c)).unflatten(-1, (2, 2))
    return torch.cat([-back @ shift, back - one], -1)


def composed(first: Tensor, second: Tensor) -> Tensor:
    """Displacements ``[..., 2, 3]`` of the affine maps that apply ``first`` and then ``second``."""
    return first + second + second[..., 1:] @ first


def register(frames: Tensor, weights: Tensor, first: int, rounds: int = 2) -> Tensor:
    """Affine displacements ``[T, 2, 3]`` that map a common reference picture to each frame, as :func:`align` gives them.

    Args:
        frames: ``[T, H, W]`` brightness; weights: ``[T, H, W]`` of the region that moves together.
        first: the frame that is the reference in the first round; later it is the weighted mean of the aligned frames.
        rounds: how often frames are aligned.
    """
    reference = Reference(frames[first], weights[first])
    motion, _ = align(frames, weights, reference)
    for _ in range(rounds - 1):
        motion, _ = align(frames, weights, mean_reference(frames, weights, motion))
    return motion


class _Level:
    """A reference at one resolution: pixels of its region, and what a step needs of them.

    Args:
        picture, weight, outline: ``[H, W]``.
    """

    def __init__(self, picture: Tensor, weight: Tensor, outline: Tensor | None = None) -> None:
        height, width = picture.shape
        inner = (slice(1, -1), slice(1, -1))
        grid, basis = (plane[inner] for plane in planes(height, width, picture))
        kept = weight[inner] > LEAST_WEIGHT
        across, down = (slope[kept] for slope in _slopes(picture))
        self.value, self.weight = picture[inner][kept], weight[inner][kept]
        self.points, self.basis = grid[kept], basis[kept]
        self.parts = torch.tensor(_PARTS, dtype=picture.dtype, device=picture.device)
        moved = torch.cat([across[:, None] * self.basis, down[:, None] * self.basis], -1) @ self.parts
        gain = self.value - self.value.mean() if len(self.value) else self.value
        self.slopes = torch.cat([moved, gain[:, None], torch.ones_like(gain)[:, None]], -1)
        self.products = (self.slopes[:, :, None] * self.slopes[:, None]).flatten(1)
        spreads = picture.new_tensor(SPREADS)
        correlated = max(CORRELATED * picture.numel(), LEAST_CORRELATED)
        self.prior = NOISE**2 * correlated / spreads.square()
        self.inverse = self.parts.T / self.parts.square().sum(0)[:, None]  # the columns are orthogonal
        self.outline = None if outline is None else _Outline(weight, outline, self.parts)

    def step(self, both: Tensor, motion: Tensor, robust: float) -> Tensor:
        """Displacements ``[T, 2, 3]`` after one step, for frames and weights ``[T, 2, H, W]``."""
        shown, weight = self._shown(both, motion)
        difference = shown - self.value
        weight = weight / (1 + (difference / robust) ** 2) ** 2
        size = self.slopes.shape[1]
        normal = (weight @ self.products).view(-1, size, size)
        right = (weight * difference) @ self.slopes
        if self.outline is not None and both.shape[1] > 2:
            self.outline.add_to(normal, right, both[:, 1:], motion)
        # The prior draws the whole map towards none; gain and offset have a tiny one that keeps the system regular.
        prior = F.pad(self.prior, (0, 2), value=1e-4)
        right = right + prior * F.pad(motion.flatten(1) @ self.inverse.T, (0, 2))
        change = torch.linalg.solve(normal + torch.diag(prior), right[..., None])[:, :6, 0]
        change = (change @ self.parts.T).view(-1, 2, 3).clamp(-LONGEST, LONGEST)
        return composed(inverse(change), motion)

    def compared(self, both: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Reference.compared`."""
        shown, weight = self._shown(both, motion)
        total = weight.sum(1, keepdim=True).clamp_min(1e-6)
        shown = shown - (weight * shown).sum(1, keepdim=True) / total
        value = self.value - (weight * self.value).sum(1, keepdim=True) / total
        powers = (weight * shown.square()).sum(1) * (weight * value.square()).sum(1)
        share = (total[:, 0] / self.weight.sum().clamp_min(1e-6)).clamp(max=1)
        return ((weight * shown * value).sum(1) / powers.clamp_min(1e-12).sqrt()).clamp(0, 1), share

    def _shown(self, both: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Brightness and weight ``[T, N]`` of the frames at the moved pixels of the region."""
        found, inside = _moved(both, self.points, self.basis, motion)
        return found[:, 0], found[:, 1] * self.weight * inside


class _Outline:
    """The outline of a region at one resolution.

    Args:
        weight: ``[H, W]`` of the region; outline: ``[H, W]`` where its outline counts.
        parts: ``[6, 6]`` of an affine map.
    """

    def __init__(self, weight: Tensor, outline: Tensor, parts: Tensor) -> None:
        inner = (slice(1, -1), slice(1, -1))
        grid, basis = (plane[inner] for plane in planes(weight.shape[0], weight.shape[1], weight))
        across, down = _slopes(weight)
        kept = ((across.abs() + down.abs()) > LEAST_SLOPE) & (outline[inner] > 0.5)
        self.value, self.points, self.basis = weight[inner][kept], grid[kept], basis[kept]
        slopes = torch.cat([across[kept][:, None] * self.basis, down[kept][:, None] * self.basis], -1) @ parts
        self.slopes, self.products = slopes, (slopes[:, :, None] * slopes[:, None]).flatten(1)

    def add_to(self, normal: Tensor, right: Tensor, both: Tensor, motion: Tensor) -> None:
        """Add the outline's equations to a step's ``normal [T, N, N]`` and ``right [T, N]``.

        Args:
            both: ``[T, 2, H, W]`` frames' weights and where they show the outline; motion: ``[T, 2, 3]``.
        """
        found, inside = _moved(both, self.points, self.basis, motion)
        difference = found[:, 0] - self.value
        weight = OUTLINE * found[:, 1] * inside / (1 + (difference / OUTLINE_ROBUST) ** 2) ** 2
        size = self.slopes.shape[1]
        normal[:, :size, :size] += (weight @ self.products).view(-1, size, size)
        right[:, :size] += (weight * difference) @ self.slopes


def _slopes(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes ``[H - 2, W - 2]`` of a picture ``[H, W]`` across and down, per half picture."""
    height, width = picture.shape
    across = (picture[1:-1, 2:] - picture[1:-1, :-2]) * (width / 4)
    return across, (picture[2:, 1:-1] - picture[:-2, 1:-1]) * (height / 4)


def _moved(pictures: Tensor, points: Tensor, basis: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures ``[T, C, H, W]`` at moved points ``[N, 2]``: ``[T, C, N]``, and which of these are inside ``[T, N]``."""
    at = points + torch.einsum("nk,tck->tnc", basis, motion)
    found = F.grid_sample(pictures, at[:, None], padding_mode="border", align_corners=False)[:, :, 0]
    return found, (at.abs() < 1).all(-1)


def _pyramid(both: Tensor, outlined: bool) -> list[Tensor]:
    """Brightness and weights ``[T, 2, H, W]`` from a side of at most ``COARSEST`` on, each twice as large as the one before.

    The coarsest region is a pixel wider all around if it is ``outlined``, so that its outline is seen: stripes and plain cloth
    need that. Else nothing but the region counts.
    """
    levels = [both if outlined else torch.cat([both[:, :1] * both[:, 1:], both[:, 1:]], 1)]
    while max(levels[0].shape[-2:]) > COARSEST:
        height, width = levels[0].shape[-2:]
        levels.insert(0, F.interpolate(levels[0], ((height + 1) // 2, (width + 1) // 2), mode="area"))
    if not outlined:
        return [_inside(level) for level in levels[:-1]] + [both]
    brightness, weight = levels[0].split(1, dim=1)
    levels[0] = torch.cat([brightness, F.max_pool2d(weight, 3, 1, 1)], 1)
    return levels


def _inside(level: Tensor) -> Tensor:
    """Brightness and weights ``[T, 2, H, W]`` from their products and weights; a pixel counts as its least neighbour does."""
    sums, weight = level.split(1, dim=1)
    return torch.cat([sums / weight.clamp_min(1e-3), -F.max_pool2d(-weight, 3, 1, 1)], 1)


def predicted_by(inputs: Tensor, motion: Tensor, ridge: float) -> Tensor:
    """Weights ``[2, 3, C]`` of a ridge regression from centred inputs to centred motions.

    Args:
        inputs: ``[T, C]``, of about unit variance; motion: ``[T, 2, 3]``.
        ridge: penalty, relative to the variance of an input of one.
    """
    x, y = inputs.cpu().double(), motion.flatten(1).cpu().double()
    x, y = x - x.mean(0), y - y.mean(0)
    return ridge_weights(x.T @ x / len(x), x.T @ y / len(x), ridge).T.reshape(2, 3, -1).to(motion)
