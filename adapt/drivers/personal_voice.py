"""How this person speaks: a prior of motion in their speaking style, fine-tuned on their clip.

Source: GGTalker (2025), section 3.3: the audio encoder stays frozen, the rest is trained at a low rate, and the weights
that are best on held-out seconds of the clip are kept (early stopping). With little sound, the prior itself may be best.

A prior that does not know this voice opens the mouth too wide or to the wrong sounds, so its amplitude is calibrated:
each component is scaled by the slope of a regression of the tracked values on the predicted ones, around the person's
resting face, of which a short clip tells only a part. The prior knows many voices but not this one, and a ridge regression
on the clip knows only this one, so the avatar is driven by a weighted mean of both. Lips that this mean brings near each
other are pressed (:mod:`adapt.drivers.closing`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import numpy as np
import torch

from adapt.clip import DRIVEN_BY_SOUND, Clip
from adapt.drivers.base import drive
from adapt.drivers.calibration import calibration, lip_weights
from adapt.drivers.closing import LipClosing
from adapt.drivers.live import LiveDriver
from adapt.drivers.low_delay import live_record
from adapt.drivers.prior import QUICK_FEATURE, PriorDriver
from adapt.drivers.ridge import RidgeDriver
from heads.adam import Adam
from heads.rig import Rig
from pretrain.roles import FineTunable, LiveFilter, LiveMotion, MotionPrior
from shards.features import extract_features, open_feature
from shards.features.whisper_live import BLOCK

HELD_SHARE = 0.2  # of the clip, at its end, for early stopping
RATE = 1e-4  # Adam's
CHECK_EVERY = 20  # steps
PATIENCE = 3  # checks without a gain, after which fine-tuning ends
# Shorter clips are neither fine-tuned on nor given a regression: there a gain cannot be told from chance.
CHOICE_FRAMES = 100
# Weight of people's usual resting face, in frames of a clip. Chosen by leaving people out: anything from 50 to 100 is as good.
REST_FRAMES = 75.0
MOST_REST_FRAMES = 500  # in which the usual face is predicted
# Frames that the regression for live use is corrected on, and the blocks of the encoder that they come from: a row takes 3 ms.
LIVE_FRAMES, LIVE_BLOCKS = 250, 8


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
    rest = expression.mean(0) if voice.calibration is None else voice.calibration[2]
    if len(features) >= CHOICE_FRAMES:
        voice = voice.averaged(RidgeDriver.fit(features, expression).resting(rest))
    return voice.closed(LipClosing.fit(rig, np.asarray(clip.identity, np.float32), expression))


def ready_for_live(driver: PriorDriver, clip: Clip, rig: Rig) -> PriorDriver:
    """The same driver; if its prior uses a speech encoder, with regressions for live use.

    An encoder takes in seconds at a time, so an avatar that had only its features would answer after eight seconds. If the
    prior has a regression on rows that look little ahead, it is corrected on the clip. A regression on log-mel is kept
    besides, for machines without the encoder.
    """
    expression = clip.track["expression"]
    if clip.feature.name == QUICK_FEATURE or len(expression) < CHOICE_FRAMES:
        return driver
    rows = extract_features(QUICK_FEATURE, clip.audio)[: len(expression)]
    quick = RidgeDriver.fit(rows, expression).low_delay().hearing(QUICK_FEATURE)
    driver = driver.with_quick(quick if driver.calibration is None else quick.resting(driver.calibration[2]))
    filter = driver.prior.live if isinstance(driver.prior, LiveMotion) else None
    return driver if filter is None else driver.with_live(_live_driver(driver, filter, clip, rig))


def _live_driver(driver: PriorDriver, filter: LiveFilter, clip: Clip, rig: Rig) -> LiveDriver:
    """The prior's regression for live use, corrected on frames of the clip."""
    expression = clip.track["expression"]
    frames = live_frames(len(expression))
    feature = open_feature(live_record(filter, clip.feature.record))
    rest = expression.mean(0) if driver.calibration is None else driver.calibration[2]
    rows, importance = feature.rows_at(clip.audio, frames), lip_weights(rig, expression.shape[1])
    return LiveDriver.fit(filter, rows, expression[frames], importance, rest)


def live_frames(count: int) -> np.ndarray:
    """The frames, of ``count``, that a regression for live use is corrected on: spread over the clip, but over few blocks of
    :mod:`shards.features.whisper_live`, which computes all rows of a block for one of them."""
    blocks = -(-count // BLOCK)
    chosen = np.unique(np.linspace(0, blocks - 1, min(LIVE_BLOCKS, blocks)).round().astype(int))
    inside = (chosen[:, None] * BLOCK + np.arange(BLOCK)).ravel()
    inside = inside[inside < count]
    return inside[np.linspace(0, len(inside) - 1, min(LIVE_FRAMES, len(inside))).round().astype(int)]


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
    weight, rest = lip_weights(rig, tracked.shape[1]), resting_face(voice.with_style(None), features, tracked)
    return voice.calibrated(calibration(sampled[first:], tracked[first:], weight, rest))


def resting_face(stranger: PriorDriver, features: np.ndarray, tracked: np.ndarray) -> np.ndarray:
    """The person's most probable resting face ``[K]``: the clip's mean, drawn towards that of people in general.

    A face drifts over seconds by about as much as faces differ, so the mean of a short clip says little about the rest of
    a video.

    Args:
        stranger: the prior's voice in the mean style.
        features: ``[T, C]`` of the clip.
        tracked: ``[T, K]`` its expressions.
    """
    seen = tracked.mean(0)
    some = slice(0, MOST_REST_FRAMES)
    usual = drive(stranger, features[some])["expression"].mean(0) + seen - tracked[some].mean(0)
    return usual + len(tracked) / (len(tracked) + REST_FRAMES) * (seen - usual)


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
