"""``.spz`` version 3: 20 bytes per Gaussian before gzip, in the order of the cloud.

Version 4 (Zstandard) is not written, because Spark 2.2 and gsplat2USD cannot read it.
Layout after decompression: a header of 16 bytes, then for all Gaussians positions (24-bit fixed point), opacities
(8 bits), colours (8 bits), log scales (8 bits) and rotations (smallest three, 10 bits each, and 2 bits that name the
largest). Source: github.com/nianticlabs/spz, README and load-spz.cc.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from adapt.avatar.export.axes import OPENGL, checked_axes, half_turn, to_axes
from adapt.avatar.export.cloud import SH_C0, Cloud, colors_of
from adapt.avatar.export.files import Record, as_json, parse_record, partial_file
from configs import InputError

SUFFIXES = (".spz",)
AXES = OPENGL  # SPZ calls them RUB: right, up, back
_MAGIC, _VERSION = 0x5053474E, 3
_HEADER = struct.Struct("<IIIBBBB")  # magic, version, count, SH degree, fractional bits, flags, reserved
_MOST_FRACTIONAL_BITS = 20  # a millionth of a metre, up to 8 m from the origin
_COLOR_SCALE = 0.15  # f_dc * this + 0.5 fills a byte
_SCALE_STEPS, _SCALE_SHIFT = 16.0, 10.0  # byte = (log scale + 10) * 16
_LARGEST = 511 * np.sqrt(2)  # nine bits of magnitude over 1/sqrt(2), which no smaller component exceeds
_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])  # per largest component of xyzw
_GZIP_COMMENT = 0x10


def write(path: str | Path, cloud: Cloud, record: Record, axes: str | None = None) -> None:
    """Write a cloud given in OpenCV axes, atomically.

    Args:
        record: see ``Provenance.as_dict``; goes into the comment of the gzip header, which readers skip.
        axes: ``opengl`` is the standard and the default; ``opencv`` leaves the head's own axes.

    Raises:
        InputError: a Gaussian farther than 8 km from the origin.
    """
    axes = checked_axes(axes, AXES)
    data = packed(to_axes(cloud, axes))
    with partial_file(Path(path)) as partial:
        partial.write_bytes(_gzip(data, as_json(record, axes)))


def packed(cloud: Cloud) -> bytes:
    """The file's content before compression."""
    bits = _fractional_bits(cloud.means)
    fixed = np.round(cloud.means.astype(np.float64) * (1 << bits)).astype("<i4")
    positions = fixed.view(np.uint8).reshape(cloud.n, 3, 4)[..., :3]
    opacities = np.round(cloud.opacities.astype(np.float64) * 255)
    colors = np.round((cloud.f_dc.astype(np.float64) * _COLOR_SCALE + 0.5) * 255)
    scales = np.round((np.log(cloud.scales.astype(np.float64)) + _SCALE_SHIFT) * _SCALE_STEPS)
    parts = [positions, *(np.clip(part, 0, 255).astype(np.uint8) for part in (opacities, colors, scales))]
    header = _HEADER.pack(_MAGIC, _VERSION, cloud.n, 0, bits, 0, 0)
    return header + b"".join(part.tobytes() for part in parts) + _smallest_three(cloud.quats).tobytes()


def _fractional_bits(means: np.ndarray) -> int:
    """As many bits below the point as 24-bit positions leave room for."""
    reach = float(np.abs(means).max(initial=0.0))
    bits = next((b for b in range(_MOST_FRACTIONAL_BITS, 9, -1) if round(reach * (1 << b)) < 1 << 23), None)
    if bits is None:
        raise InputError(f"SPZ: a Gaussian lies {reach:.0f} m from the origin; expected a head within 8 km")
    return bits


def _smallest_three(quats: np.ndarray) -> np.ndarray:
    """Unit quaternions wxyz ``[N, 4]`` as ``[N]`` 32-bit words."""
    xyzw = np.roll(quats.astype(np.float64), -1, axis=1)
    largest = np.abs(xyzw).argmax(1)
    xyzw *= np.where(np.take_along_axis(xyzw, largest[:, None], 1) < 0, -1.0, 1.0)  # q and -q are the same rotation
    small = np.take_along_axis(xyzw, _OTHERS[largest], 1)
    magnitude = np.minimum(np.round(np.abs(small) * _LARGEST), 511).astype(np.uint32)
    fields = magnitude | (small < 0).astype(np.uint32) << 9
    word = largest.astype(np.uint32) << 30 | fields[:, 0] << 20 | fields[:, 1] << 10 | fields[:, 2]
    return word.astype("<u4")


