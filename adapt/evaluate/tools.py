"""Opens what scoring needs besides the frames: landmark detector, LPIPS, sync experts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapt.evaluate.measures.base import NO_LPIPS, NO_SYNC, NO_SYNCNET, Tools
from adapt.fit.losses import lpips_of
from adapt.priors import champions_of
from configs import InputError
from pretrain import load_prior
from pretrain.prior import priors_for, role_of
from pretrain.roles import SYNC
from pretrain.sync_expert.syncnet import SyncNet
from shards import tracking
from shards.features import open_feature


def open_tools(lpips: str | None = None, sync: str | Path | None = None, syncnet: str | Path | None = None) -> Tools:
    """Open what there is; arguments as those of :func:`adapt.evaluate.evaluate.evaluate`.

    Raises:
        InputError: given weights that cannot be used.
    """
    return Tools(tracking.detect_landmarks, _open_lpips(lpips), open_sync(sync), _open_syncnet(syncnet))


def sync_features(expert: object | str, sound: np.ndarray, count: int) -> np.ndarray | str:
    """Rows ``[count, C]`` of the audio feature that the expert was trained on; without an expert, the sentence in its place.

    Args:
        sound: ``[N]`` at 16 kHz, from the first of ``count`` frames on; the last row is repeated where it ends early.

    Raises:
        InputError: the feature's weights are missing.
    """
    if isinstance(expert, str):
        return expert
    info = getattr(expert, "info", {})
    rows = open_feature(info.get("features") or "logmel").extract(sound)
    if not len(rows):
        return "the sound is shorter than a frame"
    return np.pad(rows, ((0, max(0, count - len(rows))), (0, 0)), mode="edge")[:count]


def _open_lpips(weights: str | None) -> Callable[[np.ndarray, np.ndarray], float] | str:
    if weights is None:
        return NO_LPIPS
    network = lpips_of(weights)
    assert network is not None

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        with torch.no_grad():
            return float(network(torch.from_numpy(a), torch.from_numpy(b)))

    return distance


def open_sync(uri: str | Path | None) -> Any | str:
    """A sync expert by URI, else the champion, else a sentence that says that there is none.

    Raises:
        InputError: a prior of another role, or one that cannot be opened.
    """
    if uri is None:
        found = champions_of(SYNC)
        if not found:
            return NO_SYNC
        uri = found[0][1]
    expert = load_prior(uri)
    kind = expert.info["prior"]
    if role_of(kind) != SYNC:
        raise InputError(f"sync '{uri}': is a {kind} prior, expected a {' or '.join(priors_for(SYNC))}")
    return expert


def _open_syncnet(weights: str | Path | None) -> Any | str:
    if weights is None:
        return NO_SYNCNET
    return SyncNet.open(weights)
