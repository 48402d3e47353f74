"""Members of a sample to and from bytes: JPEG, PNG, FLAC, NPY, NPZ, each refused before it can claim much memory.

The bytes may come from an untrusted tar: sizes are read from headers and compared with what the sample says
before anything is allocated, and no pickle is ever loaded.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

import numpy as np

JPEG_QUALITY = 95
MAX_SIDE = 4096  # px; larger frames are scaled down when the dataset is built
MAX_ARRAY = 1 << 28  # bytes of one array


class BadMember(ValueError):
    """The bytes of a member are not what they should be; the message says why."""


@contextmanager
def _reading(kind: str) -> Iterator[None]:
    """Decoders of hostile bytes fail in more ways than they document; all of them mean that the member is bad."""
    try:
        yield
    except BadMember:
        raise
    except Exception as error:
        raise BadMember(f"not readable as {kind} ({type(error).__name__}: {error})") from None


def encode_jpeg(frame: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """``[H, W, 3]`` uint8 RGB to JPEG with 4:2:0 chroma, like most video."""
    import simplejpeg

    return simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=quality, colorsubsampling="420")


def decode_jpeg(
    data: bytes, size: tuple[int, int], min_side: int = 0, out: np.ndarray | None = None, *, fast: bool = False
) -> np.ndarray:
    """JPEG to ``[H, W, 3]`` uint8 RGB; the header must say ``size`` (width, height) before a pixel is decoded.

    Args:
        size: expected width and height, px.
        min_side: decode at the smallest of full, 1/2, 1/4, 1/8 size whose sides are at least this many px; 0: full size.
        out: contiguous array of the full size to decode into.
        fast: with the less exact cosine transform and chroma, one level apart in the mean, in 0.75 of the time.

    Raises:
        BadMember: not a JPEG, or of another size.
    """
    import simplejpeg

    with _reading("JPEG"):
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != tuple(size):
            raise BadMember(f"is {width}x{height} px, expected {size[0]}x{size[1]}")
        # libjpeg scales by 1/2, 1/4, 1/8 while decoding, at a fraction of the cost.
        smallest = {"min_height": min_side, "min_width": min_side, "min_factor": 1} if min_side else {}
        inexact = {"fastdct": True, "fastupsample": True} if fast else {}
        return simplejpeg.decode_jpeg(data, "RGB", **smallest, **inexact, **({} if out is None else {"buffer": out}))


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height in px by a JPEG's header."""
    import simplejpeg

    with _reading("JPEG"):
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    return width, height


