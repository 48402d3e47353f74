"""``.glb``: binary glTF 2.0 with the ratified extension ``KHR_gaussian_splatting``.

Scales are linear, opacities are after the sigmoid, quaternions are xyzw and unit, colour is SH degree 0. ``COLOR_0``
lets a viewer without the extension show coloured points.
Source: Khronos, glTF 2.0 specification (4.4, GLB) and extensions/2.0/Khronos/KHR_gaussian_splatting.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from adapt.avatar.export.axes import OPENGL, checked_axes, half_turn, to_axes
from adapt.avatar.export.cloud import Cloud, colors_of
from adapt.avatar.export.files import Record, as_json, partial_file
from configs import InputError

SUFFIXES = (".glb",)
AXES = OPENGL  # glTF 2.0, 3.4: +Y up, the front of an asset faces +Z
EXTENSION = "KHR_gaussian_splatting"
_MAGIC, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_POINTS, _FLOAT, _BYTE, _ARRAY_BUFFER = 0, 5126, 5121, 34962
_TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
_NAMES = {
    "means": "POSITION",
    "quats": f"{EXTENSION}:ROTATION",
    "scales": f"{EXTENSION}:SCALE",
    "opacities": f"{EXTENSION}:OPACITY",
    "f_dc": f"{EXTENSION}:SH_DEGREE_0_COEF_0",
}


def write(path: str | Path, cloud: Cloud, record: Record, axes: str | None = None) -> None:
    """Write a cloud given in OpenCV axes, atomically.

    Args:
        record: see ``Provenance.as_dict``; goes into ``asset.extras``.
        axes: ``opengl`` is the standard and the default; ``opencv`` leaves the head's own axes.
    """
    axes = checked_axes(axes, AXES)
    turned = to_axes(cloud, axes)
    attributes = {
        _NAMES["means"]: turned.means,
        _NAMES["quats"]: np.roll(turned.quats, -1, axis=1),
        _NAMES["scales"]: turned.scales,
        _NAMES["opacities"]: turned.opacities[:, None],
        _NAMES["f_dc"]: turned.f_dc,
        "COLOR_0": _fallback_colors(turned),
    }
    document, binary = _document(attributes, record, axes)
    with partial_file(Path(path)) as partial:
        partial.write_bytes(_packed(document, binary))


def _fallback_colors(cloud: Cloud) -> np.ndarray:
    """RGBA ``[N, 4]`` bytes for viewers without the extension; glTF's vertex colours are linear."""
    srgb = cloud.colors.astype(np.float64)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.round(255 * np.concatenate([linear, cloud.opacities[:, None]], 1)).astype(np.uint8)


def _document(attributes: dict[str, np.ndarray], record: Record, axes: str) -> tuple[dict[str, object], bytes]:
    """The JSON and the buffer; every array has a view of its own, at a multiple of four bytes."""
    views, accessors, chunks, offset = [], [], [], 0
    for array in attributes.values():
        data = np.ascontiguousarray(array, None if array.dtype == np.uint8 else "<f4").tobytes()
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": len(data), "target": _ARRAY_BUFFER})
        accessors.append(_accessor(len(views) - 1, array))
        chunks.append(data)
        offset += len(data)  # a multiple of four: rows of four bytes or of floats
    primitive = {
        "mode": _POINTS,
        "attributes": {name: index for index, name in enumerate(attributes)},
        "extensions": {
            EXTENSION: {
                "kernel": "ellipse",
                "colorSpace": "srgb_rec709_display",
                "projection": "perspective",
                "sortingMethod": "cameraDistance",
            }
        },
    }
    document = {
        "asset": {
            "version": "2.0",
            "generator": str(record.get("tool") or "headstart"),
            "extras": json.loads(as_json(record, axes)),
        },
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "head"}],
        "meshes": [{"primitives": [primitive], "name": "head"}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": offset}],
    }
    return document, b"".join(chunks)


def _accessor(view: int, array: np.ndarray) -> dict[str, object]:
    accessor: dict[str, object] = {"bufferView": view, "count": len(array), "type": _TYPES[array.shape[1]]}
    if array.dtype == np.uint8:
        return {**accessor, "componentType": _BYTE, "normalized": True}
    low, high = array.min(0), array.max(0)
    return {
        **accessor,
        "componentType": _FLOAT,
        "min": [float(value) for value in low.astype(np.float32)],
        "max": [float(value) for value in high.astype(np.float32)],
    }


def _packed(document: dict[str, object], binary: bytes) -> bytes:
    """A GLB container: header, JSON chunk padded with spaces, binary chunk padded with zeros."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    whole = 12 + 8 + len(text) + 8 + len(binary)
    head = struct.pack("<III", _MAGIC, 2, whole) + struct.pack("<II", len(text), _JSON)
    return head + text + struct.pack("<II", len(binary), _BIN) + binary


def read(path: str | Path) -> Cloud:
    """The cloud of a GLB with one Gaussian primitive, in OpenCV axes.

    Raises:
        InputError: not a GLB, no Gaussian primitive, an attribute that is missing or of another type.
    """
    document, binary = _opened(path)
    primitives = [part for mesh in document.get("meshes", []) for part in mesh.get("primitives", [])]
    found = next((part for part in primitives if EXTENSION in part.get("extensions", {})), None)
    if found is None:
        raise InputError(f"{path}: no primitive with {EXTENSION}; expected a GLB of Gaussians")
    parts = {key: _attribute(path, document, binary, found["attributes"], name) for key, name in _NAMES.items()}
    cloud = Cloud.make(
        parts["means"],
        np.roll(parts["quats"], 1, axis=1),
        parts["scales"],
        parts["opacities"][:, 0],
        colors_of(parts["f_dc"]),
    )
    turned = document.get("asset", {}).get("extras", {}).get("axes", AXES) == OPENGL
    return half_turn(cloud) if turned else cloud


def read_record(path: str | Path) -> dict[str, object] | None:
    """A file's provenance record; ``None`` if it has none.

    Raises:
        InputError: not a GLB.
    """
    extras = _opened(path)[0].get("asset", {}).get("extras")
    return extras if isinstance(extras, dict) else None


def _opened(path: str | Path) -> tuple[dict[str, Any], bytes]:
    """The JSON document and the binary chunk."""
    data = Path(path).read_bytes()
    if len(data) < 28 or struct.unpack_from("<II", data) != (_MAGIC, 2):
        raise InputError(f"{path}: no binary glTF 2.0")
    length, kind = struct.unpack_from("<II", data, 12)
    start = 20 + length
    if kind != _JSON or struct.unpack_from("<I", data, 8)[0] != len(data) or start + 8 > len(data):
        raise InputError(f"{path}: its chunks do not add up to its length; copy it again")
    return json.loads(data[20:start]), data[start + 8 :]


def _attribute(
    path: str | Path, document: dict[str, Any], binary: bytes, attributes: dict[str, int], name: str
) -> np.ndarray:
    """A float attribute ``[N, width]``."""
    if name not in attributes:
        raise InputError(f"{path}: attribute {name} is missing")
    accessor = document["accessors"][attributes[name]]
    view = document["bufferViews"][accessor["bufferView"]]
    widths = {kind: width for width, kind in _TYPES.items()}
    if accessor["componentType"] != _FLOAT or "byteStride" in view:
        raise InputError(f"{path}: attribute {name}: expected tightly packed floats")
    width, count = widths[accessor["type"]], accessor["count"]
    offset = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    return np.frombuffer(binary, "<f4", count * width, offset).reshape(count, width)
