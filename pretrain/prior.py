"""The interface of a prior, and the registry of prior classes.

A prior is a folder of this package with a ``prior.py`` that defines ``PRIOR``, a subclass of :class:`Prior`; its name is
the folder's with hyphens. Another package adds one through the entry-point group ``headstart.priors``
(``NAME = "package.module:CLASS"``). Only its folder and its YAML files refer to it by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cluster.registry.prior_folder import ArrayEntry, PriorInfo, Signature
from configs import InputError, load_config, nearest
from configs.machine import code_version
from pretrain.config import PretrainConfig, renamed
from pretrain.names import GROUP, HERE, prior_names
from pretrain.roles import ROLES
from pretrain.task import Task

SERVING = "pretrain.serving"  # the module that MLflow loads a registered prior with


class Headline(NamedTuple):
    """One figure of a prior's evidence to show first.

    Attributes:
        figure: its name in the evidence's summary.
        what: the measured quantity, with its unit.
        who: the method or baseline that it belongs to.
    """

    figure: str
    what: str
    who: str


class Prior(ABC):
    """One kind of prior: what it learns, how it is trained, how it is loaded and served.

    Attributes:
        task: its part of the training loop, which also defines ``name`` (as on the command line) and ``config_class``
            (the dataclass that its YAML fills).
        learns: what it learns, in one line.
        role: its role in an adaptation, one of :data:`pretrain.roles.ROLES`; empty if adaptation does not use it.
        headlines: the figures of its evidence to show first.
        configs: the folder of its shipped configurations, as for :func:`configs.load_config`; ``pretrain/NAME`` by default.
        budget_share: its weight in dividing the demo's training minutes among the priors.
    """

    task: ClassVar[type[Task]]
    learns: ClassVar[str]
    role: ClassVar[str] = ""
    headlines: ClassVar[tuple[Headline, ...]] = ()
    configs: ClassVar[str | Path] = ""
    budget_share: ClassVar[float] = 0.25

    name: ClassVar[str]
    config_class: ClassVar[type[PretrainConfig]]

    def __init_subclass__(cls, **arguments: object) -> None:
        super().__init_subclass__(**arguments)
        cls.name, cls.config_class = cls.task.name, cls.task.config_class
        cls.configs = cls.configs or f"pretrain/{cls.name}"

    @classmethod
    @abstractmethod
    def restore(cls, info: PriorInfo, tensors: dict[str, Tensor], device: torch.device) -> Any:
        """A trained prior, ready to use, with ``.info``.

        Args:
            info: its ``prior.json``; tensors: its ``weights.safetensors``.

        Raises:
            InputError: trained on another rig, or with a configuration that this version does not know.
        """

    @classmethod
    @abstractmethod
    def signature(cls, info: PriorInfo) -> Signature:
        """Inputs and outputs of :meth:`predict`: ``{"inputs": [...], "outputs": [...], "params": [...]}``.

        Entries are made by :func:`tensor`; parameters are ``{"name", "dtype", "default"}``.
        """

    @classmethod
    @abstractmethod
    def predict(cls, ready: Any, data: Mapping[str, np.ndarray], params: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Predict from arrays whose first axis is frames, as described by :meth:`signature`.

        Args:
            ready: the result of :meth:`restore`.
        """

    @classmethod
    def config_of(cls, info: PriorInfo) -> Any:
        """The typed configuration that a prior was trained with; keys of earlier versions are renamed.

        Raises:
            InputError: a key or value that this version does not know; the sentence names the version that trained it.
        """
        try:
            return load_config(cls.config_class, renamed(info["config"]))
        except InputError as error:
            made = f"version {info.get('code_version', 'unknown')} trained it, this is {code_version()}"
            raise InputError(f"{error} ({made}); use that version, or train again") from None

    @classmethod
    def source(cls, config: str | Path | Mapping[str, object] | None) -> str | Path | Mapping[str, object]:
        """The source for :func:`configs.load_config` given a user's choice: a mapping, a file, or a size such as ``base``.

        ``None`` means ``tiny``. A size is a file of :attr:`configs`, given by its bare name.

        Raises:
            InputError: another package's prior has no such size.
        """
        config = "tiny" if config is None else config
        if not (isinstance(config, str) and config.replace("-", "").isalnum() and not Path(config).exists()):
            return config
        file = Path(cls.configs) / f"{config}.yaml"
        if file.is_absolute() and not file.is_file():  # another package's
            sizes = ", ".join(sorted(path.stem for path in file.parent.glob("*.yaml")))
            raise InputError(
                f"configuration '{config}': no {file.name} in {file.parent} (it has {sizes or 'none'}); choose one of these, "
                "give a YAML file, or add it to the package (package-data, docs/extending.md)"
            )
        return str(file)


def tensor(name: str, dtype: str, *shape: int) -> ArrayEntry:
    """An entry of a signature; -1 stands for any length."""
    return ArrayEntry(name=name, dtype=dtype, shape=list(shape))


@cache
def find_prior(name: str) -> type[Prior]:
    """A prior by its name.

    Raises:
        InputError: no such prior (with the nearest name), or an entry point that does not provide a prior.
    """
    if name not in prior_names():
        raise InputError(f"prior '{name}': no such prior{nearest(name, prior_names())}")
    folder = name.replace("-", "_")
    if (HERE / folder / "prior.py").is_file():
        return _checked(name, import_module(f"pretrain.{folder}.prior").PRIOR, f"pretrain/{folder}/prior.py")
    point = next(point for point in metadata.entry_points(group=GROUP) if point.name == name)
    try:
        return _checked(name, point.load(), point.value)
    except (ImportError, AttributeError) as error:
        raise InputError(f"prior '{name}': its entry point {point.value} cannot be loaded ({error})") from error


def _checked(name: str, found: object, where: str) -> type[Prior]:
    if not (isinstance(found, type) and issubclass(found, Prior)):
        raise InputError(f"prior '{name}': {where} provides {found!r}, expected a subclass of pretrain.prior.Prior")
    if found.name != name:
        raise InputError(f"prior '{name}': {where} calls itself '{found.name}'; give both the same name")
    if missing := sorted(found.__abstractmethods__):
        raise InputError(f"prior '{name}': {where} does not implement {', '.join(missing)}")
    if found.role not in ("", *ROLES):
        raise InputError(f"prior '{name}': {where} has the role '{found.role}', expected one of {', '.join(ROLES)}")
    return found


def role_of(name: str) -> str:
    """The role of a prior; empty where it has none or is not installed."""
    return find_prior(name).role if name in prior_names() else ""


def priors_for(role: str) -> tuple[str, ...]:
    """Names of the priors that take a role, those of this package first."""
    return tuple(name for name in prior_names() if role_of(name) == role)
