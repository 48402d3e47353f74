"""Peak signal-to-noise ratio: whole frame, face, head, inside of the mouth, body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from adapt.evaluate.measures.base import Column, Frame, Measure
from heads.measures.image import psnr

# Share of the frame · guess. A closed mouth has a few anti-aliased pixels of "inside", which belong to the lips' edge.
LEAST_MOUTH = 2e-4

REASONS = {
    "psnr_mouth": "the mouth is closed in every test frame",
    "psnr_body": "no body is in view, or its pixels are not the avatar's",
}


class Psnr(Measure):
    """Per frame, with a peak of 1; then the mean."""

    place = 10
    columns: ClassVar[Mapping[str, Column]] = {
        "psnr": Column("PSNR, whole frame", "dB", 2, "higher", "see 'whole frame' below for what the body is"),
        "psnr_face": Column("PSNR, face", "dB", 2, "higher", "pixels of the face region, all rendered"),
        "psnr_head": Column("PSNR, head", "dB", 2, "higher", "face, hair and neck, all rendered"),
        "psnr_mouth": Column("PSNR, inside of the mouth", "dB", 2, "higher", "frames with an open mouth"),
        "psnr_body": Column(
            "PSNR, body", "dB", 2, "higher", "the person outside the head region; see 'whole frame' below"
        ),
    }

    def frame(self, frame: Frame) -> Mapping[str, float]:
        """PSNR of each region; of the mouth only if it is open, of the body only where it was rendered."""
        picture, real, masks = frame.picture, frame.real, frame.masks
        found = {
            "psnr": psnr(picture, real),
            "psnr_face": psnr(picture, real, masks["face"]),
            "psnr_head": psnr(picture, real, masks["head"]),
        }
        if masks["mouth_inside"].sum() > LEAST_MOUTH * real.shape[0] * real.shape[1]:
            found["psnr_mouth"] = psnr(picture, real, masks["mouth_inside"])
        if "body" in masks and masks["body"].any():
            found["psnr_body"] = psnr(picture, real, masks["body"])
        return found

    def absent(self, name: str) -> str:
        """A mouth may stay closed, and a body may be out of view or no part of what is scored."""
        return REASONS.get(name) or super().absent(name)
