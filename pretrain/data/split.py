"""Splits a dataset into training and held-out people and checks it before training."""

from __future__ import annotations

from configs import InputError
from configs.words import counted
from pretrain.config import PretrainConfig
from pretrain.data.rigs import recorded_rig
from pretrain.task import Task
from shards.read.dataset import Dataset, open_dataset


def open_split(task: type[Task], config: PretrainConfig, data: str) -> tuple[Dataset, Dataset]:
    """The dataset as (training people, held-out people), both checked.

    Raises:
        InputError: too few people, an unknown licence, or a rig that cannot be loaded.
    """
    whole = open_dataset(data)
    holdout = config.holdout if isinstance(config.holdout, float) else list(whole.subset(config.holdout).identities)
    dataset = task.usable(whole, config)
    if len(dataset.identities) < 2:
        raise InputError(
            f"dataset {data}: {len(dataset.identities)} usable person(s) for {task.name}; a prior needs two or more, "
            "because people are held out to prove it; add clips of other people"
        )
    refuse_unknown_licence(dataset, data, config.allow_unknown_licence)
    recorded_rig(dataset.rig, f"dataset {data}")
    if not isinstance(holdout, float):  # named people whom this prior cannot use are left out anyway
        holdout = [name for name in holdout if name in dataset.identities]
    train, held = dataset.split(holdout)
    if not train.identities or not held.identities:
        raise InputError(
            f"dataset {data}: holdout {config.holdout} leaves {counted(len(train.identities), 'person', 'people')} to train on and "
            f"{len(held.identities)} to validate on; both need one or more"
        )
    return train, held


def refuse_unknown_licence(dataset: Dataset, data: str, allowed: bool) -> None:
    """Raise ``InputError`` for people of unknown licence or consent, unless they are ``allowed`` explicitly."""
    records = {name: dataset.licences[name] + dataset.consents[name] for name in dataset.identities}
    unknown = [name for name, values in records.items() if not values or "unknown" in map(str.lower, values)]
    if unknown and not allowed:
        few = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        raise InputError(
            f"dataset {data}: consent or licence unknown for "
            f"{counted(len(unknown), 'person', 'people')} ({few}); record it with 'headstart shards relabel {data} "
            "--consent FILE.csv', or set allow_unknown_licence=true to take the decision"
        )
