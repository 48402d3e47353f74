"""Writes and reads signed manifests (C2PA) of what Headstart made. The only module that uses ``c2pa``.

The formats of ``EMBEDDED`` carry the manifest inside. PLY, GLB, SPZ and USD cannot: theirs is ``FILE.c2pa`` beside them.
A manifest takes about 3 kB. It is lost when the file is re-encoded or remuxed; the watermark is not.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from adapt.marking.certificates import INSTALL, Credentials
from configs import InputError
from configs.words import shortened
from shards.media.inspect import MODELS

if TYPE_CHECKING:
    import c2pa

EMBEDDED = {
    ".mp4": "video/mp4",
    ".m4v": "video/x-m4v",
    ".mov": "video/quicktime",
    ".wav": "audio/wav",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".m4a": "audio/mp4",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
}
SIDECAR, SIDECAR_SUFFIX = "application/octet-stream", ".c2pa"
ASSERTION = "org.headstart.provenance"
IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TRAINED, COMPOSITE = "trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"
# A time-stamping authority is contacted only if the user names one: nothing else leaves the machine.
TIMESTAMP_VARIABLE = "HEADSTART_SIGN_TIMESTAMP"
_SETTINGS = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}


@dataclass(frozen=True, kw_only=True)
class Ingredient:
    """What a file was made from, known by its hash alone.

    Attributes:
        title: such as ``training clip`` or ``prior expression-visual 3``.
        sha256: of the file or the weights.
        media_type: such as ``video/mp4``.
    """

    title: str
    sha256: str
    media_type: str = SIDECAR


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a signature vouches for.

    Attributes:
        title: name of the signed file.
        provenance: the statement that the container carries too.
        composite: whether it contains real footage or a real voice (a body, a background, the driving speech).
        ingredients: known by hash.
        sources: files that may carry a manifest of their own, which is included.
        watermark: payload of the watermark in the pictures, eight hex digits.
        tool, version: what made the file.
    """

    title: str
    provenance: dict[str, object]
    composite: bool
    ingredients: Sequence[Ingredient] = ()
    sources: Sequence[Path] = ()
    watermark: str | None = None
    tool: str = "headstart"
    version: str = ""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a file's manifest says.

    Attributes:
        state: the library's word: ``Trusted``, ``Valid`` (unchanged, signer not on a trust list) or ``Invalid``.
        signer: whom the certificate names.
        source_type: last part of IPTC's digital source type, empty if none is given.
        provenance: the statement, where Headstart made the file.
        problems: codes of what failed or is not trusted.
    """

    state: str
    signer: str
    source_type: str
    provenance: dict[str, object] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def synthetic(self) -> bool:
        """Whether an unchanged manifest says that a model made the file or a part of it."""
        return self.state in ("Valid", "Trusted") and self.source_type in (TRAINED, COMPOSITE)


def available() -> bool:
    """Whether ``c2pa-python`` is installed."""
    try:
        import c2pa  # noqa: F401
    except ImportError:
        return False
    return True


def sign_file(path: str | Path, credentials: Credentials, claim: Claim) -> Path:
    """Sign a finished file in place, or put ``FILE.c2pa`` beside one that cannot carry a manifest.

    Returns:
        The file that holds the manifest.

    Raises:
        InputError: c2pa-python is missing, the format cannot be signed, or the library refuses the certificate.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; sign what was written")
    suffix = path.suffix.lower()
    if suffix not in EMBEDDED and suffix not in MODELS:
        known = ", ".join(sorted([*EMBEDDED, *MODELS]))
        raise InputError(f"{path}: files of this kind cannot be signed; expected one of {known}")
    library = _library()
    try:
        builder = _builder(library, credentials, claim)
        return _sign_inside(builder, path) if suffix in EMBEDDED else _sign_beside(builder, path)
    except library.C2paError as error:
        raise InputError(f"{path}: the C2PA library refuses to sign ({_short(error)})") from None


def sidecar_of(path: Path) -> Path:
    """Path of the manifest of a file that cannot carry one: ``FILE.c2pa``."""
    return path.with_name(path.name + SIDECAR_SUFFIX)


def read_manifest(path: str | Path) -> Manifest | None:
    """The manifest beside a file or in it, ``None`` if there is none; a broken one has the state ``Invalid``.

    Raises:
        InputError: c2pa-python is missing.
    """
    path, library = Path(path), _library()
    context = library.Context.from_dict(_SETTINGS)
    media_type = EMBEDDED.get(path.suffix.lower())
    beside = sidecar_of(path)
    try:
        if beside.is_file():
            with path.open("rb") as stream:
                return _manifest(library.Reader(SIDECAR, stream, beside.read_bytes(), context=context))
        if media_type is None:
            return None
        with path.open("rb") as stream:
            return _manifest(library.Reader(media_type, stream, context=context))
    except library.C2paError as error:
        if "ManifestNotFound" in f"{type(error).__name__} {error}":
            return None
        return Manifest(state="Invalid", signer="", source_type="", problems=(_short(error),))


