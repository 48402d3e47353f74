"""Writes the folder of an avatar's page: ``index.html``, its modules, and the avatar as ``avatar.js``.

Browsers that open a page from disk load scripts, but neither modules nor binary files. So the avatar is a script, which
holds the document as JSON and the arrays as base64 of gzip, and ``offline.js`` contains the modules a second time.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import os
import re
import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from adapt.avatar.avatar import Avatar
from adapt.web import contents
from adapt.web.arrays import Document, Packer
from adapt.web.sound import SoundFiles, sound_files
from cluster.storage.staging import not_replaceable
from configs import InputError
from shards.media.rates import FPS

FORMAT = "headstart-web/1"
IMPORT = re.compile(r'^import .*? from "\./([\w.-]+)";', re.MULTILINE | re.DOTALL)
DOCUMENT = "avatar.js"
ENTRY, BOOT = "main.js", "boot.js"
GZIP = 4  # zlib level; of 57,700 Gaussians 9 takes 0.54 CPU s and 4 takes 0.35, for 0.3 % more bytes


@dataclass(frozen=True)
class Written:
    """A page: its ``files`` (name to bytes on disk), how many ``gaussians``, and the ``driver`` that moves the lips."""

    files: dict[str, int]
    gaussians: int
    driver: str


def write_web(
    folder: str | Path,
    avatar: Avatar,
    record: Document,
    *,
    onnxruntime: str | Path | None = None,
    overwrite: bool = False,
) -> Written:
    """Write the page of an avatar; the folder appears when it is complete.

    Args:
        folder: must not exist, or be a page that ``overwrite`` may replace.
        record: ``Provenance.as_dict()`` of the head.
        onnxruntime: where npm put ``onnxruntime-web``, for an avatar that is driven by a prior; without it, the page
            uses the avatar's regression.

    Raises:
        InputError: the folder exists, or the avatar's recipe cannot run in a page.
    """
    folder = Path(folder)
    if folder.exists() and not overwrite:
        raise InputError(f"output '{folder}' exists; choose another name, remove it or pass --overwrite")
    if folder.exists() and not ((folder / DOCUMENT).is_file() and (folder / "index.html").is_file()):
        raise not_replaceable(folder, folder.is_dir(), f"index.html and {DOCUMENT}")
    spoken = sound_files(avatar, onnxruntime)
    document, packed = describe(avatar, record, spoken)
    partial, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{kind}") for kind in ("partial", "old"))
    partial.mkdir(parents=True)
    try:
        for name, content in {**page_files(document, packed, record), **spoken.files}.items():
            (partial / name).write_bytes(content)
        if folder.exists():
            os.replace(folder, old)
        os.replace(partial, folder)
    finally:
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    return Written(files, len(contents.rigged(avatar).talking.uv.triangles), spoken.name)


def describe(avatar: Avatar, record: Document, spoken: SoundFiles) -> tuple[Document, bytes]:
    """The document, and the bytes of its arrays."""
    packer = Packer()
    for name, array in spoken.arrays.items():
        packer.add(name, array)
    head, model = contents.add_head(packer, avatar), avatar.model
    fx, fy, cx, cy = (float(model.intrinsics[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    document: Document = {
        "format": FORMAT,
        "name": avatar.name,
        "size": avatar.size,
        "fps": FPS,
        "intrinsics": [fx, fy, cx, cy],
        "plain": contents.plain_color(),
        "record": record,
        "head": head,
        "driver": {**contents.add_driver(packer, avatar), **spoken.document},
        "poses": contents.add_poses(packer, avatar),
        "blinks": contents.blink_table(),
        "controls": contents.control_table(avatar),
        "arkit": contents.add_arkit(packer, avatar),
        "entries": packer.entries,
    }
    return document, packer.content()


def page_files(document: Document, packed: bytes, record: Document) -> dict[str, bytes]:
    """Every file of the folder by name."""
    page = resources.files("adapt.web") / "page"
    files = {item.name: item.read_bytes() for item in page.iterdir() if item.name.endswith((".js", ".css"))}
    modules = {name: files[name].decode() for name in files if name.endswith(".js") and name != BOOT}
    files["offline.js"] = script(
        "HEADSTART_MODULES", {k: _packed(v.encode()) for k, v in in_import_order(modules).items()}
    )
    files[DOCUMENT] = script("HEADSTART_AVATAR", {"document": document, "arrays": _packed(packed)})
    files["index.html"] = _filled((page / "index.html").read_text(), document, record).encode()
    return files


def script(name: str, value: object) -> bytes:
    """A script that sets a global variable to a value."""
    return f"self.{name} = {json.dumps(value, separators=(',', ':'))};\n".encode()


def _filled(page: str, document: Document, record: Document) -> str:
    values = {"NAME": document["name"], "STATEMENT": record["statement"], "TOOL": record["tool"]}
    for key, value in values.items():
        page = page.replace(f"@@{key}@@", html.escape(str(value), quote=True))
    return page


def in_import_order(modules: dict[str, str]) -> dict[str, str]:
    """Modules, each after those that it imports; those that ``main.js`` does not reach are left out.

    Raises:
        ValueError: modules that import each other.
    """
    ordered: dict[str, str] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"modules import each other: {' > '.join((*above, name))}")
        if name not in ordered:
            for other in IMPORT.findall(modules[name]):
                visit(other, (*above, name))
            ordered[name] = modules[name]

    visit(ENTRY, ())
    return ordered


def _packed(content: bytes) -> str:
    # No time stamp: the same avatar gives the same bytes.
    return base64.b64encode(gzip.compress(content, GZIP, mtime=0)).decode()
