"""The end of an adaptation: voice and body video, and how many seconds of the budget they and the last save need.

Voice and body video depend on the tracked clip alone. In a wall-clock budget they are made as soon as the clip is tracked,
so that nothing remains for the end but to measure and to save, which this very run has timed several times by then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from adapt.avatar.avatar import loudness_driver
from adapt.avatar.body import BODY_FRAMES, write_body
from adapt.avatar.writer import BODY
from adapt.budget import Clock
from adapt.clip import LEAST_FRAMES, Clip
from adapt.drivers.base import Driver
from adapt.drivers.closing import LipClosing
from adapt.drivers.personal_voice import LIVE_BLOCKS, person_driver, ready_for_live
from adapt.drivers.prior import QUICK_FEATURE
from adapt.drivers.ridge import CHOOSING_FRAMES, RidgeDriver
from adapt.fit.state import seed_step
from adapt.in_step import put_in_step
from adapt.plan import Plan
from adapt.priors import record_of
from adapt.saving import Run, provenance_of
from configs import progress
from configs.scratch import ScratchFolder
from pretrain.roles import MOTION
from shards.features.whisper_live import BLOCK

# Share by which the end may take longer than it did when it was timed; other programs may start meanwhile · guess
MARGIN = 1.5
LEAST = 0.3  # s for what is not timed, such as removing temporary files · guess
TRIED = 10  # frames that are encoded to see how long a frame takes
# s a pixel of the body video, and s a squared frame of the regression, up to the frames that its penalties are chosen on ·
# processor time of an AMD EPYC core, 454 frames of 512 px and 454 to 1,362 frames
ENCODED, REGRESSED = 2e-8, 2.5e-6
HEARD = 0.004  # s a row of a speech encoder for live use · processor time of an Intel Xeon core


class Ending:
    """What is left to do once the steps end.

    Args:
        plan: of the run.
        folder: where the body video lies until the avatar is written.

    Attributes:
        driver: turns sound into expressions; ``None`` until :meth:`prepare`.
        frame_seconds: wall clock that a frame of the body video takes to encode, as far as it is known.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.body = plan, folder / BODY
        self.driver: Driver | None = None
        self.frame_seconds = ENCODED * plan.config.size**2

    def prepare(self, run: Run) -> tuple[Driver, Path]:
        """The voice, and the file of the body video; made on the first call."""
        if self.driver is None:
            with run.fit.clock.timed("voice"):
                self.driver = fit_voice(run)
            with run.fit.clock.timed("body video"):
                write_body(self.body, run.clip, min(len(run.clip), BODY_FRAMES), provenance_of(self.plan))
            run.fit.clock.reserve = self.seconds(run.fit.clock)
        return self.driver, self.body

    def try_encoding(self, clip: Clip) -> None:
        """Time a few frames of the body video."""
        frames, start = min(len(clip), TRIED), time.monotonic()
        with ScratchFolder("body") as folder:
            write_body(folder / BODY, clip, frames, provenance_of(self.plan))
        self.frame_seconds = (time.monotonic() - start) / frames

    def seconds(self, clock: Clock) -> float:
        """Wall clock that the end will take, the voice's own share of the budget included, as far as it is known by now."""
        step, saving, measuring = (clock.latest.get(stage, 0.0) for stage in ("steps", "saving", "measuring"))
        # A save renders one frame, a measurement three; the one that runs when time is up is finished.
        last = step + saving + max(measuring, saving)
        if self.driver is not None:
            return MARGIN * last + LEAST
        slowness = max(1.0, self.frame_seconds / (ENCODED * self.plan.config.size**2))
        voice = REGRESSED * min(self.plan.frames, CHOOSING_FRAMES) ** 2 * slowness
        if self.plan.feature.name != QUICK_FEATURE:
            voice += HEARD * min(self.plan.frames, LIVE_BLOCKS * BLOCK) * slowness
        body = self.frame_seconds * min(self.plan.frames, BODY_FRAMES)
        budget = self.plan.voice_budget
        return MARGIN * (last + voice + body) + LEAST + ((budget.seconds or 0.0) if budget is not None else 0.0)


def fit_voice(run: Run) -> Driver:
    """The driver that turns sound into this person's expressions.

    The prior of motion is fine-tuned within the voice's share of the budget; after a stop it is used as it is. Without
    a prior the driver is a regression on the clip, and without sound it is the loudness.
    """
    clip, config = run.clip, run.plan.voice
    if not clip.has_sound or len(clip) < LEAST_FRAMES:
        return loudness_driver(run.context.rig, clip.track["expression"])
    if run.plan.in_step and (offset := put_in_step(clip)).seconds:
        progress.say(f"{run.plan.video}: {offset}")
    prior, record = run.context.priors.motion, record_of(run.context.priors.records, MOTION)
    if config is None or prior is None or record is None:
        lips = LipClosing.fit(run.context.rig, np.asarray(clip.identity, np.float32), clip.track["expression"])
        return RidgeDriver.fit(clip.features(), clip.track["expression"]).closed(lips)
    with progress.task("fitting the voice", unit="steps") as task:
        steps = _voice_steps(run, task)
        driver = person_driver(prior, clip, record, run.context.rig, steps=steps, seed=run.plan.seed)
        return ready_for_live(driver, clip, run.context.rig)


def _voice_steps(run: Run, task: progress.Task) -> Iterator[int]:
    """Steps of the fine-tuning, as long as its share of the budget lasts; each with random numbers of its own."""
    budget, main = run.plan.voice_budget, run.fit.clock
    if budget is None:
        return
    clock = Clock(budget)
    for _ in clock.steps(0.0, 1.0):
        if main.stopped:
            return
        seed_step(run.plan.seed, run.plan.device, "voice", clock.iterations)
        yield clock.iterations
        clock.tick()
        task.advance()
