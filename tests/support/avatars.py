"""A person who never lived: a rigged head with known tracks, rendered to a video with sound, for tests of adaptation.

The tracker is replaced by the truth, so that tests are quick and depend on no face detector.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adapt.budget import Clock
from shards.tracking.av_offset import AvOffset
from tests.support import sounds

SIZE = 96
FRAMES = 66


@contextlib.contextmanager
def stopped_after(steps: int) -> Iterator[None]:
    """An adaptation in the block is told to stop, by SIGTERM, after a number of steps."""
    tick = Clock.tick

    def stops(clock: Clock) -> None:
        tick(clock)
        if clock.iterations == steps:
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Clock, "tick", stops)
        yield


@dataclass
class World:
    """The person's video and everything that is true about it."""

    video: Path
    frames: np.ndarray
    mattes: np.ndarray
    track: dict[str, np.ndarray]
    sound: np.ndarray

    def segments(
        self,
        path,
        *,
        seconds=None,
        start=0.0,
        size=None,
        crop_box=None,
        identity=None,
        rig=None,
        matte_every=1,
        av_offset=None,
        behind=None,
        refine=True,
        texture=None,
        stop=None,
    ):
        """What ``shards.tracking.track_frames`` would say, for this video only."""
        assert Path(path) == self.video
        first = round(start * 25)
        last = len(self.frames) if seconds is None else min(len(self.frames), first + round(seconds * 25))
        for low in range(first, last, 25):
            rows = slice(low, min(last, low + 25))
            track = {k: v if k in ("identity", "intrinsics") else v[rows] for k, v in self.track.items()}
            yield SimpleNamespace(
                frames=self.frames[rows],
                matte=self.mattes[rows],
                track=track,
                audio=self.sound[rows.start * 640 : rows.stop * 640],
                first_frame=low,
                crop_box=(0, 0, SIZE, SIZE),
                fps=25,
                av_offset=AvOffset(av_offset or 0.0),
                texture=None,
            )

    def detect(self, frames):
        """Landmarks of rendered frames: those of the nearest true frame, so they depend on the pixels."""
        small = frames[:, ::8, ::8].astype(np.float32).reshape(len(frames), -1)
        known = self.frames[:, ::8, ::8].astype(np.float32).reshape(len(self.frames), -1)
        nearest = np.array([int(((known - row) ** 2).sum(1).argmin()) for row in small])
        return self.track["landmarks"][nearest].copy(), np.ones(len(frames), bool)


def make_world(folder: Path, frames: int = FRAMES) -> World:
    """Draw the person, let their jaw follow the loudness of a voice, and write the video."""
    import soundfile

    from shards.media.encode import VideoWriter

    loud = np.clip(np.sin(np.arange(frames) / 3.0), 0, 1).astype(np.float32)
    track = _tracks(frames, loud)
    pictures, mattes, landmarks = _draw(track)
    track["landmarks"] = landmarks
    spoken = sounds.voice(frames / 25).reshape(frames, 640)
    level = np.sqrt((spoken**2).mean(1, keepdims=True))
    sound = (0.12 * loud[:, None] * spoken / np.maximum(level, 0.02)).astype(np.float32).ravel()
    soundfile.write(folder / "sound.wav", sound, 16_000)
    video = folder / "person.mp4"
    with VideoWriter(video, SIZE, SIZE, sound=folder / "sound.wav", crf=10) as writer:
        for picture in pictures:
            writer.write(picture)
    return World(video, pictures, mattes, track, sound)


def _tracks(frames: int, loud: np.ndarray) -> dict[str, np.ndarray]:
    from heads.geometry.rotation import euler_to_rotation
    from heads.rig import load_rig

    rig, t = load_rig("mediapipe"), np.arange(frames)
    jaw = rig.control("jaw", 1.0)["expression"].numpy()
    intrinsics = np.array([[4 * SIZE, 0, SIZE / 2], [0, 4 * SIZE, SIZE / 2], [0, 0, 1]], np.float32)
    place = np.stack([0.1 * np.sin(t / 9), 0.1 * np.cos(t / 11) + 0.3, np.full(frames, 20.0)], 1)
    return {
        "rotation": euler_to_rotation(0.15 * np.sin(t / 10), 0.08 * np.cos(t / 8), 0.03 * np.sin(t / 6)),
        "translation": place.astype(np.float32),
        "expression": (loud[:, None] * jaw).astype(np.float32),
        "eyelids": np.repeat((t % 30 < 3).astype(np.float32)[:, None], 2, 1),
        "gaze": np.zeros((frames, 2, 2), np.float32),
        "identity": np.zeros(rig.n_identity, np.float32),
        "intrinsics": intrinsics,
        "quality": np.ones(frames, np.float32),
    }


def _draw(track: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from heads.gaussians.render import render_head
    from heads.gaussians.uv import UVGaussians
    from heads.rig import load_rig

    rig = load_rig("mediapipe")
    binding = UVGaussians(rig, 64)
    put = {name: torch.from_numpy(np.asarray(rows)) for name, rows in track.items()}
    count = len(track["rotation"])
    maps = binding.neutral()
    # A skin with texture: colours wave over the atlas, and every region has its own tint.
    texel = binding.texels.float() / 64
    tint = torch.rand(int(binding.regions.max()) + 1, 3, generator=torch.Generator().manual_seed(0))
    wave = 0.15 * torch.stack([(20 * texel[:, 0]).sin(), (17 * texel[:, 1]).cos(), (23 * texel.sum(1)).sin()], 1)
    maps[:, 10:13] = (0.25 + 0.5 * tint[binding.regions] + wave).clamp(0.05, 0.95)
    vertices = rig.vertices(put["identity"].expand(count, -1), put["expression"], put["eyelids"], put["gaze"])
    background = torch.linspace(0.1, 0.6, SIZE)[None, :, None].expand(SIZE, SIZE, 3)
    image, alpha, _ = render_head(
        binding.bind(vertices, maps[None]),
        put["rotation"],
        put["translation"],
        put["intrinsics"].expand(count, 3, 3),
        SIZE,
        SIZE,
        background,
    )
    camera = vertices[:, :478] @ put["rotation"].transpose(1, 2) + put["translation"][:, None]
    pixel = camera @ put["intrinsics"].T
    depth = (camera[..., 2:] / put["translation"][:, None, 2:] - 1) * put["intrinsics"][0, 0]
    landmarks = torch.cat([pixel[..., :2] / pixel[..., 2:], depth], -1)
    pictures = (image.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()
    return pictures, (alpha[..., 0] * 255).to(torch.uint8).numpy(), landmarks.numpy()
