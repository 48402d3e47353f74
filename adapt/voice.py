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
from adapt.driving import PriorDriver, drive
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
    # The mean of what the model thinks possible: lips that agree with the sound matter more than lively ones.
    options = {"steps": 1, "temperature": 0.0}
    changed: tuple[str, ...] = ()
    if finetune and len(features) >= 100:
        changed = _finetune(prior, style, features, track, seconds, seed)
    label = str(record.get("version", ""))
    return PriorDriver(prior, style, label=label, changed=changed, seed=seed, options=options)


def _finetune(
    prior: Any, style: np.ndarray, features: np.ndarray, track: dict[str, np.ndarray], seconds: float, seed: int
) -> tuple[str, ...]:
    """Train all but the audio encoder; returns the names of the weights that changed (none, if that was best)."""
    from pretrain.audio_expression.targets import flatten_targets

    model, end = prior.model, time.monotonic() + seconds
    cut = int(len(features) * (1 - HELD_SHARE))
    names = [name for name, _ in model.named_parameters() if "audio." not in name and "styles." not in name]
    before = copy.deepcopy(model.state_dict())
    best, best_error, patience = None, _error(prior, style, features[cut:], track["expression"][cut:]), PATIENCE
    trained = [parameter for name, parameter in model.named_parameters() if name in set(names)]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in set(names))
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    targets = flatten_targets({name: rows[:cut] for name, rows in track.items()}, model.config.targets)
    rng, step = np.random.default_rng(seed), 0
    while time.monotonic() < end and patience:
        _step(model, optimizer, style, features[:cut], targets, rng)
        step += 1
        if step % CHECK_EVERY == 0:
            error = _error(prior, style, features[cut:], track["expression"][cut:])
            if error < best_error:
                best, best_error, patience = copy.deepcopy(model.state_dict()), error, PATIENCE
            else:
                patience -= 1
    model.load_state_dict(before if best is None else best)
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return () if best is None else tuple(names)


def _step(
    model: Any, optimizer: torch.optim.Optimizer, style: np.ndarray, features: np.ndarray, targets: np.ndarray, rng: Any
) -> None:
    """One denoising step on random windows, as in pretraining; half of them at pure noise, where talking starts."""
    from pretrain.audio_expression import diffusion

    device = model.alpha.device
    window = min(model.config.window, len(features))
    starts = rng.integers(0, len(features) - window + 1, 8)
    heard = torch.from_numpy(np.stack([features[s : s + window] for s in starts])).float().to(device)
    clean = model.encode(torch.from_numpy(np.stack([targets[s : s + window] for s in starts])).to(device))
    last = len(model.alpha) - 1
    t = torch.from_numpy(np.where(rng.random(8) < 0.5, last, rng.integers(0, last + 1, 8))).to(device)
    noise = torch.from_numpy(rng.standard_normal(clean.shape).astype(np.float32)).to(device)
    noise[t == last] = 0
    noisy = diffusion.add_noise(model.config.diffusion, clean, noise, t)
    wanted = torch.from_numpy(style)[None].expand(8, -1).to(device)
    yes = torch.ones(8, dtype=torch.bool, device=device)
    guess = model.predict(noisy, t, model.normalise(heard), wanted, yes)
    difference = torch.nn.functional.huber_loss(guess.diff(dim=1), clean.diff(dim=1))
    loss = (guess - clean).square().mean() + difference
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
    optimizer.step()


def _error(prior: Any, style: np.ndarray, features: np.ndarray, expression: np.ndarray) -> float:
    driver = PriorDriver(prior, style, options={"steps": 1, "temperature": 0.0})
    return float(((drive(driver, features)["expression"] - expression) ** 2).mean())
