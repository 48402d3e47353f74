"""Whether priors can serve one adaptation: schema, rig and audio feature must be the same for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from cluster.registry.prior_folder import PriorInfo
from configs import InputError
from configs.records import FeatureRecord, revision_of

Rig = Mapping[str, str]
Feature = Mapping[str, object]  # a FeatureRecord, or its name alone
Value = TypeVar("Value")
CURE = "use priors trained from one dataset, or train the one that differs again"


def check_compatible(
    infos: Mapping[str, PriorInfo], rig: Rig | None = None, feature: FeatureRecord | str | None = None
) -> None:
    """Refuse priors that cannot serve one adaptation together.

    Args:
        infos: the ``prior.json`` of each prior, by a name that the user knows (``audio-expression``, a URI).
        rig: the rig that the clip or the avatar has: ``{"name", "sha256"}``. None: whatever the priors agree on.
        feature: the audio feature that the clip or the avatar has: its record ``{"name", "size", "weights"}`` or its
            name. None: whatever the priors agree on.

    Raises:
        InputError: names both sides, both values and what to do.
    """
    sentence = misfit(infos, rig, feature)
    if sentence is not None:
        raise InputError(sentence)


def misfit(
    infos: Mapping[str, PriorInfo], rig: Rig | None = None, feature: FeatureRecord | str | None = None
) -> str | None:
    """The sentence that :func:`check_compatible` raises, or None where the priors fit together."""
    heard: Feature | None = {"name": feature} if isinstance(feature, str) else feature
    return (
        _differing(_Schemas(), None, infos) or _differing(_Rigs(), rig, infos) or _differing(_Features(), heard, infos)
    )


class _Aspect(Protocol[Value]):
    """What all priors must agree on: its name, its value in a ``prior.json``, when two are the same, how one reads."""

    name: str

    def of(self, info: PriorInfo) -> Value | None: ...

    def same(self, a: Value, b: Value) -> bool: ...

    def shown(self, value: Value, other: Value) -> str: ...


def _differing(aspect: _Aspect[Value], given: Value | None, infos: Mapping[str, PriorInfo]) -> str | None:
    """The sentence for the first prior that differs from the clip or avatar, or from the first prior."""
    known = [(f"of '{name}'", value) for name, info in infos.items() if (value := aspect.of(info))]
    if given:
        known.insert(0, ("of this clip or avatar", given))
    for whose, value in known[1:]:
        if not aspect.same(known[0][1], value):
            first, other = aspect.shown(known[0][1], value), aspect.shown(value, known[0][1])
            return f"priors do not fit together: {aspect.name} {known[0][0]} is {first}, {whose} it is {other}; {CURE}"
    return None


class _Schemas:
    name = "schema"

    def of(self, info: PriorInfo) -> int | None:
        return info.get("schema")

    def same(self, a: int, b: int) -> bool:
        return a == b

    def shown(self, value: int, other: int) -> str:
        return str(value)


class _Rigs:
    name = "rig"

    def of(self, info: PriorInfo) -> Rig | None:
        rig = info.get("rig") or {}
        return rig if rig.get("name") or rig.get("sha256") else None

    def same(self, a: Rig, b: Rig) -> bool:
        if a.get("sha256") and b.get("sha256"):
            return a["sha256"] == b["sha256"]
        return a.get("name") == b.get("name")

    def shown(self, value: Rig, other: Rig) -> str:
        digest = f" ({value['sha256'][:12]})" if value.get("sha256") else ""
        return f"{value.get('name')}{digest}"


class _Features:
    """Equal name; equal size, revision and weights wherever both sides record them."""

    name = "audio features"

    def of(self, info: PriorInfo) -> Feature | None:
        feature = info.get("features")
        return feature if feature and feature.get("name") else None

    def same(self, a: Feature, b: Feature) -> bool:
        if a.get("name") != b.get("name"):
            return False
        pairs = ((a.get("size"), b.get("size")), (_revision(a), _revision(b)), (_weights(a), _weights(b)))
        return all(x is None or y is None or x == y for x, y in pairs)

    def shown(self, value: Feature, other: Feature) -> str:
        size = f" of size {value['size']}" if value.get("size") else ""
        ours, theirs = _weights(value), _weights(other)
        weights = f" with weights {ours[:12]}" if ours and theirs and ours != theirs else ""
        revised = _revision(value) and _revision(other) and _revision(value) != _revision(other)
        revision = f" of revision {_revision(value)}" if revised else ""
        return f"{value['name']}{size}{revision}{weights}"


def _revision(feature: Feature) -> int | None:
    """``None`` where only a name is known."""
    return revision_of(feature) if feature.get("size") else None


def _weights(feature: Feature) -> str | None:
    recorded = feature.get("weights")
    return str(recorded["sha256"]) if isinstance(recorded, Mapping) and recorded.get("sha256") else None
