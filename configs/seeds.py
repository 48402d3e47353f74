"""One seed per purpose, so that a resumed run needs no saved random state."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: object) -> int:
    """A 63-bit seed for a purpose, such as ``derive(0, "noise", step, rank)``; equal arguments give equal seeds."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