def encode_png(matte: np.ndarray) -> bytes:
    """``[H, W]`` uint8 to PNG: row differences and zlib level 1, half of Pillow's time to write and to read mattes."""
    height, width = matte.shape
    rows = np.empty((height, width + 1), np.uint8)
    rows[:, 0] = 2  # filter "up"
    rows[0, 1:] = matte[0]
    np.subtract(matte[1:], matte[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8-bit grey
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def decode_png(data: bytes, size: tuple[int, int], out: np.ndarray | None = None) -> np.ndarray:
    """PNG to ``[H, W]`` uint8; the header must say 8-bit grey and ``size`` (width, height).

    Args:
        out: array of that shape to decode into.
    """
    with _reading("PNG"):
        rows = _own_rows(data, size)
        if rows is None:
            matte = _any_png(data, size)
            if out is None:
                return matte
            out[:] = matte
            return out
        return _running_sums(rows[:, 1:], out)


def _own_rows(data: bytes, size: tuple[int, int]) -> np.ndarray | None:
    """Filter bytes and differences ``[H, W + 1]`` of a PNG that :func:`encode_png` wrote; ``None`` for any other PNG.

    Raises:
        BadMember: another number of pixels than the header says, where Pillow would fill up with zeros.
    """
    width, height = size
    header = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    start = len(header) + 8
    if not data.startswith(header) or data[start - 4 : start] != b"IDAT":
        return None
    stop = start + int.from_bytes(data[start - 8 : start - 4], "big")
    if data[stop + 4 :] != _chunk(b"IEND", b""):
        return None
    unpacker, length = zlib.decompressobj(), height * (width + 1)
    rows = unpacker.decompress(data[start:stop], length + 1)
    if len(rows) != length or not unpacker.eof:
        raise BadMember(f"does not hold {height} rows of {width} px; build the shard again")
    differences = np.frombuffer(rows, np.uint8).reshape(height, width + 1)
    return differences if (differences[:, 0] == 2).all() else None


def _running_sums(rows: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """Sums of each row ``[H, W]`` uint8 and all above it, modulo 256, in log2(H) passes: a quarter of ``np.cumsum``'s time."""
    sums = np.empty(rows.shape, np.uint8) if out is None else out
    sums[:] = rows
    step = 1
    while step < len(sums):
        sums[step:] += sums[:-step]
        step *= 2
    return sums


def _any_png(data: bytes, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        if image.size != tuple(size) or image.mode != "L":
            got = f"{image.size[0]}x{image.size[1]} {image.mode}"
            raise BadMember(f"is {got}, expected {size[0]}x{size[1]} 8-bit grey")
        return np.asarray(image)


def encode_flac(audio: np.ndarray, rate: int = 16_000) -> bytes:
    """``[N]`` float32 in [-1, 1] to 16-bit FLAC."""
    import soundfile

    stream = io.BytesIO()
    soundfile.write(stream, np.clip(audio, -1.0, 1.0), rate, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


def decode_flac(data: bytes, expected: int, rate: int = 16_000) -> np.ndarray:
    """FLAC to ``[expected]`` float32 in [-1, 1]; the header must say ``expected`` samples, mono, ``rate`` Hz."""
    import soundfile

    with _reading("FLAC"), soundfile.SoundFile(io.BytesIO(data)) as sound:
        if (sound.frames, sound.channels, sound.samplerate) != (expected, 1, rate):
            got = f"{sound.frames} samples, {sound.channels} channels, {sound.samplerate} Hz"
            raise BadMember(f"holds {got}; expected {expected} samples, mono, {rate} Hz: audio and frames disagree")
        audio = sound.read(dtype="float32")
    if len(audio) != expected:
        raise BadMember(f"decodes to {len(audio)} samples, expected {expected}: audio and frames disagree")
    return audio


def encode_npy(value: np.ndarray) -> bytes:
    """An array as NPY."""
    stream = io.BytesIO()
    np.save(stream, value, allow_pickle=False)
    return stream.getvalue()


def decode_npy(data: bytes) -> np.ndarray:
    """NPY to an array; the header's shape must account for every byte, objects are refused."""
    with _reading("NPY"):
        version = np.lib.format.read_magic(io.BytesIO(data[:8]))
        start = 8 + (2 if version == (1, 0) else 4)
        start += int.from_bytes(data[8:start], "little")
        shape, fortran, dtype = _npy_header(version, data[8:start])
        if dtype.hasobject or fortran:
            raise BadMember(f"holds {'objects' if dtype.hasobject else 'a column-major array'}, expected plain numbers")
        rest = len(data) - start
        # numpy itself would allocate what the header claims before it reads a byte.
        if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != rest:
            raise BadMember(f"header says {dtype} {shape}, but {rest} bytes follow")
        return np.frombuffer(data, dtype, offset=start).reshape(shape)


@lru_cache(maxsize=1024)
def _npy_header(version: tuple[int, int], header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type; a dataset repeats a few headers, and parsing one costs more than reading the array."""
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(io.BytesIO(header))


def encode_npz(values: Mapping[str, np.ndarray], compress: bool = False) -> bytes:
    """Arrays as NPZ, the same bytes for the same values."""
    stream = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(stream, **values)
    return stream.getvalue()


def decode_npz(data: bytes, limit: int = MAX_ARRAY) -> dict[str, np.ndarray]:
    """NPZ to arrays; refused before anything larger than ``limit`` bytes is unpacked."""
    with _reading("NPZ"):
        entries = _stored_entries(data)
        if entries is None:
            entries = _unpacked(data, limit)
        return {name.removesuffix(".npy"): decode_npy(entry) for name, entry in entries.items()}


def _unpacked(data: bytes, limit: int) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        total = sum(info.file_size for info in entries)
        if total > limit:
            raise BadMember(f"unpacks to {total} bytes, at most {limit} are expected")
        return {info.filename: archive.read(info) for info in entries}


END, ENTRY, LOCAL = struct.Struct("<4s4H2IH"), struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s5H3I2H")


def _stored_entries(data: bytes) -> dict[str, bytes] | None:
    """Name and bytes of each file of a ZIP archive that :func:`encode_npz` wrote without compression; ``None`` for any other.

    ``zipfile`` takes three times as long for the small archives of a sample.
    """
    if len(data) < END.size:
        return None
    mark, _, _, _, count, _, at, comment = END.unpack_from(data, len(data) - END.size)
    if mark != b"PK\5\6" or comment:
        return None
    found: dict[str, bytes] = {}
    total = 0
    for _ in range(count):
        if at + ENTRY.size > len(data):
            return None
        fields = ENTRY.unpack_from(data, at)
        mark, flags, method, crc, packed, size, *lengths = (fields[i] for i in (0, 3, 4, 7, 8, 9, 10, 11, 12))
        local = fields[16]
        name = data[at + ENTRY.size : at + ENTRY.size + lengths[0]]
        total += size
        if mark != b"PK\1\2" or flags or method or packed != size or max(total, local + LOCAL.size) > len(data):
            return None
        *_, own, extra = LOCAL.unpack_from(data, local)
        names = local + LOCAL.size
        start = names + own + extra
        entry = data[start : start + size]
        if data[local : local + 4] != b"PK\3\4" or data[names : names + own] != name or not name.isascii():
            return None
        if len(entry) != size or zlib.crc32(entry) != crc:
            return None
        found[name.decode()] = entry
        at += ENTRY.size + sum(lengths)
    return found