def _library() -> ModuleType:
    try:
        import c2pa
    except ImportError:
        raise InputError(f"signed manifests need c2pa-python, which is not installed; {INSTALL}") from None
    return c2pa


# --- writing --------------------------------------------------------------------------------------------------------


def _builder(library: ModuleType, credentials: Credentials, claim: Claim) -> c2pa.Builder:
    timestamp = os.environ.get(TIMESTAMP_VARIABLE)
    information = library.C2paSignerInfo(
        credentials.algorithm.encode(),
        credentials.chain.encode(),
        credentials.key.encode(),
        timestamp.encode() if timestamp else None,
    )
    # Settings count only through a context.
    context = library.Context.from_dict(_SETTINGS, signer=library.Signer.from_info(information))
    builder = library.Builder(json.dumps(_definition(claim)), context=context)
    kinds = library.C2paDigitalSourceType
    source = kinds.COMPOSITE_WITH_TRAINED_ALGORITHMIC_MEDIA if claim.composite else kinds.TRAINED_ALGORITHMIC_MEDIA
    builder.set_intent(library.C2paBuilderIntent.CREATE, source)
    for path in claim.sources:
        _add_source(library, builder, path)
    if claim.watermark:
        words = f"invisible watermark of the pictures, payload {claim.watermark}"
        builder.add_action({"action": "c2pa.watermarked.unbound", "parameters": {"description": words}})
    return builder


def _definition(claim: Claim) -> dict[str, object]:
    generator = {"name": claim.tool, **({"version": claim.version} if claim.version else {})}
    return {
        "claim_generator_info": [generator],
        "title": claim.title,
        "assertions": [{"label": ASSERTION, "data": claim.provenance}],
        "ingredients": [
            {
                "title": ingredient.title,
                "format": ingredient.media_type,
                "instance_id": f"sha256:{ingredient.sha256}",
                "relationship": "inputTo",
                "description": f"SHA-256 {ingredient.sha256}",
            }
            for ingredient in claim.ingredients
        ],
    }


def _add_source(library: ModuleType, builder: c2pa.Builder, path: Path) -> None:
    """A file that went into this one, with the manifest that it carries; without one it adds nothing."""
    media_type = EMBEDDED.get(path.suffix.lower())
    if media_type is None or read_manifest(path) is None:
        return
    with path.open("rb") as stream:
        builder.add_ingredient(json.dumps({"title": path.name, "relationship": "inputTo"}), media_type, stream)


def _sign_inside(builder: c2pa.Builder, path: Path) -> Path:
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        with path.open("rb") as source, partial.open("w+b") as target:
            builder.sign(EMBEDDED[path.suffix.lower()], source, target)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _sign_beside(builder: c2pa.Builder, path: Path) -> Path:
    target = sidecar_of(path)
    builder.set_no_embed()
    with path.open("rb") as source:
        manifest = builder.sign(SIDECAR, source, io.BytesIO())
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(manifest)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target


# --- reading --------------------------------------------------------------------------------------------------------


def _manifest(reader: c2pa.Reader) -> Manifest:
    document = json.loads(reader.json())
    active = document["manifests"][document["active_manifest"]]
    signature = active.get("signature_info") or {}
    signer = ", ".join(str(signature[key]) for key in ("common_name", "issuer") if signature.get(key))
    problems = tuple(status["code"] for status in document.get("validation_status") or ())
    return Manifest(
        state=str(reader.get_validation_state()),
        signer=signer,
        source_type=_source_type(active),
        provenance=_assertion(active, ASSERTION),
        problems=problems,
    )


def _source_type(manifest: Mapping[str, object]) -> str:
    for label in ("c2pa.actions.v2", "c2pa.actions"):
        actions = _assertion(manifest, label).get("actions")
        for action in actions if isinstance(actions, list) else ():
            if "digitalSourceType" in action:
                return str(action["digitalSourceType"]).rsplit("/", 1)[-1]
    return ""


def _assertion(manifest: Mapping[str, object], label: str) -> dict[str, object]:
    assertions = manifest.get("assertions")
    for assertion in assertions if isinstance(assertions, list) else ():
        if assertion.get("label") == label and isinstance(assertion.get("data"), dict):
            return dict(assertion["data"])
    return {}


def _short(error: Exception) -> str:
    return shortened(error) or type(error).__name__
