"""One call that marks a finished frame: the visible label, then the watermark over all of it."""

from __future__ import annotations

import numpy as np

from adapt.marking.code import NO_AVATAR, key_id, payload_name, payload_of
from adapt.marking.label import Label
from adapt.marking.watermark import Watermark

WITHOUT_WATERMARK = (
    "--no-watermark: the pictures will carry no watermark; once the file is re-encoded, nothing in it tells any more that it "
    "is synthetic, and where the EU AI Act applies its marking must then come from elsewhere (docs/marking.md)"
)


class Marker:
    """Marks the frames of one output.

    Args:
        avatar_sha256: hash of the avatar's weights; empty where no avatar took part.
        watermark: whether to add the watermark; without it, show ``WITHOUT_WATERMARK`` to the user.
        label: text of the visible label, ``None`` for none.
        key: of the watermark; ``None`` reads ``HEADSTART_WATERMARK_KEY`` or takes the public key.

    Raises:
        InputError: a label that cannot be drawn, a key that is too short.
    """

    def __init__(
        self, avatar_sha256: str, *, watermark: bool = True, label: str | None = None, key: str | None = None
    ) -> None:
        payload = payload_of(avatar_sha256) if avatar_sha256 else NO_AVATAR
        self._watermark = Watermark(payload, key=key) if watermark else None
        self._label = Label(label) if label is not None else None

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """A marked copy of a frame ``[H, W, 3 or 4]`` uint8; without label and watermark, the frame itself."""
        if self._label is not None:
            frame = self._label.burn(frame)
        return frame if self._watermark is None else self._watermark.mark(frame)

    def fields(self) -> dict[str, str]:
        """What the statement says about the watermark: its payload and which key, empty without a watermark."""
        if self._watermark is None:
            return {}
        return {"watermark": payload_name(self._watermark.payload), "watermark_key": key_id(self._watermark.key)}
