"""The audio-expression task: windows of audio and motion, closed-form initial values, metrics on held-out people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from torch import Tensor

from cluster.registry.prior_folder import PriorInfo
from configs.progress import say
from configs.records import FeatureRecord
from heads.measures.face import lip_error, lip_motion
from pretrain.audio_expression.beginnings import fit_live, live_record, prepare
from pretrain.audio_expression.config import AudioExpressionConfig
from pretrain.audio_expression.evidence import calibrate, collect
from pretrain.audio_expression.inference import AudioExpressionPrior
from pretrain.audio_expression.model import ExpressionModel
from pretrain.audio_expression.objective import SequenceObjective
from pretrain.audio_expression.targets import TRACK_FIELDS
from pretrain.audio_expression.view import WindowView
from pretrain.baselines.baselines import correlation
from pretrain.data.audible import speaking_people
from pretrain.data.recording import Recording
from pretrain.data.sequences import Sequence, sequences
from pretrain.task import Evidence, Task, check_features, feature_record, tensors_of
from shards.read.dataset import Dataset

DEFAULT_CONTEXT = 5  # frames to each side of the evidence's regression if the model has none


class AudioExpressionTask(Task[SequenceObjective]):
    """See :class:`pretrain.task.Task`."""

    name: ClassVar[str] = "audio-expression"
    config_class: ClassVar[type[AudioExpressionConfig]] = AudioExpressionConfig
    config: AudioExpressionConfig
    live: FeatureRecord | None = None  # of the rows for live use, where the dataset has them

    def __init__(self, config: AudioExpressionConfig, train: Dataset, held: Dataset) -> None:
        super().__init__(config, train, held)
        self.feature = feature_record(train, config.features, self.name)
        self.size = int(self.feature["size"])
        self.live = live_record(train, config, self.feature)
        self.people = sorted(train.identities)
        self.n_expression = int(train.track["expression"])

    @classmethod
    def usable(cls, dataset: Dataset, config: AudioExpressionConfig) -> Dataset:
        """The people with reliable audio."""
        check_features(dataset, config.features, cls.name)
        return dataset.subset(speaking_people(dataset, config.unreliable))

    def view(self, *, training: bool) -> WindowView:
        """Windows of features and targets."""
        return WindowView(self.config, {name: i for i, name in enumerate(self.people)})

    def objective(self) -> SequenceObjective:
        """A fresh model with its losses."""
        live = int(self.live["size"]) if self.live is not None else 0
        model = ExpressionModel(self.config, self.size, self.n_expression, len(self.people), live=live)
        return SequenceObjective(model)

    def features(self) -> FeatureRecord:
        """The audio feature that the prior uses."""
        return self.feature

    def live_features(self) -> FeatureRecord | None:
        """The audio feature of the regression for live use."""
        return self.live

    def sequences(self, dataset: Dataset) -> Iterator[Sequence]:
        """Reliable clips with audio, as long sequences."""
        return sequences(dataset, self.config.features, unreliable=self.config.unreliable)

    def prepare(self, objective: SequenceObjective) -> None:
        """Statistics, the importance of each component and the ridge regression, from the training people alone."""
        lags = prepare(objective, self.recording(), self.people, self.rig)
        if objective.model.live is not None and self.live is not None:
            rows = sequences(self.train, self.live["name"], unreliable=self.config.unreliable)
            fit_live(
                objective.model.live,
                Recording(rows, self._of_lips()),
                self.rig,
                self.config.linear_columns,
                lags,
            )
        elif self.config.live:
            say(
                f"dataset {self.train.url} has no rows of '{self.config.live}': avatars adapted on this prior will hear "
                f"log-mel in live use; add them with 'headstart shards build --out {self.train.url} --features "
                f"{self.config.live}=FOLDER'"
            )

    def conclude(self, objective: SequenceObjective) -> None:
        """Calibrate the amplitude of the sampler's noise at temperature 1."""
        calibrate(self.prior(objective), self.recording(), self.rig)

    def recording(self) -> Recording:
        """The training people's sequences, read once."""
        fields = {name for target in self.config.targets for name in TRACK_FIELDS.get(target, (target,))}
        return Recording(self.sequences(self.train), sorted({*self._of_lips(), *fields}))

    def _of_lips(self) -> list[str]:
        """Track fields that the regressions need; whether lips are shut depends on the person's face too."""
        return ["expression", "identity"] if self.config.closure else ["expression"]

    def prior(self, objective: SequenceObjective) -> AudioExpressionPrior:
        """The objective's model as users get it."""
        info = PriorInfo(prior=self.name, features=self.features(), live=self.live)
        return AudioExpressionPrior(objective.model, info, self.people)

    def validate(self, objective: SequenceObjective) -> dict[str, float]:
        """Mouth-opening correlation and lip error of the one-step mean, on the held-out people."""
        prior, rig, values = self.prior(objective), self.rig, []
        for sequence in self.sequences(self.held):
            guess = prior.expect(sequence.features)["expression"]
            ours = lip_motion(rig, sequence.track["identity"], guess)
            real = lip_motion(rig, sequence.track["identity"], sequence.track["expression"])
            values.append((correlation(ours.opening, real.opening), lip_error(ours.lips, real.lips)))
        means = np.mean(values, axis=0) if values else (float("nan"), float("nan"))
        return {"mouth_correlation": float(means[0]), "lip_error": float(means[1])}

    def evidence(self, objective: SequenceObjective) -> Evidence:
        """See :mod:`pretrain.audio_expression.evidence`."""
        context = self.config.linear_context or DEFAULT_CONTEXT
        return collect(self.prior(objective), self.recording(), self.sequences(self.held), context, self.rig)

    def weights(self, objective: SequenceObjective) -> dict[str, Tensor]:
        """The model without the training losses."""
        return tensors_of(objective.model)
