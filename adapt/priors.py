"""The priors of an adaptation: found by URI, checked before any work, recorded with version and hash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from adapt.avatar.document import AvatarDocument, PriorRecord
from cluster.registry.compatibility import check_compatible
from cluster.registry.prior_folder import PriorInfo
from cluster.registry.registry import resolve
from cluster.registry.versions import NotRegistered
from configs import InputError
from configs.progress import say
from configs.records import FeatureRecord
from heads.rig import Rig, load_rig
from heads.rig.registry import DEFAULT
from pretrain.folder import load_prior, read_info
from pretrain.prior import priors_for, role_of
from pretrain.roles import APPEARANCE, MOTION, ROLES, SYNC, AppearancePrior, LiveMotion, MotionPrior, SyncPrior
from shards.features import Feature, open_feature
from shards.features.registry import check_revision

# The audio feature if no prior names one.
FEATURE = "logmel"


@dataclass(frozen=True)
class PriorFolder:
    """A prior that was found and not opened yet.

    Attributes:
        uri: what the user gave.
        folder: where it is.
        info: its ``prior.json``.
    """

    uri: str
    folder: Path
    info: PriorInfo

    @property
    def kind(self) -> str:
        """The prior's name, such as ``audio-expression``."""
        return str(self.info["prior"])

    @property
    def role(self) -> str:
        """Its role in an adaptation: ``motion``, ``appearance``, ``sync``, or an empty string."""
        return role_of(self.kind)

    def record(self) -> PriorRecord:
        """The avatar's record of it."""
        return PriorRecord(
            name=self.kind,
            role=self.role,
            version=_version(self.uri, self.info),
            sha256=self.info["weights_sha256"],
            uri=self.uri if self.uri.startswith(("models:/", "runs:/")) else str(self.folder.resolve()),
            features=self.info.get("features"),
            live=self.info.get("live"),
        )

    def check_revisions(self) -> None:
        """Refuse a prior that was trained on rows of another revision than those that this version computes.

        Raises:
            InputError: naming the prior, the feature and both revisions.
        """
        for record in (self.info.get("features"), self.info.get("live")):
            self._check_revision(record)

    def open(self, device: str) -> object:
        """The opened prior.

        Raises:
            InputError: damaged weights, or a regression for live use on rows of another revision.
        """
        prior = load_prior(self.folder, device)
        if isinstance(prior, LiveMotion) and (live := prior.live) is not None:  # earlier versions recorded none
            size = len(live.mean)
            self._check_revision(FeatureRecord(name=live.feature, size=size, weights=None, revision=live.revision))
        return prior

    def _check_revision(self, record: FeatureRecord | None) -> None:
        cure = "train it again on a dataset whose rows were made again (headstart shards build --out DATASET --features ...)"
        check_revision(record, f"prior '{self.uri}'", cure)


@dataclass
class Priors:
    """Opened priors, the avatar's record of each, and their folders, all by kind."""

    opened: dict[str, object] = field(default_factory=dict)
    records: dict[str, PriorRecord] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)

    @property
    def appearance(self) -> AppearancePrior | None:
        """The prior that knows what heads look like; ``None`` if none was given."""
        return cast("AppearancePrior | None", self._ready(APPEARANCE))

    @property
    def motion(self) -> MotionPrior | None:
        """The prior that knows how faces move to a voice."""
        return cast("MotionPrior | None", self._ready(MOTION))

    @property
    def sync(self) -> SyncPrior | None:
        """The prior that knows whether lips and sound belong together."""
        return cast("SyncPrior | None", self._ready(SYNC))

    def _ready(self, role: str) -> object | None:
        return next((prior for kind, prior in self.opened.items() if role_of(kind) == role), None)


def record_of(records: Mapping[str, PriorRecord] | None, role: str) -> PriorRecord | None:
    """The record of the prior with a role, ``None`` if there is none; avatars of earlier versions name no roles."""
    found = (records or {}).values()
    return next((record for record in found if (record.get("role") or role_of(record["name"])) == role), None)


def find_priors(spec: str | Path | None) -> list[PriorFolder]:
    """What ``--prior`` names, without opening it.

    Args:
        spec: ``none``; ``None`` for the registry's champions, where there are any; else a prior folder, a folder of
            prior folders, ``models:/NAME@alias``, ``models:/NAME/VERSION``, ``runs:/...``, or several, comma-separated.

    Raises:
        InputError: one of them is missing, or two are of the same kind or role.
    """
    if spec is None:
        places = champions_of(*ROLES)
    elif str(spec) == "none":
        places = []
    else:
        places = [(uri.strip(), folder) for uri in str(spec).split(",") for folder in _folders(uri.strip())]
    found = [PriorFolder(uri, folder, read_info(folder)) for uri, folder in places]
    taken: dict[str, PriorFolder] = {}
    for prior in found:
        first = taken.setdefault(prior.role or prior.kind, prior)
        if first is not prior:
            what = prior.kind if prior.kind == first.kind else f"{prior.role} ({first.kind}, {prior.kind})"
            raise InputError(f"prior '{prior.uri}': a second {what} prior; give one of each")
    return found


