"""The expression-visual task: from one frame of a person, render other frames of that person."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from configs.seeds import derive
from heads.measures.face import mirror_signs
from heads.person.inputs import frame_vectors
from pretrain.expression_visual.clips import load_clips
from pretrain.expression_visual.config import ExpressionVisualConfig
from pretrain.expression_visual.evidence import collect, score, summarise
from pretrain.expression_visual.inference import ExpressionVisualPrior
from pretrain.expression_visual.model import VisualModel
from pretrain.expression_visual.objective import VisualObjective
from pretrain.expression_visual.pictures import sheet
from pretrain.expression_visual.view import POSE, ReferenceView
from pretrain.task import Evidence, Task, tensors_of
from shards.read.dataset import Dataset

MEAN_FRAMES = 100  # samples from which the mean head's colours are computed · guess


class ExpressionVisualTask(Task[VisualObjective]):
    """See :class:`pretrain.task.Task`."""

    name: ClassVar[str] = "expression-visual"
    config_class: ClassVar[type[ExpressionVisualConfig]] = ExpressionVisualConfig
    config: ExpressionVisualConfig
    identity_weights: ClassVar[str | None] = "balanced"  # many faces matter more than many frames of one

    def __init__(self, config: ExpressionVisualConfig, train: Dataset, held: Dataset) -> None:
        super().__init__(config, train, held)
        self._clips: list | None = None

    def view(self, *, training: bool) -> ReferenceView:
        """References and targets."""
        return ReferenceView(self.config, self._signs())

    def _signs(self) -> dict[str, np.ndarray]:
        return mirror_signs(self.rig) if self.config.augment.mirror else {}

    def objective(self) -> VisualObjective:
        """A fresh model with its losses."""
        return VisualObjective(VisualModel(self.config, self.rig), len(self.train.identities))

    @torch.no_grad()
    def prepare(self, objective: VisualObjective) -> None:
        """The mean head's colours and the statistics of poses, from equally many frames of each training person."""
        model, view = objective.model, ReferenceView(replace(self.config, references=1, targets=1), self._signs())
        rng = np.random.default_rng(derive(self.config.seed, "mean head"))
        total, weight, vectors = torch.zeros_like(model.mean_colour), torch.zeros(len(model.mean_colour), 1), []
        for key in chosen_keys(self.train, MEAN_FRAMES, rng):
            batch = view(self.train.read(key), rng)
            pose = {name: torch.tensor(batch[f"source_{name}"][:1]) for name in POSE}
            image, matte = (torch.tensor(batch[f"source_{name}"][:1]).float() / 255 for name in ("image", "matte"))
            vectors.append(frame_vectors(pose))
            colour, seen, _ = model.look(image, matte, torch.tensor(batch["identity"])[None], pose)
            total += (colour * seen[..., None])[0]
            weight += seen[0, :, None]
        model.appearance_basis.net.calibrate(torch.cat(vectors))
        seen = total / weight.clamp_min(1e-6)
        sure = weight / (weight + 1)
        model.mean_colour.copy_(sure * seen + (1 - sure) * model.spread(seen[None], sure[None])[0])

    def groups(self, objective: VisualObjective) -> list[dict[str, Any]]:
        """As for every prior, but mean head, shared basis and codes learn faster: each of their values gets few gradients."""
        fast = [objective.model.mean_map, objective.model.appearance_basis.basis, objective.codes]
        slow = [p for p in objective.parameters() if p.requires_grad and not any(p is other for other in fast)]
        decay, rest = [p for p in slow if p.ndim > 1], [p for p in slow if p.ndim <= 1]
        rate = self.config.optimiser.lr * self.config.mean_rate
        return [
            {"params": decay},
            {"params": rest, "weight_decay": 0.0},
            {"params": fast, "weight_decay": 0.0, "lr": rate},
        ]

    def prior(self, objective: VisualObjective) -> ExpressionVisualPrior:
        """The objective's model as users get it."""
        return ExpressionVisualPrior(objective.model, {"prior": self.name})

    def held_clips(self) -> list:
        """Held-out clips with the frames that are compared, read once."""
        if self._clips is None:
            self._clips = load_clips(self.held, self.config.size)
        return self._clips

    def validate(self, objective: VisualObjective) -> dict[str, float]:
        """PSNR and SSIM of one-shot heads of the held-out people, and the gain over copying the texture."""
        prior = self.prior(objective)
        figures = summarise([score(prior, clip) for clip in self.held_clips()])
        return {name: value for name, value in figures.items() if name.startswith(("psnr", "ssim", "gain"))}

    def pictures(self, objective: VisualObjective) -> dict[str, np.ndarray]:
        """One sheet, of the first held-out person."""
        prior = self.prior(objective)
        return {f"one-shot-{clip.identity}": sheet(prior, clip) for clip in self.held_clips()[:1]}

    def evidence(self, objective: VisualObjective) -> Evidence:
        """See :mod:`pretrain.expression_visual.evidence`."""
        return collect(self.prior(objective), self.held_clips())

    def weights(self, objective: VisualObjective) -> dict[str, Tensor]:
        """The model without the training losses."""
        return tensors_of(objective.model)


def chosen_keys(dataset: Dataset, most: int, rng: np.random.Generator) -> list[str]:
    """Keys of up to ``most`` samples, equally many of each person where possible; reads a bounded number of rows."""
    people: dict[str, list[str]] = {}
    for i in sorted(rng.choice(len(dataset), min(len(dataset), 20 * most), replace=False).tolist()):
        row = dataset.samples[i]
        people.setdefault(row.identity, []).append(row.key)
    share = max(1, most // max(1, len(people)))
    return [key for keys in people.values() for key in keys[:share]]
