"""A finished output signed, where the user has a certificate."""

from __future__ import annotations

from pathlib import Path

from adapt.avatar.avatar import Avatar
from adapt.avatar.provenance import Provenance
from adapt.marking.certificates import Credentials
from adapt.marking.sign import Claim, Ingredient, sign_file
from configs.machine import package_version


def sign_talk(
    path: str | Path, credentials: Credentials, avatar: Avatar, provenance: Provenance, sources: tuple[Path, ...] = ()
) -> None:
    """Sign a talking video: real footage's likeness and a driving voice make it a composite.

    Args:
        sources: files that went into it and may carry a manifest of their own.

    Raises:
        InputError: as :func:`adapt.marking.sign.sign_file`.
    """
    record, document = provenance.as_dict(), avatar.document
    ingredients = [
        Ingredient(title="training clip", sha256=document["provenance"]["video_sha256"], media_type="video/mp4")
    ]
    ingredients += [
        Ingredient(title=f"prior {name} {prior['version']}", sha256=prior["sha256"])
        for name, prior in (document.get("priors") or {}).items()
    ]
    claim = Claim(
        title=Path(path).name,
        provenance=dict(record),
        composite=True,
        ingredients=ingredients,
        sources=sources,
        watermark=provenance.watermark or None,
        version=package_version(),
    )
    sign_file(path, credentials, claim)
