"""One protocol for every video: frame by frame scores, landmarks found again in the rendered frames, one dictionary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adapt.evaluate import metrics
from shards.media.encode import as_uint8

# Frames of FLIP's psychophysical filters cost ten times the rest; every fourth gives the same mean to 1 %.
FLIP_EVERY = 4
KEPT_PICTURES = 6
NO_SYNCNET = "no weights given: pass the original SyncNet's file (syncnet=FILE)"

Detector = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass
class Picked:
    """A frame kept for the report: what was rendered, what was real, the face's box."""

    index: int
    picture: np.ndarray
    real: np.ndarray
    landmarks: np.ndarray


@dataclass
class Scorer:
    """Collects one drive's scores; memory grows by landmarks only (6 kB a frame).

    Args:
        detect: frames ``[T, H, W, 3]`` uint8 -> landmarks ``[T, 478, 3]`` px and found ``[T]`` bool.
        lpips: a function of two pictures, or the reason why there is none.
        sync: the sync expert, or the reason why there is none.
        expected: number of frames, to spread the kept pictures over.
        syncnet: the original SyncNet, or the reason why there is none.
        every: measure single pictures (PSNR, SSIM, seam, FLIP, LPIPS) in every so many frames only.
    """

    detect: Detector
    lpips: Callable[[np.ndarray, np.ndarray], float] | str
    sync: Any | str
    expected: int
    every: int = 1
    syncnet: Any | str = NO_SYNCNET
    means: metrics.FrameScores = field(default_factory=metrics.FrameScores)
    reasons: dict[str, str] = field(default_factory=dict)
    picked: list[Picked] = field(default_factory=list)
    width: int = 0
    _found: list[np.ndarray] = field(default_factory=list)
    _valid: list[np.ndarray] = field(default_factory=list)
    _real: list[np.ndarray] = field(default_factory=list)
    _lips: list[Any] = field(default_factory=list)
    _faces: Any = None
    _count: int = 0

    def add(self, pictures: np.ndarray, reals: np.ndarray, landmarks: np.ndarray, masks: dict[str, np.ndarray]) -> None:
        """A batch of frames.

        Args:
            pictures: rendered ``[T, H, W, 3]`` float in [0, 1].
            reals: the real frames, uint8.
            landmarks: as tracked in the real frames ``[T, 478, 3]`` px.
            masks: ``face``, ``head``, ``mouth_inside``, each ``[T, H, W]``.
        """
        self.width = pictures.shape[2]
        pictures = as_uint8(pictures)  # what a viewer gets
        found, valid = self.detect(pictures)
        # The real frames go through the same detector: its noise must not count as a difference.
        real, seen = self.detect(reals)
        real = np.where(seen[:, None, None], real, landmarks)
        self._found.append(found.astype(np.float32))
        self._valid.append(valid)
        self._real.append(real.astype(np.float32))
        if not isinstance(self.sync, str):
            self._lips.append(self.sync.frame_features(pictures, np.where(valid[:, None, None], found, landmarks)))
        if not isinstance(self.syncnet, str):
            self._faces = self._faces or self.syncnet.face_windows()
            self._faces.add(pictures, np.where(valid[:, None, None], found, landmarks))
        for i in range(len(pictures)):
            if self._count % self.every == 0:
                frame_masks = {name: mask[i] for name, mask in masks.items()}
                self._score(pictures[i], reals[i], landmarks[i], frame_masks)
            self._count += 1

    def _score(
        self, picture: np.ndarray, real: np.ndarray, landmarks: np.ndarray, masks: dict[str, np.ndarray]
    ) -> None:
        a, b = picture.astype(np.float32) / 255.0, real.astype(np.float32) / 255.0
        similarity = metrics.ssim_map(a, b)
        values = {
            "psnr": metrics.psnr(a, b),
            "psnr_face": metrics.psnr(a, b, masks["face"]),
            "psnr_head": metrics.psnr(a, b, masks["head"]),
            "ssim": float(similarity.mean()),
            "ssim_face": metrics.masked_mean(similarity, masks["face"]),
            "seam": metrics.seam_error(a, b, masks["head"]),
        }
        # A closed mouth has a few anti-aliased pixels of "inside", which measure the lips' edge instead.
        if masks["mouth_inside"].sum() > 2e-4 * picture.shape[0] * picture.shape[1]:
            values["psnr_mouth"] = metrics.psnr(a, b, masks["mouth_inside"])
        if self._count // self.every % FLIP_EVERY == 0:
            self._flip(a, b, masks["head"], values)
        if not isinstance(self.lpips, str):
            values["lpips"] = self.lpips(a, b)
        self.means.add(**values)
        # Rounded up, so that the last of them come from the end.
        if self._count % max(1, -(-self.expected // KEPT_PICTURES)) == 0 and len(self.picked) < KEPT_PICTURES:
            self.picked.append(Picked(self._count, picture, real, landmarks))

    def _flip(self, a: np.ndarray, b: np.ndarray, head: np.ndarray, values: dict[str, float]) -> None:
        try:
            values["flip"] = metrics.masked_mean(metrics.flip_map(a, b), head)
        except ImportError:
            self.reasons["flip"] = "flip-evaluator is not installed (pip install 'headstart[evaluate]')"

    def curves(self) -> dict[str, np.ndarray]:
        """Lip gap and eye opening over frames, real and rendered, for the report."""
        found, real, valid = self._tracks()
        if not valid.any():
            return {}
        gap = np.where(valid, metrics.lip_gap(np.where(valid[:, None, None], found, real)), np.nan)
        return {"real": metrics.lip_gap(real), "rendered": np.nan_to_num(gap)}

    def eye_curves(self) -> dict[str, np.ndarray]:
        """Eye opening (percent of the eye distance) over frames, real and rendered."""
        found, real, valid = self._tracks()
        if not valid.any():
            return {}
        units = {"eyes": metrics.UPPER_UNITS["AU5/45 eye opening"]}
        ours = metrics.unit_curves(np.where(valid[:, None, None], found, real), units)["eyes"]
        return {"real": metrics.unit_curves(real, units)["eyes"], "rendered": np.where(valid, ours, 0.0)}

    def _tracks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.concatenate(self._found), np.concatenate(self._real), np.concatenate(self._valid)

    def result(self, features: np.ndarray | str, sound: np.ndarray | str = "no sound") -> dict[str, Any]:
        """Everything that DESIGN 9 lists; a measure that cannot be computed is ``None`` with its reason.

        Args:
            features: audio features ``[T, C]`` of the frames for the sync expert, or why there are none.
            sound: the frames' sound ``[N]`` at 16 kHz for the original SyncNet, or why there is none.
        """
        names = ("psnr", "psnr_face", "psnr_head", "psnr_mouth", "ssim", "ssim_face", "lpips", "flip", "seam")
        means = self.means.means()
        scores: dict[str, Any] = {name: means.get(name) for name in names}
        if isinstance(self.lpips, str):
            self.reasons["lpips"] = self.lpips
        if scores["psnr_mouth"] is None:
            self.reasons["psnr_mouth"] = "the mouth is closed in every test frame"
        self._landmark_scores(scores)
        self._sync_scores(scores, features)
        self._syncnet_scores(scores, sound)
        scores["null_reasons"] = {k: self.reasons.get(k, "not finite") for k, v in scores.items() if v is None}
        return scores

    def _landmark_scores(self, scores: dict[str, Any]) -> None:
        found, real, valid = self._tracks()
        scores["redetected"] = float(valid.mean())
        names = ("lmd", "lmd_absolute", "aue_u", "aue_l", "jitter_head", "jitter_lips")
        scores.update(dict.fromkeys(names))
        if not valid.any():
            self.reasons.update(dict.fromkeys(names, "no face was found in any rendered frame"))
            return
        scores["lmd"] = metrics.lmd(found[valid], real[valid], self.width)
        scores["lmd_absolute"] = metrics.lmd(found[valid], real[valid], self.width, centred=False)
        scores["aue_u"] = metrics.action_unit_error(found[valid], real[valid], metrics.UPPER_UNITS)
        scores["aue_l"] = metrics.action_unit_error(found[valid], real[valid], metrics.LOWER_UNITS)
        if len(found) >= 3 and valid.all():
            scores["jitter_head"], scores["jitter_lips"] = metrics.jitter(found, real)
        else:
            why = "needs three frames in a row with a face found in each"
            self.reasons.update({"jitter_head": why, "jitter_lips": why})

    def _sync_scores(self, scores: dict[str, Any], features: np.ndarray | str) -> None:
        import torch

        scores.update({"sync_c": None, "sync_d": None})
        reason = self._sync_reason(self.sync, features)
        if reason is not None:
            self.reasons.update({"sync_c": reason, "sync_d": reason})
            return
        confidence, distance, offset = self.sync.confidence_of(torch.cat(self._lips), features)
        scores["sync_c"], scores["sync_d"], scores["sync_offset"] = float(confidence), float(distance), int(offset)

    def _syncnet_scores(self, scores: dict[str, Any], sound: np.ndarray | str) -> None:
        scores.update({"syncnet_c": None, "syncnet_d": None})
        reason = self._sync_reason(self.syncnet, sound)
        if reason is not None:
            self.reasons.update({"syncnet_c": reason, "syncnet_d": reason})
            return
        confidence, distance, offset = self.syncnet.confidence_of(self._faces.finish(), sound)
        scores.update({"syncnet_c": confidence, "syncnet_d": distance, "syncnet_offset": offset})

    def _sync_reason(self, expert: Any | str, heard: np.ndarray | str) -> str | None:
        """Why this expert cannot judge these frames and this sound."""
        for reason in (expert, heard):
            if isinstance(reason, str):
                return reason
        _, _, valid = self._tracks()
        if not valid.all():
            return "needs a face in every rendered frame"
        return "needs a second of video or more" if len(valid) < 25 else None
