"""``export --web``: writes an avatar as a web page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from adapt.avatar.avatar import load_avatar
from adapt.outputs import check_changeable, claim
from adapt.web.folder import DOCUMENT, write_web
from cluster.storage.staging import staged


@staged(reads=("avatar", "onnxruntime"), writes="out", mark=DOCUMENT)
def export_web(
    avatar: str | Path,
    out: str | Path,
    *,
    onnxruntime: str | Path | None = None,
    prior: str | Path | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> dict[str, object]:
    """Write a folder of static files in which an avatar speaks in a browser, without a server or a network.

    Args:
        avatar: its folder; this and ``out`` may be ``s3://`` URLs.
        out: the folder to write.
        onnxruntime: the npm folder of ``onnxruntime-web``, for avatars that are driven by a prior.
        prior: new location of the avatar's audio-expression prior, if it was moved.
        overwrite: replace an existing page.

    Returns:
        ``out``, ``gaussians``, ``driver`` (what moves the lips in the page), ``bytes`` and ``files`` (name to bytes).

    Raises:
        InputError: a recipe or audio features that a page cannot run, a missing prior, no onnxruntime-web where it is
            needed, or output that exists.
    """
    if Path(str(out)).exists():
        check_changeable(Path(str(out)))
    else:
        out = claim(out)
    opened = load_avatar(avatar, device, prior=prior)
    provenance = opened.provenance("")
    record = {**provenance.as_dict(), "statement": provenance.statement().replace("Synthetic video", "Synthetic head")}
    written = write_web(out, opened, record, onnxruntime=onnxruntime, overwrite=overwrite)
    return {"out": str(out), "bytes": sum(written.files.values()), **asdict(written)}
