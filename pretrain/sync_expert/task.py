"""The sync-expert task: runs of lips with their audio."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from configs.records import FeatureRecord
from heads.measures.lips import lip_shape
from pretrain.data.audible import speaking_people
from pretrain.data.moments import Moments
from pretrain.data.sequences import sequences
from pretrain.sync_expert.config import SyncExpertConfig
from pretrain.sync_expert.evidence import NEEDS, NOTES, load_clips, score, summarise
from pretrain.sync_expert.inference import SyncExpert
from pretrain.sync_expert.model import SyncModel
from pretrain.sync_expert.objective import SyncObjective
from pretrain.sync_expert.view import CropCache, LipRunView
from pretrain.task import Evidence, Task, check_features, feature_record, tensors_of
from shards.read.dataset import Dataset


class SyncExpertTask(Task[SyncObjective]):
    """See :class:`pretrain.task.Task`."""

    name: ClassVar[str] = "sync-expert"
    config_class: ClassVar[type[SyncExpertConfig]] = SyncExpertConfig
    config: SyncExpertConfig

    def __init__(self, config: SyncExpertConfig, train: Dataset, held: Dataset) -> None:
        super().__init__(config, train, held)
        self.feature = feature_record(train, config.features, self.name)
        self.size = int(self.feature["size"])
        self.cache = CropCache(config.cache_mb << 20)
        self._held: list | None = None

    @classmethod
    def usable(cls, dataset: Dataset, config: SyncExpertConfig) -> Dataset:
        """The people with reliable audio."""
        check_features(dataset, config.features, cls.name)
        return dataset.subset(speaking_people(dataset, config.unreliable))

    def view(self, *, training: bool) -> LipRunView:
        """Runs of lips with their audio."""
        return LipRunView(self.config, self.cache)

    def objective(self) -> SyncObjective:
        """A fresh model with its losses."""
        return SyncObjective(SyncModel(self.config, self.size))

    def features(self) -> FeatureRecord:
        """The audio feature that the expert uses."""
        return self.feature

    def prepare(self, objective: SyncObjective) -> None:
        """Statistics of the features and of the lips' geometry."""
        inputs, shapes = Moments(), Moments()
        for sequence in sequences(self.train, self.config.features, unreliable=self.config.unreliable):
            mean = sequence.features.mean(0) if self.config.centre else 0.0
            inputs.add(sequence.features - mean)
            shape = lip_shape(torch.tensor(sequence.track["landmarks"])).numpy()
            shapes.add(shape - shape.mean(0))
        model = objective.model
        model.feature_mean.copy_(torch.from_numpy(inputs.mean()))
        model.feature_std.copy_(torch.from_numpy(inputs.std()).clamp_min(1e-3))
        model.shape_std.copy_(torch.from_numpy(shapes.std()).clamp_min(1e-4))

    def prior(self, objective: SyncObjective) -> SyncExpert:
        """The objective's model as users get it."""
        return SyncExpert(objective.model, {"prior": self.name})

    def held_clips(self) -> list:
        """Held-out clips with their lip crops, computed once."""
        if self._held is None:
            self._held = load_clips(self.held, self.config)
        return self._held

    def validate(self, objective: SyncObjective) -> dict[str, float]:
        """AUC of single windows and of seconds on the held-out people, and the accuracy of the offset."""
        prior = self.prior(objective)
        return summarise([score(prior, clip) for clip in self.held_clips()])

    def evidence(self, objective: SyncObjective) -> Evidence:
        """See :mod:`pretrain.sync_expert.evidence`."""
        prior = self.prior(objective)
        rows = [score(prior, clip) for clip in self.held_clips()]
        return Evidence(rows=rows, summary=summarise(rows), notes=NOTES, needs=NEEDS)

    def weights(self, objective: SyncObjective) -> dict[str, Tensor]:
        """The model without the training losses."""
        return tensors_of(objective.model)
