"""Evidence of sync-expert: scores on held-out people; wrong audio comes from the same clip at other times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pretrain.baselines.baselines import area_under_curve
from pretrain.data.sequences import sequences
from pretrain.sync_expert.config import SyncExpertConfig
from pretrain.sync_expert.inference import OFFSETS, SyncExpert, without_hubs
from pretrain.sync_expert.view import sample_lips
from pretrain.task import people_means
from shards.media.rates import FPS
from shards.read.dataset import Dataset

FAR = 5  # frames: from this offset on, audio counts as wrong · guess
SECOND = 25  # frames
LEAST_FRAMES = 60  # of a clip that is scored · guess
NEEDS = f"{LEAST_FRAMES} frames ({LEAST_FRAMES / FPS:.1f} s) with sound in one piece"
NOTES = [
    "Distances without hubs: a window of sound's mean distance to the lips within 15 frames is subtracted.",
    "Wrong sounds are the same clip's, 5 to 15 frames away, so chance is AUC 0.5 and an offset hit rate of 3/31.",
    "AUC 5: one window of 5 frames; AUC 25: distances averaged over a second; hit: share of seconds whose best offset",
    "of 31 lies within one frame of 'offset', the whole clip's best (tracks and sound of real clips disagree by a frame or two);",
    "Sync-C and Sync-D: of the whole clip, in this expert's distances as they are.",
]


@dataclass(frozen=True)
class LipClip:
    """Lips ``[T, h, w, 3]`` uint8 and features ``[T, C]`` of a held-out clip."""

    identity: str
    name: str
    lips: np.ndarray
    features: np.ndarray


def load_clips(dataset: Dataset, config: SyncExpertConfig) -> list[LipClip]:
    """Held-out clips long enough to be scored; at most a minute of each."""
    clips = []
    for run in sequences(dataset, config.features, unreliable=config.unreliable):
        if len(run) >= LEAST_FRAMES:
            lips = np.concatenate([sample_lips(dataset.read(key), config) for key, _ in run.keys])
            clips.append(LipClip(run.identity, run.clip, lips, run.features))
    return clips


@torch.no_grad()
def score(prior: SyncExpert, clip: LipClip) -> dict[str, object]:
    """One clip's row."""
    parts = torch.from_numpy(clip.lips).split(64)
    frames = torch.cat([prior.model.lips.frames(part.to(prior.device).float() / 255) for part in parts])
    distances = without_hubs(prior.distances(frames, clip.features)).cpu().numpy()
    sync_c, sync_d, offset = prior.confidence_of(frames, clip.features)
    seconds = moving_mean(distances, SECOND)
    row: dict[str, object] = {"identity": clip.identity, "clip": clip.name, "frames": len(clip.lips)}
    row["AUC 5"], row["AUC 25"] = auc_at(distances, 0), auc_at(seconds, 0)
    best = np.where(np.isnan(seconds), np.inf, seconds)[OFFSETS:-OFFSETS].argmin(1) - OFFSETS
    row["hit"] = float((np.abs(best - offset) <= 1).mean()) if len(best) else None
    row["hit exact 0"] = float((np.abs(best) <= 1).mean()) if len(best) else None
    return row | {"offset": offset, "Sync-C": sync_c, "Sync-D": sync_d}


def auc_at(distances: np.ndarray, offset: int) -> float:
    """AUC of distances ``[N, 2 * OFFSETS + 1]`` at ``offset`` against those at least ``FAR`` frames from it."""
    away = np.abs(np.arange(-OFFSETS, OFFSETS + 1) - offset)
    right = distances[:, away == 0].ravel()
    wrong = distances[:, away >= FAR].ravel()
    return area_under_curve(-right[~np.isnan(right)], -wrong[~np.isnan(wrong)])


def moving_mean(distances: np.ndarray, length: int) -> np.ndarray:
    """Means over ``length`` consecutive windows, ``[N - length + 1, ...]``; NaN where one is missing."""
    total = np.cumsum(np.concatenate([np.zeros((1, distances.shape[1])), np.nan_to_num(distances)]), 0)
    missing = np.cumsum(np.concatenate([np.zeros((1, distances.shape[1])), np.isnan(distances)]), 0)
    mean = (total[length:] - total[:-length]) / length
    return np.where(missing[length:] - missing[:-length] > 0, np.nan, mean)


def summarise(rows: list[dict[str, object]]) -> dict[str, float]:
    """Means over people."""
    names = {
        "AUC 5": "auc_window",
        "AUC 25": "auc_second",
        "hit": "offset_accuracy",
        "Sync-C": "sync_c",
        "Sync-D": "sync_d",
    }
    return {names.get(column, column): mean for column, mean in people_means(rows, list(names)).items()}
