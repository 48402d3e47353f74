"""Which priors an adaptation stands on: found by URI, checked against the rig, recorded with name, version and hash."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs import InputError

KINDS = ("audio-expression", "expression-visual", "sync-expert")


@dataclass
class Priors:
    """Opened priors by kind, and what an avatar remembers of each: ``{"name", "version", "sha256", "uri"}``."""

    opened: dict[str, Any] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)

    def get(self, kind: str) -> Any | None:
        """The prior of a kind, ``None`` where none was given."""
        return self.opened.get(kind)


def open_priors(spec: str | Path | None, rig: Any, device: str = "cpu") -> Priors:
    """Open what ``--prior`` names.

    Args:
        spec: ``none``; ``None`` for the registry's champions, where there are any; else a prior folder, a folder of
            prior folders, ``models:/NAME@alias``, ``models:/NAME/VERSION``, ``runs:/...``, or several, comma-separated.
        rig: the rig that they must have been trained for.

    Raises:
        InputError: nothing there, two of one kind, or a prior of another rig.
    """
    priors = Priors()
    for uri, folder in find_priors(spec):
        _add(priors, uri, folder, rig, device)
    return priors


def find_priors(spec: str | Path | None) -> list[tuple[str, Path]]:
    """``(URI, folder)`` of every prior that ``--prior`` names, without opening them; arguments as :func:`open_priors`.

    Raises:
        InputError: one of them is not there.
    """
    if spec is None:
        found = [(uri := f"models:/{kind}@champion", champion(uri)) for kind in KINDS]
        return [(uri, folder) for uri, folder in found if folder is not None]
    if str(spec) == "none":
        return []
    return [(uri.strip(), folder) for uri in str(spec).split(",") for folder in _folders(uri.strip())]


def champion(uri: str) -> Path | None:
    """The registered champion's folder; ``None`` when nothing is registered or the registry is not installed."""
    from cluster.registry.registry import resolve

    try:
        return Path(resolve(uri))
    except (InputError, ImportError):
        return None


def _folders(uri: str) -> list[Path]:
    folder = Path(uri)
    if not folder.is_dir():
        from cluster.registry.registry import resolve

        folder = Path(resolve(uri))
    if (folder / "prior.json").is_file():
        return [folder]
    inside = sorted(path.parent for path in folder.glob("*/prior.json"))
    if not inside:
        raise InputError(f"prior '{uri}': neither it nor its folders hold a prior.json; give what 'pretrain' wrote")
    return inside


def _add(priors: Priors, uri: str, folder: Path, rig: Any, device: str) -> None:
    from pretrain import load_prior

    prior = load_prior(folder, device)
    info = prior.info
    kind = info["prior"]
    if kind in priors.opened:
        raise InputError(f"prior '{uri}': a second {kind} prior; give one of each kind")
    check_rig(uri, info, rig)
    priors.opened[kind] = prior
    priors.folders[kind] = folder
    priors.records[kind] = {
        "name": kind,
        "version": _version(uri, info),
        "sha256": info["weights_sha256"],
        "uri": uri if uri.startswith(("models:/", "runs:/")) else str(folder.resolve()),
        "features": info.get("features"),
    }


def check_rig(uri: str, info: dict[str, Any], rig: Any) -> None:
    """Refuse a prior that was trained for another rig.

    Raises:
        InputError: names both rigs.
    """
    theirs = info["rig"]
    if theirs.get("sha256") != rig.sha256:
        raise InputError(
            f"prior '{uri}' was trained for rig {theirs.get('name')} ({str(theirs.get('sha256'))[:12]}), but the rig "
            f"here is {rig.name} ({rig.sha256[:12]}); use a prior of this rig or --prior none"
        )


def _version(uri: str, info: dict[str, Any]) -> str:
    for separator in ("@", "/"):
        if uri.startswith("models:/") and separator in uri.removeprefix("models:/"):
            return uri.rsplit(separator, 1)[1]
    return str(info.get("version") or info["weights_sha256"][:12])


def reopen_prior(record: dict[str, Any], rig: Any, device: str = "cpu", inside: Path | None = None) -> Any:
    """The very prior that an avatar was adapted on: from the avatar itself when self-contained, else by its URI.

    Raises:
        InputError: it is gone, or what is there now is another one.
    """
    from pretrain import load_prior

    where = inside if inside is not None and inside.is_dir() else record["uri"]
    try:
        prior = load_prior(where, device)
    except InputError as error:
        raise InputError(
            f"the avatar stands on the {record['name']} prior '{record['uri']}', which cannot be opened ({error}); "
            "bring it back or adapt again with --self-contained"
        ) from None
    if prior.info["weights_sha256"] != record["sha256"]:
        raise InputError(
            f"the avatar stands on the {record['name']} prior {record['sha256'][:12]}, but '{record['uri']}' is now "
            f"{prior.info['weights_sha256'][:12]}; give the prior it was adapted on, or adapt again"
        )
    check_rig(str(where), prior.info, rig)
    return prior
