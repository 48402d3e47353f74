"""Packs arrays into one block of bytes, each in the smallest sufficient type; ``page/arrays.js`` reads them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

ALIGN = 16  # bytes; a browser's typed array must begin at a multiple of its item size
TYPES = {"f32": np.float32, "f16": np.float16, "i8": np.int8, "u8": np.uint8, "u16": np.uint16, "u32": np.uint32}


Document = dict[str, object]  # what JSON says of something


class Packer:
    """Collects arrays: ``entries`` describes them by name, :meth:`content` returns their bytes."""

    def __init__(self) -> None:
        self.entries: dict[str, Document] = {}
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, name: str, array: ArrayLike, kind: str = "f32") -> None:
        """Store an array as ``kind``, a key of :data:`TYPES`."""
        values = np.ascontiguousarray(np.asarray(array), TYPES[kind])
        self.entries[name] = {"type": kind, "shape": list(values.shape), "at": self._size}
        content = values.tobytes()
        content += bytes(-len(content) % ALIGN)
        self._parts.append(content)
        self._size += len(content)

    def add_index(self, name: str, array: ArrayLike) -> None:
        """Store whole numbers from 0 on, in 16 bits where they fit."""
        values = np.asarray(array)
        self.add(name, values, "u16" if values.max(initial=0) < 65536 else "u32")

    def add_steps(self, name: str, array: ArrayLike) -> None:
        """Store rows ``[R, C]`` as signed bytes, each row with its own step; errors are at most half a step."""
        values = np.asarray(array, np.float32)
        steps = np.maximum(np.abs(values).max(1), 1e-12) / 127
        self.add(name, np.round(values / steps[:, None]), "i8")
        self.entries[name] |= {"low": 0, "step": [float(step) for step in steps]}

    def add_picture(self, name: str, array: ArrayLike) -> None:
        """Store values ``[...]`` in [0, 1] as bytes; values beyond are clipped, as on a screen."""
        self.add(name, np.round(np.clip(np.asarray(array, np.float32), 0, 1) * 255), "u8")
        self.entries[name] |= {"low": 0, "step": [1 / 255]}

    def content(self) -> bytes:
        """The bytes of all arrays, each at a multiple of ``ALIGN``."""
        return b"".join(self._parts)
