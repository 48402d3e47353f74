"""How this person speaks: the audio-expression prior, given their style and fine-tuned on their clip.

Source: GGTalker (2025), section 3.3: the audio encoder stays frozen, the rest learns at a low rate, and the best
weights on held-back seconds of the clip are kept (early stop); with little sound the prior itself may be the best.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import torch

from adapt.clip import DRIVEN_BY_SOUND, Clip
from adapt.driving import PriorDriver
from configs import InputError

HELD_SHARE = 0.2
RATE = 1e-4
CHECK_EVERY = 20
PATIENCE = 3


def person_driver(
    prior: Any, clip: Clip, record: dict[str, Any], *, finetune: bool = True, seconds: float = 8.0, seed: int = 0
) -> PriorDriver:
    """A driver with the clip's speaking style, fine-tuned where that helps on the clip's last seconds.

    Args:
        seconds: wall-clock limit of the fine-tuning; the style search comes before it.

    Raises:
        InputError: the prior hears other features than the clip was given.
    """
    if prior.features_name != "logmel":
        raise InputError(
            f"the audio-expression prior hears '{prior.features_name}', but adaptation extracts 'logmel'; "
            "use a prior trained on logmel"
        )
    features = clip.features()
    track = {name: clip.track[name] for name in DRIVEN_BY_SOUND}
    style = prior.find_style(features, track, seed=seed)
    changed: tuple[str, ...] = ()
    if finetune and len(features) >= 100:
        changed = _finetune(prior, style, features, track, seconds, seed)
    label = str(record.get("version", ""))
    return PriorDriver(prior, style, label=label, changed=changed, seed=seed)


def _finetune(
    prior: Any, style: np.ndarray, features: np.ndarray, track: dict[str, np.ndarray], seconds: float, seed: int
) -> tuple[str, ...]:
    """Train all but the audio encoder; returns the names of the weights that changed (none, if that was best)."""
    end, cut = time.monotonic() + seconds, int(len(features) * (1 - HELD_SHARE))
    # What listens and what was solved in closed form stay; only the transformer that imagines the face moves.
    encoder = set(map(id, prior.audio_encoder.parameters()))
    trained = {n: p for n, p in prior.model.named_parameters() if id(p) not in encoder and "styles." not in n}
    for parameter in prior.model.parameters():
        parameter.requires_grad_(False)
    for parameter in trained.values():
        parameter.requires_grad_(True)
    before, best = copy.deepcopy(prior.state_dict()), None
    best_error, patience = _error(prior, style, features[cut:], track["expression"][cut:]), PATIENCE
    optimizer = torch.optim.AdamW(list(trained.values()), lr=RATE, weight_decay=0.0)
    rng, step = np.random.default_rng(seed), 0
    while time.monotonic() < end and patience:
        _step(prior, optimizer, style, features[:cut], track, rng)
        step += 1
        if step % CHECK_EVERY == 0:
            error = _error(prior, style, features[cut:], track["expression"][cut:])
            patience = PATIENCE if error < best_error else patience - 1
            if error < best_error:
                best, best_error = copy.deepcopy(prior.state_dict()), error
    prior.load_state_dict(before if best is None else best)
    for parameter in prior.model.parameters():
        parameter.requires_grad_(False)
    return () if best is None else tuple(trained)


def _step(
    prior: Any,
    optimizer: torch.optim.Optimizer,
    style: np.ndarray,
    features: np.ndarray,
    track: dict[str, np.ndarray],
    rng: np.random.Generator,
    count: int = 8,
) -> None:
    """One step of the prior's own training loss on random windows of the clip."""
    window = min(prior.config.window, len(features))
    starts = rng.integers(0, len(features) - window + 1, count)

    def windows(rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.stack([rows[s : s + window] for s in starts])).float()

    wanted = torch.from_numpy(style)
    loss = prior.loss(windows(features), windows(track["expression"]), windows(track["eyelids"]), wanted)
    optimizer.zero_grad()
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def _error(prior: Any, style: np.ndarray, features: np.ndarray, expression: np.ndarray) -> float:
    return float(((prior.expect(features, style=style)["expression"] - expression) ** 2).mean())