def _gzip(data: bytes, comment: str) -> bytes:
    """A gzip member with a comment and without a time, so that equal heads give equal files."""
    head = b"\x1f\x8b\x08" + bytes([_GZIP_COMMENT]) + b"\0\0\0\0" + b"\0\xff" + comment.encode("latin-1") + b"\0"
    deflate = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflate.compress(data) + deflate.flush()
    return head + body + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def read(path: str | Path) -> Cloud:
    """The cloud of a version 3 file, in OpenCV axes; spherical harmonics beyond degree 0 are ignored.

    Raises:
        InputError: not an SPZ file, another version, or a file cut short.
    """
    raw = Path(path).read_bytes()
    data = _unpacked(path, raw)
    magic, version, count, _, bits, _, _ = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != _VERSION:
        raise InputError(f"{path}: expected SPZ version {_VERSION}, got version {version}")
    if len(data) < _HEADER.size + 20 * count:
        raise InputError(f"{path}: cut short: {count} Gaussians announced, {len(data)} bytes; copy it again")
    sections = np.split(np.frombuffer(data, np.uint8, 20 * count, _HEADER.size), np.cumsum([9, 1, 3, 3]) * count)
    positions, opacities, colors, scales, rotations = sections
    cloud = Cloud.make(
        _from_fixed(positions.reshape(count, 3, 3), bits),
        _from_smallest_three(rotations.copy().view("<u4")),
        np.exp(scales.reshape(count, 3) / _SCALE_STEPS - _SCALE_SHIFT),
        opacities / 255,
        colors_of((colors.reshape(count, 3) / 255 - 0.5) / _COLOR_SCALE),
    )
    record = _comment(raw)
    return cloud if record is not None and record.get("axes") != OPENGL else half_turn(cloud)


def read_record(path: str | Path) -> dict[str, object] | None:
    """A file's provenance record; ``None`` if it has none."""
    with Path(path).open("rb") as file:
        return _comment(file.read(65536))


def _comment(raw: bytes) -> dict[str, object] | None:
    """The record in a gzip header without extra field or name."""
    if raw[:4] != b"\x1f\x8b\x08" + bytes([_GZIP_COMMENT]):
        return None
    return parse_record(raw[10 : raw.find(b"\0", 10)].decode("latin-1"))


def _unpacked(path: str | Path, raw: bytes) -> bytes:
    try:
        data = zlib.decompress(raw, 16 + zlib.MAX_WBITS)
    except zlib.error as error:
        raise InputError(f"{path}: no gzip file ({error}); expected SPZ version {_VERSION}") from None
    if len(data) < _HEADER.size:
        raise InputError(f"{path}: no SPZ header")
    return data


def _from_fixed(octets: np.ndarray, bits: int) -> np.ndarray:
    """Positions ``[N, 3]`` of 24-bit numbers ``[N, 3, 3]`` bytes."""
    words = np.zeros((*octets.shape[:2], 4), np.uint8)
    words[..., 1:] = octets
    return (words.view("<i4")[..., 0] >> 8) / float(1 << bits)


def _from_smallest_three(words: np.ndarray) -> np.ndarray:
    """Quaternions wxyz ``[N, 4]`` of 32-bit words ``[N]``."""
    largest = (words >> 30).astype(np.int64)
    fields = np.stack([words >> 20, words >> 10, words], 1)
    small = (fields & 511) / _LARGEST * np.where(fields & 512, -1.0, 1.0)
    xyzw = np.zeros((len(words), 4))
    np.put_along_axis(xyzw, _OTHERS[largest], small, 1)
    np.put_along_axis(xyzw, largest[:, None], np.sqrt(np.maximum(0, 1 - (small**2).sum(1, keepdims=True))), 1)
    return np.roll(xyzw, 1, axis=1)


def bounds() -> dict[str, float]:
    """Largest errors of a round trip of values within range: metres, opacity, RGB in [0, 1], relative scale."""
    return {
        "position": 0.5 / (1 << _MOST_FRACTIONAL_BITS),
        "opacity": 0.5 / 255,
        "color": 0.5 / 255 / _COLOR_SCALE * SH_C0,
        "scale": float(np.expm1(0.5 / _SCALE_STEPS)),
    }
