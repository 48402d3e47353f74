"""A tracker for tests of the builder: a "video" is a small JSON file that says what the tracker shall find in it."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import InputError
from tests.support.samples import parts

TRACKER = "tests.support.fake_tracker:track"


@dataclass
class Refusal:
    clip: str
    start: int
    end: int
    reason: str


@dataclass
class Segment:
    frames: Any
    matte: Any
    track: Any
    audio: Any
    first_frame: int
    crop_box: tuple = (0.0, 0.0, 32.0, 32.0)
    has_audio: bool = True


class Shot:
    """Yields its segments; may be slow, wait until a file exists, or take the whole process down."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan

    def __iter__(self):
        for i in range(self._plan.get("segments", 2)):
            time.sleep(self._plan.get("sleep", 0.0))
            while "until" in self._plan and not Path(self._plan["until"]).exists():
                time.sleep(0.01)
            if self._plan.get("crash"):
                os.kill(os.getpid(), signal.SIGKILL)
            length = self._plan.get("frames", 4)
            value = parts(self._plan.get("seed", 0) + i, length)
            sound = self._plan.get("sound", True)
            audio = value["audio"] if sound else value["audio"] * 0
            yield Segment(value["frames"], value["matte"], value["track"], audio, i * length, has_audio=sound)


class Video:
    """What the tracker returns: shots, and what was refused."""

    def __init__(self, name: str, plans: list[dict[str, Any]]) -> None:
        self.frames = sum(plan.get("segments", 2) * plan.get("frames", 4) for plan in plans)
        self.refusals = [Refusal(name, 0, 4, plan["refuse"]) for plan in plans if "refuse" in plan]
        self._plans = [plan for plan in plans if "refuse" not in plan]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __iter__(self):
        return map(Shot, self._plans)


def track(path, settings):
    """What ``shards.tracking.track_video`` does, from a plan."""
    try:
        plan = json.loads(Path(path).read_text())
    except ValueError:
        raise InputError(f"{path}: not a video") from None
    return Video(Path(path).stem, plan["shots"])


def write_video(folder: Path, name: str, *shots: dict[str, Any]) -> Path:
    """A "video" with these shots (one shot of two segments by default)."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.mp4"
    document = {"name": name, "shots": list(shots) or [{"seed": sum(map(ord, name))}]}  # no two files are equal
    path.write_text(json.dumps(document))
    return path
