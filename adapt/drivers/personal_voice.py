"""How this person speaks: a prior of motion in their speaking style, fine-tuned on their clip.

Source: GGTalker (2025), section 3.3: the audio encoder stays frozen, the rest is trained at a low rate, and the weights
that are best on held-out seconds of the clip are kept (early stopping). With little sound, the prior itself may be best.

A prior that does not know this voice opens the mouth too wide or to the wrong sounds, so its amplitude is calibrated:
each component is scaled around the person's own mean by the slope of a regression of the tracked values on the predicted
ones. The prior knows many voices but not this one, and a ridge regression on the clip knows only this one, so the avatar
is driven by a weighted mean of both. Lips that this mean brings near each other are pressed (:mod:`adapt.drivers.closing`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import numpy as np
import torch

from adapt.clip import DRIVEN_BY_SOUND, Clip
from adapt.drivers.base import drive
from adapt.drivers.closing import LipClosing
from adapt.drivers.prior import QUICK_FEATURE, PriorDriver
from adapt.drivers.ridge import RidgeDriver
from heads.adam import Adam
from heads.rig import Rig
from heads.rig.facemesh import LIPS
from pretrain.roles import FineTunable, MotionPrior
from shards.features import extract_features

HELD_SHARE = 0.2  # of the clip, at its end, for early stopping
RATE = 1e-4  # Adam's
CHECK_EVERY = 20  # steps
PATIENCE = 3  # checks without a gain, after which fine-tuning ends
MOST_GAIN = 1.2  # largest factor on a component's amplitude
# Weight, in frames, of one gain common to all components against each component's own.
COMMON_FRAMES = 100.0
# Shorter clips are neither fine-tuned on nor given a regression: there a gain cannot be told from chance.
CHOICE_FRAMES = 100


def person_driver(
    prior: MotionPrior,
    clip: Clip,
    record: Mapping[str, object],
    rig: Rig,
    *,
    steps: Iterable[object] = (),
    seed: int = 0,
) -> PriorDriver:
    """This person's driver: the prior's voice, averaged from ``CHOICE_FRAMES`` frames on with a regression on the clip,
    its lips pressed where they nearly meet.

    Args:
        prior: its weights are changed in place if fine-tuning helps.
        clip: tracked, with the audio features that the prior was trained on.
        record: the prior's, as ``avatar.json`` holds it.
        steps: one item for each step that fine-tuning may take; it ends early when nothing is gained.
    """
    voice = person_voice(prior, clip, record, rig, steps=steps, seed=seed)
    features, expression = clip.features(), clip.track["expression"]
    if len(features) >= CHOICE_FRAMES:
        voice = voice.averaged(RidgeDriver.fit(features, expression))
    return voice.closed(LipClosing.fit(rig, np.asarray(clip.identity, np.float32), expression))


def ready_for_live(driver: PriorDriver, clip: Clip) -> PriorDriver:
    """The same driver; if its prior uses a speech encoder, with a regression on log-mel for live use.

    An encoder takes in seconds at a time, so an avatar that had only its features would answer after eight seconds.
    """
    expression = clip.track["expression"]
    if clip.feature.name == QUICK_FEATURE or len(expression) < CHOICE_FRAMES:
        return driver
    rows = extract_features(QUICK_FEATURE, clip.audio)[: len(expression)]
    return driver.with_quick(RidgeDriver.fit(rows, expression).low_delay().hearing(QUICK_FEATURE))


def person_voice(
    prior: MotionPrior,
    clip: Clip,
    record: Mapping[str, object],
    rig: Rig,
    *,
    steps: Iterable[object] = (),
    seed: int = 0,
) -> PriorDriver:
    """The prior in the clip's speaking style, fine-tuned where that helps on the clip's last seconds, calibrated."""
    features = clip.features()
    track = {name: clip.track[name] for name in DRIVEN_BY_SOUND}
    # In closed form only: further iterations take seconds and improved the style of none of eight speakers.
    style = prior.find_style(features, track, iterations=0, seed=seed)
    changed: tuple[str, ...] = ()
    if len(features) >= CHOICE_FRAMES and isinstance(prior, FineTunable):
        changed = _finetune(prior, style, features, track, steps, seed)
    voice = PriorDriver(prior, style, label=str(record.get("version", "")), changed=changed, seed=seed)
    # Fine-tuned weights look too good on the frames that they were fitted to, so the others calibrate them.
    first = int(len(features) * (1 - HELD_SHARE)) if changed else 0
    sampled, tracked = drive(voice, features)["expression"], track["expression"]
    weight = lip_weights(rig, tracked.shape[1])
    return voice.calibrated(calibration(sampled[first:], tracked[first:], weight, tracked))


def calibration(
    sampled: np.ndarray, true: np.ndarray, weight: np.ndarray, rest: np.ndarray | None = None
) -> np.ndarray:
    """``[3, K]``: gain, centre and rest of a voice, from its expressions ``[T, K]`` and the tracked ones ``[T, K]``.

    Args:
        weight: ``[K]`` of each component in the common gain, see :func:`lip_weights`.
        rest: frames whose mean is the person's resting face; those of ``true`` by default.
    """
    centre, mean = sampled.mean(0), true.mean(0)
    p, t = sampled - centre, true - mean
    power, shared = (p * p).sum(0), (p * t).sum(0)
    common = float((weight * shared).sum() / max(float((weight * power).sum()), 1e-9))
    prior_power = COMMON_FRAMES * power / max(len(p), 1)
    gain = (shared + prior_power * max(common, 0.0)) / np.maximum(power + prior_power, 1e-9)
    rest_mean = mean if rest is None else rest.mean(0)
    return np.stack([np.clip(gain, 0.0, MOST_GAIN), centre, rest_mean]).astype(np.float32)


def lip_weights(rig: Rig, components: int) -> np.ndarray:
    """How much each expression component deforms the lips (their common motion removed), ``[K]`` with mean 1."""
    basis = torch.cat([torch.zeros(1, components), torch.eye(components)]).to(rig.device)
    with torch.no_grad():
        identity = torch.zeros(len(basis), rig.n_identity, device=basis.device)
        points = rig.vertices(identity, basis)[:, list(LIPS), :2]
    moved = points[1:] - points[:1]
    energy = ((moved - moved.mean(1, keepdim=True)).flatten(1).cpu().numpy() ** 2).sum(1)
    return energy / energy.mean()


def _finetune(
    prior: FineTunable,
    style: np.ndarray,
    features: np.ndarray,
    track: dict[str, np.ndarray],
    steps: Iterable[object],
    seed: int,
) -> tuple[str, ...]:
    """Train all but the audio encoder; returns the names of the weights that changed (none, if that was best)."""
    cut = int(len(features) * (1 - HELD_SHARE))
    # The audio encoder and the styles, which were solved in closed form, stay fixed; the rest is trained.
    encoder = set(map(id, prior.audio_encoder.parameters()))
    trained = {n: p for n, p in prior.model.named_parameters() if id(p) not in encoder and "styles." not in n}
    for parameter in prior.model.parameters():
        parameter.requires_grad_(False)
    for parameter in trained.values():
        parameter.requires_grad_(True)
    before, best = copy.deepcopy(prior.state_dict()), None
    best_error, patience = _error(prior, style, features[cut:], track["expression"][cut:]), PATIENCE
    optimizer = Adam([{"params": list(trained.values()), "lr": RATE}])
    rng, step, checked = np.random.default_rng(seed), 0, 0

    def better() -> bool:
        nonlocal best, best_error, checked
        checked, error = step, _error(prior, style, features[cut:], track["expression"][cut:])
        found = error < best_error
        if found:
            best, best_error = copy.deepcopy(prior.state_dict()), error
        return found

    for _ in steps:
        _step(prior, optimizer, style, features[:cut], track, rng)
        step += 1
        if step % CHECK_EVERY == 0:
            patience = PATIENCE if better() else patience - 1
        if not patience:
            break
    if step > checked:
        better()
    prior.load_state_dict(before if best is None else best)
    for parameter in prior.model.parameters():
        parameter.requires_grad_(False)
    return () if best is None else tuple(trained)


def _step(
    prior: FineTunable,
    optimizer: Adam,
    style: np.ndarray,
    features: np.ndarray,
    track: dict[str, np.ndarray],
    rng: np.random.Generator,
    count: int = 8,
) -> None:
    """One step of the prior's own training loss on random windows of the clip."""
    window = min(prior.window, len(features))
    starts = rng.integers(0, len(features) - window + 1, count)

    def windows(rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.stack([rows[s : s + window] for s in starts])).float()

    targets = windows(track["expression"]), windows(track["eyelids"])
    loss = prior.loss(windows(features), *targets, torch.from_numpy(style))
    optimizer.zero_grad()
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def _error(prior: FineTunable, style: np.ndarray, features: np.ndarray, expression: np.ndarray) -> float:
    return float(((prior.expect(features, style=style)["expression"] - expression) ** 2).mean())
