"""The messages between page and server: small binary ones for sound and pictures, JSON for the rest."""

from __future__ import annotations

import json
import struct
import time

import numpy as np
import simplejpeg

from adapt.live.engine import LiveFrame
from configs import InputError

# First byte of the page's binary messages, then int16 little-endian samples at 16 kHz.
LIVE, QUEUED = 1, 2
LONGEST_MESSAGE = 64 * 1024  # bytes: two seconds of sound
# Messages and bytes that a page may send per second; BURST times as many at once.
MESSAGES_A_SECOND, BYTES_A_SECOND, BURST = 150, 200_000, 5
# Server to page: number, heard (samples), sent (ms, server's clock), delay (ms), flags, 0, bytes of sound; then the sound
# (int16) and the picture (JPEG, may be empty).
HEADER = struct.Struct("<IQdHBBI")
SPEAKING, FROM_MICROPHONE = 1, 2
JPEG_QUALITY = 90


def frame_message(frame: LiveFrame) -> bytes:
    """A frame for the page; the session's own silence is left out."""
    sound = (np.clip(frame.sound, -1, 1) * 32767).astype("<i2").tobytes() if frame.speaking else b""
    picture = b""
    if frame.image is not None:
        picture = simplejpeg.encode_jpeg(np.ascontiguousarray(frame.image), JPEG_QUALITY, "RGB", "420")
    delay = min(65_535, round(1000 * frame.delay))
    flags = SPEAKING * frame.speaking + FROM_MICROPHONE * frame.live
    return HEADER.pack(frame.number, frame.heard, 1000 * time.time(), delay, flags, 0, len(sound)) + sound + picture


def parse_sound(message: bytes) -> tuple[int, np.ndarray]:
    """``LIVE`` or ``QUEUED``, and int16 samples ``[n]``.

    Raises:
        InputError: an unknown kind, or half a sample.
    """
    if len(message) < 3 or message[0] not in (LIVE, QUEUED) or len(message) % 2 == 0:
        raise InputError("a binary message is a 1 or 2 followed by int16 samples")
    return message[0], np.frombuffer(message[1:], "<i2")


def parse_request(text: str) -> dict[str, object]:
    """A JSON object with a ``type``.

    Raises:
        InputError: anything else.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError("a text message is one JSON object") from None
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        raise InputError('a text message is one JSON object with a "type"')
    return found


class Limit:
    """A token bucket for one page's messages and bytes."""

    def __init__(self, messages: float = MESSAGES_A_SECOND, size: float = BYTES_A_SECOND, burst: float = BURST) -> None:
        self.rates, self.full = (messages, size), (burst * messages, burst * size)
        self.left, self.at = list(self.full), time.monotonic()

    def allows(self, size: int) -> bool:
        """Whether one more message of ``size`` bytes may be taken now."""
        now = time.monotonic()
        self.left = [
            min(full, left + rate * (now - self.at)) for full, left, rate in zip(self.full, self.left, self.rates)
        ]
        self.at = now
        if self.left[0] < 1 or self.left[1] < size:
            return False
        self.left = [self.left[0] - 1, self.left[1] - size]
        return True