def champions_of(*roles: str) -> list[tuple[str, Path]]:
    """URI and folder of the registered champion of each role that has one.

    A champion that cannot be pulled is left out, and a line on stderr says why.

    Raises:
        InputError: two priors of one role have a champion.
    """
    found: list[tuple[str, Path]] = []
    troubles: dict[str, list[str]] = {}
    for role in roles:
        taken = []
        for name in priors_for(role):
            uri = f"models:/{name}@champion"
            try:
                taken.append((uri, Path(resolve(uri))))
            except NotRegistered:
                continue
            except (InputError, ImportError) as error:
                troubles.setdefault(str(error), []).append(uri)
        if len(taken) > 1:
            rivals = " and ".join(uri for uri, _ in taken)
            raise InputError(f"{rivals} take the same role, {role}; say with --prior which one to use")
        found += taken
    for trouble, uris in troubles.items():
        say(f"without {', '.join(uris)}: {trouble}")
    return found


def _folders(uri: str) -> list[Path]:
    folder = Path(uri)
    if not folder.is_dir():
        folder = Path(resolve(uri))
    if (folder / "prior.json").is_file():
        return [folder]
    inside = sorted(path.parent for path in folder.glob("*/prior.json"))
    if not inside:
        raise InputError(f"prior '{uri}': neither it nor its folders hold a prior.json; give what 'pretrain' wrote")
    return inside


def rig_and_feature(priors: Sequence[PriorFolder], before: AvatarDocument | None = None) -> tuple[Rig, Feature]:
    """The rig that an adaptation is tracked with and its audio feature: those of its priors, else the defaults.

    Args:
        before: the document of the avatar that is resumed, whose rig and feature stay.

    Raises:
        InputError: the priors do not fit each other or the avatar, or the rig or feature they need is missing.
    """
    for prior in priors:
        prior.check_revisions()
    infos = {f"{prior.kind} ({prior.uri})": prior.info for prior in priors}
    begun = None if before is None else before["features"]
    rigs = [rig for rig in [before["rig"] if before else {}, *(prior.info["rig"] for prior in priors)] if rig]
    features = [record for record in [begun, *(prior.info.get("features") for prior in priors)] if record]
    rig = open_rig(rigs[0]) if rigs else load_rig()
    check_compatible(infos, rig={"name": rig.name, "sha256": rig.sha256}, feature=begun)
    feature = open_feature(features[0] if features else FEATURE)
    feature.load()
    return rig, feature


def open_rig(record: Mapping[str, object]) -> Rig:
    """The rig of a record ``{"name", "sha256", "source"}``.

    Raises:
        InputError: it is missing, or has changed.
    """
    rig = load_rig(record.get("source") or record.get("name") or DEFAULT)
    if record.get("sha256") not in (None, rig.sha256):
        raise InputError(
            f"rig {record.get('name')} ({str(record['sha256'])[:12]}) is asked for, but {rig.name} is now "
            f"{rig.sha256[:12]}; use the version of headstart that made it, or train and adapt again"
        )
    return rig


def open_priors(found: Sequence[PriorFolder], device: str = "cpu") -> Priors:
    """Open the priors that were found.

    Raises:
        InputError: see :meth:`PriorFolder.open`.
    """
    return Priors(
        opened={prior.kind: prior.open(device) for prior in found},
        records={prior.kind: prior.record() for prior in found},
        folders={prior.kind: prior.folder for prior in found},
    )


def check_rig(uri: str, info: PriorInfo, rig: Rig) -> None:
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


def _version(uri: str, info: PriorInfo) -> str:
    for separator in ("@", "/"):
        if uri.startswith("models:/") and separator in uri.removeprefix("models:/"):
            return uri.rsplit(separator, 1)[1]
    return str(info.get("version") or info["weights_sha256"][:12])


def reopen_prior(record: PriorRecord, rig: Rig, device: str = "cpu", inside: Path | None = None) -> object:
    """The same prior that an avatar was adapted with: from ``inside`` its folder if self-contained, else by its URI.

    Raises:
        InputError: it is missing or has changed, or is for another rig.
    """
    where = inside if inside is not None and inside.is_dir() else record["uri"]
    try:
        prior = load_prior(where, device)
    except InputError as error:
        raise InputError(
            f"the avatar needs the {record['name']} prior '{record['uri']}', which cannot be opened ({error}); "
            "bring it back or adapt again with --self-contained"
        ) from None
    if prior.info["weights_sha256"] != record["sha256"]:
        raise InputError(
            f"the avatar needs the {record['name']} prior {record['sha256'][:12]}, but '{record['uri']}' is now "
            f"{prior.info['weights_sha256'][:12]}; give the prior it was adapted on, or adapt again"
        )
    check_rig(str(where), prior.info, rig)
    return prior
