"""``.ply`` as 3D Gaussian Splatting writes it: float32 columns, SH degree 0, logarithmic scales, opacity as logits.

Integer and byte columns are left out on purpose: some readers misalign rows over them, others take red, green and
blue for a point cloud. Source of the convention: Kerbl et al., 3D Gaussian Splatting (2023), reference code.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adapt.avatar.export.axes import OPENGL, checked_axes, half_turn, to_axes
from adapt.avatar.export.cloud import Cloud, colors_of
from adapt.avatar.export.files import RECORD_KEY, Record, as_json, parse_record, partial_file, statement
from configs import InputError

SUFFIXES = (".ply",)
# The convention names no axes; in these a head is upright and faces the viewer in Spark and three.js.
AXES = OPENGL
COLUMNS = (
    "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity",
    "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
)  # fmt: skip
_NEEDED = tuple(name for name in COLUMNS if not name.startswith("n"))


def write(path: str | Path, cloud: Cloud, record: Record, axes: str | None = None) -> None:
    """Write a cloud given in OpenCV axes, atomically.

    Args:
        record: see ``Provenance.as_dict``; goes into header comments.
        axes: ``opencv`` or ``opengl``; by default ``opengl``.
    """
    axes = checked_axes(axes, AXES)
    with partial_file(Path(path)) as partial, partial.open("wb") as file:
        file.write(header(cloud.n, record, axes))
        file.write(rows(to_axes(cloud, axes)).tobytes())


def header(count: int, record: Record, axes: str) -> bytes:
    """The header of a file with ``count`` Gaussians."""
    lines = ["ply", "format binary_little_endian 1.0", f"comment {statement(record)}"]
    lines += [f"comment {RECORD_KEY} {as_json(record, axes)}", f"comment axes {axes}", "comment units metres"]
    lines += [f"element vertex {count}", *(f"property float {name}" for name in COLUMNS), "end_header"]
    return ("\n".join(lines) + "\n").encode("ascii", "replace")


def rows(cloud: Cloud) -> np.ndarray:
    """The table ``[N, 17]`` little-endian float32, columns as in ``COLUMNS``."""
    table = np.zeros((cloud.n, len(COLUMNS)), "<f4")
    opacities = cloud.opacities.astype(np.float64)
    table[:, 0:3] = cloud.means
    table[:, 6:9] = cloud.f_dc
    table[:, 9] = np.log(opacities / (1 - opacities))
    table[:, 10:13] = np.log(cloud.scales)
    table[:, 13:17] = cloud.quats
    return table


def read(path: str | Path) -> Cloud:
    """The cloud of a binary little-endian PLY of float columns, in OpenCV axes where its comments name axes.

    Raises:
        InputError: another kind of PLY, a column missing, or a file cut short.
    """
    data = Path(path).read_bytes()
    lines, at = _header_lines(path, data)
    columns = _columns(path, lines, data, at)
    cloud = Cloud.make(
        np.stack([columns[name] for name in ("x", "y", "z")], 1),
        np.stack([columns[f"rot_{i}"] for i in range(4)], 1),
        np.exp(np.stack([columns[f"scale_{i}"] for i in range(3)], 1)),
        1 / (1 + np.exp(-columns["opacity"].astype(np.float64))),
        colors_of(np.stack([columns[f"f_dc_{i}"] for i in range(3)], 1)),
    )
    return half_turn(cloud) if f"comment axes {OPENGL}" in lines else cloud


def read_record(path: str | Path) -> dict[str, object] | None:
    """A file's provenance record; ``None`` if it has none.

    Raises:
        InputError: no PLY header in its first 64 KiB.
    """
    with Path(path).open("rb") as file:
        data = file.read(65536)
    mark = f"comment {RECORD_KEY} "
    header, end, _ = data.partition(b"end_header")
    if not header.startswith(b"ply") or not end:
        raise InputError(f"{path}: no PLY header; the file is broken or of another kind")
    lines = header.decode("ascii", "replace").splitlines()
    return next((parse_record(line.removeprefix(mark)) for line in lines if line.startswith(mark)), None)


def _header_lines(path: str | Path, data: bytes) -> tuple[list[str], int]:
    """The header's lines and where the rows begin."""
    mark = b"end_header\n"
    end = data.find(mark)
    if not data.startswith(b"ply") or end < 0:
        raise InputError(f"{path}: no PLY header; expected a file written by headstart export")
    return data[:end].decode("ascii", "replace").splitlines(), end + len(mark)


def _columns(path: str | Path, lines: list[str], data: bytes, at: int) -> dict[str, np.ndarray]:
    """The columns ``[N]`` by name."""
    properties = [line.split() for line in lines if line.startswith("property ")]
    if "format binary_little_endian 1.0" not in lines or any(words[1] != "float" for words in properties):
        raise InputError(f"{path}: expected a binary little-endian PLY of float columns only")
    names = [words[2] for words in properties]
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise InputError(f"{path}: column '{missing[0]}' is missing; expected {', '.join(_NEEDED)}")
    count = int(next((line.split()[2] for line in lines if line.startswith("element vertex ")), "0"))
    if len(data) - at < count * len(names) * 4:
        raise InputError(
            f"{path}: cut short: {count} Gaussians announced, {len(data) - at} bytes of rows; copy it again"
        )
    table = np.frombuffer(data, "<f4", count * len(names), at).reshape(count, len(names))
    return {name: table[:, i] for i, name in enumerate(names)}
