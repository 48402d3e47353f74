"""Signs a finished output, if the user has a certificate."""

from __future__ import annotations

from pathlib import Path

from adapt.avatar.avatar import Avatar
from adapt.avatar.provenance import Provenance
from adapt.marking.certificates import Credentials
from adapt.marking.sign import EMBEDDED, Claim, Ingredient, sign_file
from configs.machine import package_version


def sign_talk(
    path: str | Path, credentials: Credentials, avatar: Avatar, provenance: Provenance, sources: tuple[Path, ...] = ()
) -> None:
    """Sign a talking video, or the pictures and the sound of a folder of frames.

    The manifest calls it a composite, because it shows a real person's likeness and may contain a real voice.

    Args:
        sources: files that it was made from and that may carry a manifest of their own.

    Raises:
        InputError: as :func:`adapt.marking.sign.sign_file`.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.suffix.lower() in EMBEDDED)
    for file in files:
        sign_file(file, credentials, _claim(file, avatar, provenance, sources, composite=True))


def sign_export(path: str | Path, credentials: Credentials, avatar: Avatar, provenance: Provenance) -> None:
    """Put a signed manifest beside an exported head, or beside every head of a folder.

    Raises:
        InputError: as :func:`adapt.marking.sign.sign_file`.
    """
    path = Path(path)
    for file in [path] if path.is_file() else sorted(path.glob("*.ply")):
        sign_file(file, credentials, _claim(file, avatar, provenance, (), composite=False))


def _claim(file: Path, avatar: Avatar, provenance: Provenance, sources: tuple[Path, ...], *, composite: bool) -> Claim:
    """What the signature vouches for: the statement, and the training clip and the priors by hash."""
    document = avatar.document
    ingredients = [
        Ingredient(title="training clip", sha256=document["provenance"]["video_sha256"], media_type="video/mp4")
    ]
    ingredients += [
        Ingredient(title=f"prior {name} {prior['version']}", sha256=prior["sha256"])
        for name, prior in (document.get("priors") or {}).items()
    ]
    return Claim(
        title=file.name,
        provenance=dict(provenance.as_dict()),
        composite=composite,
        ingredients=ingredients,
        sources=sources,
        watermark=provenance.watermark or None,
        version=package_version(),
    )
