"""Which audio features and which rig a build uses: the dataset's, and those requested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from configs import InputError
from configs.records import FeatureRecord
from heads.rig import load_rig
from shards.build.journal import Journal
from shards.features.registry import again, check_revision, is_outdated, open_feature, parse_feature
from shards.format.catalogue import Catalogue
from shards.tracking.coefficients import DEFAULT_RIG

DEFAULT_SIZE = 512  # px, largest side of the crop
Records = list[FeatureRecord]


def wanted_features(catalogue: Catalogue, journal: Journal, specs: Sequence[str]) -> Records:
    """Records, sorted by name, of the features that every sample must have: log-mel, the dataset's, and ``specs``.

    Raises:
        InputError: no such feature, weights that cannot be loaded or are not those that the dataset was built with, or rows
            of another revision that were not asked for.
    """
    asked = dict(_named(spec) for spec in ["logmel", *specs])
    adding = {record["name"]: record for record in journal.settings.get("adding", ())}
    known = {**{name: catalogue.feature_record(name) for name in catalogue.features}, **adding}
    records = []
    for name in dict.fromkeys([*known, *asked]):
        if name not in known:
            records.append(_opened(asked[name]))
        else:
            _agree(journal.url, known[name], asked.get(name, name))
            records.append(_renewed(journal.url, known[name], asked.get(name)))
    return sorted(records, key=lambda record: record["name"])


def _named(spec: str) -> tuple[str, str]:
    return parse_feature(spec)[0], spec


def _opened(spec: str) -> FeatureRecord:
    feature = open_feature(spec)
    feature.load()  # what is wrong with the weights is found before any work
    return feature.record


def _renewed(url: str, record: FeatureRecord, spec: str | None) -> FeatureRecord:
    """A record of the dataset's; if it is outdated and was asked for, the one with which its rows are made again."""
    if spec is None or not is_outdated(record):
        check_revision(record, url, f"make them again with '{again(url, record)}'")
        return record
    held = record["weights"]
    return _opened(spec if "=" in spec or held is None else f"{record['name']}={held['source']}")


def _agree(url: str, record: FeatureRecord, spec: str) -> None:
    """Refuse weights for a feature of the dataset that differ from the dataset's own."""
    if "=" not in spec or record["weights"] is None:
        return
    held, asked = record["weights"], open_feature(spec).record["weights"]
    if asked is not None and asked["sha256"] != held["sha256"]:
        raise InputError(
            f"{url}: holds {record['name']} of {held['source']} (sha256 {held['sha256'][:12]}), asked for "
            f"{asked['source']} (sha256 {asked['sha256'][:12]}); use the same weights or another folder"
        )


def load_weights(records: Sequence[FeatureRecord]) -> None:
    """Load every feature once, so that weights that are missing here are found before any work.

    Raises:
        InputError: weights that are missing or differ from those recorded.
    """
    for record in records:
        open_feature(record).load()


def wanted_rig(catalogue: Catalogue, source: str | Path | None) -> dict[str, str]:
    """Record of the rig whose coefficients the tracker gives: ``source``, else the dataset's, else the shipped one.

    Raises:
        InputError: no such rig, or one without landmarks, which a tracker cannot follow.
    """
    found = str(source or (catalogue.rig or {}).get("source") or DEFAULT_RIG)
    rig = load_rig(found)
    rig.landmarks(rig.mean)  # a rig that names no landmarks is refused here
    return dict(rig.record)
