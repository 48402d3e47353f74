"""A tiny dataset whose faces follow its sounds, for the tests of the priors; written in about a second."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.scratch import ScratchFolder
from heads.rig import load_rig
from shards.features import logmel
from shards.format.schema import sample_key
from shards.tar.writer import DatasetWriter

SIZE = 64
DISTANCE = 14.0  # rig units from the camera: the head fills most of the frame at focal 4


def talking(rng: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Sound (frames · 640,) whose loudness opens the mouth, and the opening (frames,) 0..1."""
    knots = rng.uniform(0, 1, frames // 4 + 3)
    opening = np.interp(np.arange(frames) / 4, np.arange(len(knots)), knots).astype(np.float32)
    loud = np.interp(np.arange(frames * 640) / 640 - 0.5, np.arange(frames), opening)
    return (0.3 * loud * rng.normal(size=frames * 640)).astype(np.float32), opening


def person_track(rig: Any, rng: np.random.Generator, opening: np.ndarray) -> dict[str, np.ndarray]:
    """Track of a head that opens its jaw by ``opening`` and turns a little."""
    frames = len(opening)
    jaw = rig.control("jaw", 1.0)["expression"].numpy()
    expression = opening[:, None] * jaw[None] + 0.05 * rng.normal(size=(frames, len(jaw)))
    identity = 0.5 * rng.normal(size=rig.n_identity)
    yaw = 0.2 * np.sin(np.arange(frames) / 7 + rng.uniform(0, 6))
    rotation = np.zeros((frames, 3, 3))
    rotation[:, 0, 0], rotation[:, 0, 2] = np.cos(yaw), np.sin(yaw)
    rotation[:, 2, 0], rotation[:, 2, 2] = -np.sin(yaw), np.cos(yaw)
    rotation[:, 1, 1] = 1
    track = {
        "rotation": rotation,
        "translation": np.tile([0.0, -0.5, DISTANCE], (frames, 1)),
        "intrinsics": np.array([[4 * SIZE, 0, SIZE / 2], [0, 4 * SIZE, SIZE / 2], [0, 0, 1]]),
        "identity": identity,
        "expression": expression,
        "eyelids": np.clip(rng.normal(size=(frames, 2)) * 0.1, 0, 1),
        "gaze": 0.1 * rng.normal(size=(frames, 2, 2)),
        "quality": np.ones(frames),
    }
    track = {name: np.asarray(value, np.float32) for name, value in track.items()}
    track["landmarks"] = landmarks_px(rig, track)
    return track


def landmarks_px(rig: Any, track: dict[str, np.ndarray]) -> np.ndarray:
    """The rig's landmarks projected to px, z relative and in px."""
    frames = len(track["expression"])
    identity = torch.from_numpy(track["identity"])[None].expand(frames, -1)
    vertices = rig.vertices(identity, torch.from_numpy(track["expression"]))[:, :478].numpy()
    points = vertices @ track["rotation"].transpose(0, 2, 1) + track["translation"][:, None]
    focal = track["intrinsics"][0, 0]
    pixels = points[..., :2] / points[..., 2:] * focal + track["intrinsics"][:2, 2]
    depth = (points[..., 2:] - DISTANCE) * focal / DISTANCE
    return np.concatenate([pixels, depth], -1).astype(np.float32)


def picture(rig: Any, track: dict[str, np.ndarray], colour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, S, S, 3) and mattes (T, S, S) uint8: a coloured disc with a dark mouth where the landmarks say."""
    frames = len(track["landmarks"])
    y, x = np.mgrid[:SIZE, :SIZE][:, None] + 0.5
    mark = track["landmarks"]
    centre, radius = mark[:, :, :2].mean(1), np.ptp(mark[:, :, 1], axis=1) / 2
    matte = ((x - centre[:, 0, None, None]) ** 2 + (y - centre[:, 1, None, None]) ** 2) < radius[:, None, None] ** 2
    mouth = (
        (np.abs(x - mark[:, 13, 0, None, None]) < 5)
        & (y > mark[:, 13, 1, None, None])
        & (y < mark[:, 14, 1, None, None] + 1)
    )
    image = np.where(matte[..., None], colour, 0.2) * np.where(mouth[..., None], 0.3, 1.0)
    return (image.reshape(frames, SIZE, SIZE, 3) * 255).astype(np.uint8), (matte * 255).astype(np.uint8)


def make_talkers(url: Path | str, people: int = 5, segments: int = 3, frames: int = 50, consent: str = "yes") -> str:
    """A dataset of ``people`` with one clip of ``segments`` each; returns its URL."""
    rig = load_rig()
    with DatasetWriter(url, samples_per_shard=4, rig=rig) as writer:
        for person in range(people):
            rng = np.random.default_rng(person)
            colour = rng.uniform(0.4, 0.9, 3)
            sound, opening = talking(rng, segments * frames)
            track = person_track(rig, rng, opening)
            for i in range(segments):
                part = slice(i * frames, (i + 1) * frames)
                piece = {k: v if k in ("identity", "intrinsics") else v[part] for k, v in track.items()}
                audio = sound[part.start * 640 : part.stop * 640]
                image, matte = picture(rig, piece, colour)
                meta = {"first_frame": part.start, "licence": "test", "consent": consent}
                key = sample_key(f"person{person}", f"clip{person}", i)
                features = {"logmel": logmel(audio)}
                writer.add(key, meta, frames=image, matte=matte, track=piece, audio=audio, features=features)
    return str(url)


@functools.cache
def talkers() -> str:
    """A dataset of five people, written once a test session."""
    return make_talkers(ScratchFolder("talkers").path / "data", people=5, segments=2)


class Alone:
    """The context of a run in this process: asks to stop once ``stop_at`` steps have been reported or asked about."""

    rank, world_size, is_main = 0, 1, True

    def __init__(self, run: str, stop_at: int | None = None) -> None:
        self.run, self.stop_at, self.asked = str(run), stop_at, 0

    def should_stop(self) -> bool:
        """True from the ``stop_at``-th call on; the loop asks once a step."""
        self.asked += 1
        return self.stop_at is not None and self.asked >= self.stop_at

    def latest_checkpoint(self) -> str | None:
        """Newest checkpoint of the run."""
        from cluster.checkpoint import latest_checkpoint

        return latest_checkpoint(self.run)

    def report(self, checkpoint: str | None, metrics: dict) -> None:
        """Nothing listens."""
