"""Whether priors can serve one adaptation: schema, rig and audio feature must be the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from configs import InputError

Info = Mapping[str, Any]
CURE = "use priors trained from one dataset, or train the one that differs again"


def check_compatible(infos: Mapping[str, Info], rig: Info | None = None, feature: Info | str | None = None) -> None:
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


def misfit(infos: Mapping[str, Info], rig: Info | None = None, feature: Info | str | None = None) -> str | None:
    """The sentence that :func:`check_compatible` raises, or None where the priors fit together."""
    given: dict[str, object] = {
        "rig": rig,
        "audio features": {"name": feature} if isinstance(feature, str) else feature,
    }
    for key, read, same in _ASPECTS:
        known = [(f"of '{name}'", value) for name, info in infos.items() if (value := read(info))]
        if given.get(key):
            known.insert(0, ("of this clip or avatar", given[key]))
        for whose, value in known[1:]:
            if not same(known[0][1], value):
                first, other = _shown(key, known[0][1], value), _shown(key, value, known[0][1])
                return f"priors do not fit together: {key} {known[0][0]} is {first}, {whose} it is {other}; {CURE}"
    return None


def _schema_of(info: Info) -> Any:
    return info.get("schema")


def _rig_of(info: Info) -> Info | None:
    rig = info.get("rig") or {}
    return rig if rig.get("name") or rig.get("sha256") else None


def _feature_of(info: Info) -> Info | None:
    feature = info.get("features") or {}
    return feature if feature.get("name") else None


def _same_rig(a: Info, b: Info) -> bool:
    if a.get("sha256") and b.get("sha256"):
        return bool(a["sha256"] == b["sha256"])
    return bool(a.get("name") == b.get("name"))


def _same_feature(a: Info, b: Info) -> bool:
    """Equal name; equal size and weights wherever both sides record them."""
    if a.get("name") != b.get("name"):
        return False
    pairs = ((a.get("size"), b.get("size")), (_weights(a), _weights(b)))
    return all(x is None or y is None or x == y for x, y in pairs)


def _weights(feature: Info) -> str | None:
    return (feature.get("weights") or {}).get("sha256")


def _shown(key: str, value: Any, other: Any) -> str:
    if key == "rig":
        digest = f" ({str(value['sha256'])[:12]})" if value.get("sha256") else ""
        return f"{value.get('name')}{digest}"
    if key == "audio features":
        size = f" of size {value['size']}" if value.get("size") else ""
        ours, theirs = _weights(value), _weights(other)
        weights = f" with weights {ours[:12]}" if ours and theirs and ours != theirs else ""
        return f"{value['name']}{size}{weights}"
    return str(value)


_ASPECTS: tuple[tuple[str, Callable[[Info], Any], Callable[[Any, Any], bool]], ...] = (
    ("schema", _schema_of, lambda a, b: bool(a == b)),
    ("rig", _rig_of, _same_rig),
    ("audio features", _feature_of, _same_feature),
)
