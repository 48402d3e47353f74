"""Finds audio features, and opens one by its name or by the record that a dataset or a prior keeps of it.

A feature is a file of this folder that defines ``FEATURE``, or an entry point of the group ``headstart.features``
(``NAME = "package.module:CLASS"``) of any installed package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Literal

import numpy as np

from configs import InputError, nearest
from configs.records import FeatureRecord, revision_of
from shards.features.base import Feature, RowStream

GROUP = "headstart.features"
OPENED = 4  # features that stay loaded in a process
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


@lru_cache(maxsize=1)
def features() -> dict[str, type[Feature]]:
    """Every feature by name: this folder's first, then those of entry points.

    Raises:
        InputError: an entry point that cannot be imported, is no :class:`Feature`, or takes a name that is taken.
    """
    found: dict[str, type[Feature]] = {}
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        kind = getattr(import_module(f"{__package__}.{path.stem}"), "FEATURE", None)
        if kind is not None:
            found[kind.name] = kind
    for point in metadata.entry_points(group=GROUP):
        found[point.name] = _checked(point, found)
    return found


def _checked(point: metadata.EntryPoint, taken: Mapping[str, object]) -> type[Feature]:
    where = f"audio feature '{point.name}' ({point.value})"
    try:
        kind = point.load()
    except Exception as error:  # whatever a stranger's module does when it is imported
        raise InputError(f"{where} cannot be imported ({type(error).__name__}: {error}); repair or remove it") from None
    if not (isinstance(kind, type) and issubclass(kind, Feature)) or getattr(kind, "name", None) != point.name:
        raise InputError(f"{where}: expected a subclass of shards.features.Feature whose name is '{point.name}'")
    if point.name in taken or not _NAME.fullmatch(point.name):
        raise InputError(f"{where}: the name is taken or not of a-z, 0-9, '_' and '-'; choose another")
    return kind


def parse_feature(spec: str) -> tuple[str, str]:
    """Name and weights (``""`` if it has none) of ``"hubert"`` or ``"hubert=FOLDER_OR_HUB_NAME"``.

    Raises:
        InputError: a name that no feature has, or weights for a feature that has none.
    """
    name, equals, weights = spec.partition("=")
    known = features()
    if name not in known:
        raise InputError(f"audio features '{spec}': expected {_choices()}{nearest(name, sorted(known))}")
    if equals and not (weights and known[name].default_weights):
        raise InputError(f"audio features '{spec}': expected {_choices()}")
    return name, weights or known[name].default_weights


def _choices() -> str:
    known = features()
    names = ", ".join(sorted(known, key=lambda name: (bool(known[name].default_weights), name)))
    return f"{names}, or NAME=FOLDER_OR_HUB_NAME for those with weights"


def open_feature(which: str | FeatureRecord, weights: str | Path = "") -> Feature:
    """A feature by ``NAME``, ``NAME=FOLDER_OR_HUB_NAME``, or by the record of a dataset or prior.

    Args:
        which: see above. A record must be met exactly: revision, width and sha256 of the weights must be equal.
        weights: folder or hub name to use instead of the one in ``which``.

    Raises:
        InputError: no such feature, another revision of it, or weights that are missing or differ from those of the record.
    """
    if isinstance(which, str):
        name, source = parse_feature(which)
        return _open(name, str(weights) or source)
    if not isinstance(which, Mapping) or not isinstance(which.get("name"), str):
        raise InputError(f"audio feature {which!r}: expected a name or a record with 'name', 'size' and 'weights'")
    name, default = parse_feature(which["name"])
    opened = _open(name, str(weights) or _recorded(which, "source") or default)
    _agree(which, opened)
    return opened


@lru_cache(maxsize=OPENED)
def _open(name: str, source: str) -> Feature:
    return features()[name](source)


def _agree(wanted: FeatureRecord, opened: Feature) -> None:
    """Prove that an opened feature is the recorded one."""
    check_revision(
        wanted,
        "",
        f"add its rows to the dataset again (shards build --features {opened.name}), then train "
        "the prior and adapt the avatar again",
    )
    if "size" in wanted and wanted["size"] != opened.size:
        raise InputError(
            f"audio feature '{opened.name}' of {opened.weights or 'this version'} has {opened.size} columns, "
            f"expected {wanted['size']}; use the weights that the dataset was built with"
        )
    sha256, found = _recorded(wanted, "sha256"), _recorded(opened.record, "sha256")
    if sha256 and sha256 != found:
        raise InputError(
            f"audio feature '{opened.name}': the weights of {opened.weights} have sha256 {found[:12]}, expected "
            f"{sha256[:12]}; use the weights that the dataset was built with"
        )


def is_outdated(record: FeatureRecord) -> bool:
    """Whether recorded rows are of an earlier revision than those that this version computes."""
    kind = features().get(record["name"])
    return kind is not None and revision_of(record) < kind.revision


def check_revision(record: FeatureRecord | None, where: str, cure: str) -> None:
    """Refuse what was made with rows of another revision than those that this version computes.

    Args:
        record: of the rows; ``None``, or of a feature that is not installed here: nothing is checked.
        where: the dataset or prior that holds the record, as the sentence begins; may be empty.
        cure: what to do if the record's revision is the earlier one.

    Raises:
        InputError: naming both revisions.
    """
    kind = features().get(record["name"]) if record is not None else None
    if kind is None or revision_of(record) == kind.revision:
        return
    begin = f"{where}: " if where else ""
    raise InputError(
        f"{begin}audio feature '{kind.name}' of revision {revision_of(record)}, expected {kind.revision}: its rows have "
        f"other values; {cure if revision_of(record) < kind.revision else 'use the version of headstart that made it'}"
    )


def again(url: str, record: FeatureRecord) -> str:
    """The command that replaces a dataset's rows of a feature."""
    source = _recorded(record, "source")
    return f"headstart shards build --out {url} --features {record['name']}{'=' if source else ''}{source}"


def _recorded(record: FeatureRecord, key: Literal["source", "sha256"]) -> str:
    """Source or sha256 of a record's weights; empty if it has none."""
    weights = record.get("weights")
    return "" if weights is None else weights[key]


# ------------------------------------------------------------------------------------------- thin functions by name


def extract_features(name: str, sound: np.ndarray) -> np.ndarray:
    """Rows ``[N // 640, C]`` of ``sound [N]`` by the feature that ``name`` opens; see :meth:`Feature.extract`."""
    return open_feature(name).extract(sound)


def feature_size(name: str) -> int:
    """Width C of the feature that ``name`` opens."""
    kind, weights = parse_feature(name)
    plain = features()[kind]
    return plain.default_size if weights == plain.default_weights else open_feature(name).size


class FeatureStream:
    """The stream of the feature that ``name`` opens."""

    def __init__(self, name: str) -> None:
        self._stream: RowStream = open_feature(name).stream()

    def push(self, sound: np.ndarray) -> np.ndarray:
        """Append sound ``[N]``; returns the rows ``[K, C]`` that became final."""
        return self._stream.push(sound)

    def finish(self) -> np.ndarray:
        """The remaining rows ``[K, C]``."""
        return self._stream.finish()
