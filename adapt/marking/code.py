"""The watermark's code: which frequencies carry it, with which phases, for a key and a payload.

The mark is a sum of cosines on a square lattice: wave vector ``k = (kx, ky)`` in cycles per *tile*, a tile being half
of the frame's shorter side. A key gives every wave vector a phase and one of five channels. Channel 0 is the same for
every payload and finds the tile's origin. Channels 1 to 4 are moved within the tile by an amount that spells 12 bits
each: 48 bits, of which 32 are the payload and 16 a keyed check.

Everything is derived from the key by SHAKE-256, so it is the same on every machine and for every version of numpy.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from configs import InputError

# Cycles per tile. Wave lengths are SIDE / (2 k): 8 px to 64 px where the shorter side is 512 px.
LOWEST, HIGHEST = 4, 32
# Positions per axis within a tile: 64 x 64 = 12 bits per channel. Their distance is half a period of the highest frequency.
GRID = 64
BITS_PER_CHANNEL = 12
CHANNELS = 4
PAYLOAD_BITS = 32
# Payload of pictures that Headstart made without an avatar.
NO_AVATAR = 0
# Of twelve neighbouring wave vectors eight find the origin and one serves each payload channel.
_SHARE = (0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4)
KEY_VARIABLE = "HEADSTART_WATERMARK_KEY"
# Public on purpose: whoever receives a video can look for the mark. A private key hides the mark from others.
PUBLIC_KEY = "headstart public watermark key 1"
SHORTEST_KEY = 8  # characters


@dataclass(frozen=True)
class Code:
    """What a key says about every wave vector.

    Attributes:
        kx, ky: cycles per tile, int ``[N]``, one of each pair of opposite vectors.
        phase: radians, float ``[N]``.
        channel: 0 finds the origin, 1 to 4 carry the payload, int ``[N]``.
    """

    kx: np.ndarray
    ky: np.ndarray
    phase: np.ndarray
    channel: np.ndarray


def watermark_key(given: str | None = None) -> bytes:
    """The secret as bytes: ``given``, else ``HEADSTART_WATERMARK_KEY``, else the public key of the project.

    Raises:
        InputError: shorter than eight characters.
    """
    text = given or os.environ.get(KEY_VARIABLE) or PUBLIC_KEY
    if len(text) < SHORTEST_KEY:
        raise InputError(
            f"watermark key: {len(text)} characters, expected at least {SHORTEST_KEY}; set {KEY_VARIABLE} to a longer one"
        )
    return text.encode()


def key_id(key: bytes) -> str:
    """Eight hexadecimal digits that tell keys apart without revealing them."""
    return hashlib.sha256(b"headstart watermark key id\0" + key).hexdigest()[:8]


def payload_of(avatar_sha256: str) -> int:
    """The 32-bit payload of an avatar: the start of its hash.

    Raises:
        ValueError: not a hexadecimal hash of at least 8 digits.
    """
    if len(avatar_sha256) < 8:
        raise ValueError(f"avatar hash {avatar_sha256!r} is shorter than 8 hexadecimal digits")
    return int(avatar_sha256[:8], 16)


def payload_name(payload: int) -> str:
    """A payload as it is shown: the first eight hexadecimal digits of the avatar's hash."""
    return f"{payload:08x}"


@lru_cache(maxsize=8)
def code_of(key: bytes) -> Code:
    """Phases and channels of a key."""
    k = np.arange(-HIGHEST, HIGHEST + 1)
    kx, ky = (axis.ravel() for axis in np.meshgrid(k, k[HIGHEST:]))
    square = kx**2 + ky**2
    half = (ky > 0) | (kx > 0)
    chosen = half & (square >= LOWEST**2) & (square <= HIGHEST**2)
    kx, ky, square = kx[chosen], ky[chosen], square[chosen]
    # By radius, so that every channel gets its share of low and of high frequencies.
    order = np.lexsort((kx, ky, square))
    kx, ky = kx[order], ky[order]
    random = _uniform(key, b"wave vectors", 2 * len(kx))
    return Code(kx, ky, 2 * np.pi * random[: len(kx)], _channels(random[len(kx) :]))


def _channels(random: np.ndarray) -> np.ndarray:
    """A channel for every wave vector: each block of twelve holds the channels of ``_SHARE`` in an order set by the key."""
    size = len(_SHARE)
    padded = np.pad(random, (0, -len(random) % size)).reshape(-1, size)
    return np.array(_SHARE)[np.argsort(padded, axis=1, kind="stable")].ravel()[: len(random)]


def _uniform(key: bytes, purpose: bytes, count: int) -> np.ndarray:
    """``count`` numbers in [0, 1) from the key, float64."""
    stream = hashlib.shake_256(purpose + b"\0" + key).digest(4 * count)
    return np.frombuffer(stream, "<u4").astype(np.float64) / 2**32


def check_bits(key: bytes, payload: int) -> int:
    """The 16 check bits of a payload under a key."""
    digest = hmac.new(key, b"check\0" + payload.to_bytes(4, "big"), hashlib.sha256).digest()
    return int.from_bytes(digest[:2], "big")


def symbols_of(key: bytes, payload: int) -> list[int]:
    """The four 12-bit symbols of a payload with its check."""
    word = payload << 16 | check_bits(key, payload)
    return [word >> BITS_PER_CHANNEL * i & (1 << BITS_PER_CHANNEL) - 1 for i in reversed(range(CHANNELS))]


def payload_in(key: bytes, symbols: list[int]) -> int | None:
    """The payload that four symbols spell; ``None`` if the check bits do not match."""
    word = 0
    for symbol in symbols:
        word = word << BITS_PER_CHANNEL | symbol
    payload = word >> 16
    return payload if word & 0xFFFF == check_bits(key, payload) else None


def shifts(code: Code, symbols: list[int]) -> np.ndarray:
    """Phase that the symbols add to every wave vector, radians ``[N]``; 0 in channel 0."""
    moved = np.array([(0, 0), *(divmod(symbol, GRID) for symbol in symbols)])
    dy, dx = moved[code.channel].T
    return -2 * np.pi * (code.kx * dx + code.ky * dy) / GRID
