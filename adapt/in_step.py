"""A clip's sound is put in step with the lips by its speech encoder, more finely than tracking does from log-mel."""

from __future__ import annotations

import numpy as np
import torch

from adapt.clip import Clip
from heads.measures.lips import lip_shape
from shards.media.rates import SAMPLE_RATE
from shards.tracking.av_offset import IN_STEP, LEAST_FRAMES, AvOffset, filters_for, offset_of


def put_in_step(clip: Clip) -> AvOffset:
    """Move the sound by what the feature's rows and the lips say, if the feature has filters of its own.

    Returns:
        What was left of the offset that tracking had removed; it is removed now.
    """
    filters = filters_for(clip.feature)
    if filters.feature is None or len(clip) < LEAST_FRAMES or not clip.has_sound:
        return IN_STEP
    lips = lip_shape(torch.from_numpy(clip.track["landmarks"])).numpy()
    found = offset_of([(lips, clip.features())], filters)
    if by := round(found.seconds * SAMPLE_RATE):
        silence = np.zeros(abs(by), np.float32)
        clip.audio = np.concatenate((clip.audio[by:], silence) if by > 0 else (silence, clip.audio[:by]))
        clip.av_offset = round(clip.av_offset + found.seconds, 4)
        clip.listen_for(clip.feature)  # rows of the sound before are dropped
    return found
