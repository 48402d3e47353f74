"""The background's own track: where a camera that moves shows it, and no motion where the camera stands still."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from heads.person.image_registration import Reference
from shards.tracking.background import BackgroundTracker, camera_moves, corner_shifts
from shards.tracking.body import CHUNK, SIDE, brightness_of

SIZE = 128


def room(x: float, y: float, zoom: float = 1.0) -> np.ndarray:
    """A wall with a door and a picture ``[SIZE, SIZE]``, moved by (x, y) px and enlarged about the frame's middle."""
    down, across = (np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2) / zoom
    across, down = across - x, down - y
    wall = 110 + 25 * np.sin(across / 11) * np.cos(down / 13) + 20 * np.sin((across + 2 * down) / 31)
    door = 60 / (1 + np.exp(-(across + 40) / 1.5)) - 50 / (1 + np.exp(-(down + 35) / 1.5))
    return wall + door


def filmed(camera: np.ndarray, person: np.ndarray, zoom: np.ndarray | None = None) -> tuple[torch.Tensor, np.ndarray]:
    """Brightness and mattes ``[T, SIZE, SIZE]`` of a person at ``person [T]`` px before a room moved by ``camera [T, 2]`` px."""
    down, across = np.mgrid[:SIZE, :SIZE]
    frames, mattes = [], []
    for k, (x, y) in enumerate(camera):
        behind = room(x, y, 1.0 if zoom is None else zoom[k])
        body = (np.abs(across - 64 - person[k]) < 20) & (down > 30) | (np.abs(across - 64 - person[k]) < 40) & (
            down > 84
        )
        shirt = 90 + 60 * np.sin((across - person[k]) / 4) * np.cos(down / 5)
        frames.append(np.repeat(np.where(body, shirt, behind)[..., None], 3, -1).clip(0, 255).astype(np.uint8))
        mattes.append(body.astype(np.uint8) * 255)
    return brightness_of(np.stack(frames)), np.stack(mattes)


def shifts(track: dict[str, np.ndarray]) -> np.ndarray:
    """Displacements ``[T, 2]`` px of the frame's middle."""
    return track["background"][:, [0, 3]] * SIZE / 2


TIME = np.arange(3 * CHUNK)
SWAY = 3 * np.sin(TIME / 4)
HANDHELD = np.stack([8 * np.sin(TIME / 9), 4 * np.sin(TIME / 6 + 1)], 1)


def test_a_handheld_camera_is_followed_within_a_third_of_a_pixel_whatever_the_person_does():
    track = BackgroundTracker()(*filmed(HANDHELD, SWAY))
    assert track["background"].shape == (len(TIME), 6)
    assert track["background"].dtype == track["background_quality"].dtype == np.float32
    found, true = shifts(track), HANDHELD - HANDHELD[0]
    error = np.abs(found - found[0] - true)
    assert np.median(error) < 0.1
    assert error.max() < 0.34
    assert np.median(track["background_quality"]) > 0.9
    assert camera_moves(track)


def test_frames_in_pieces_give_the_same_track_where_the_pieces_are_whole_chunks():
    brightness, mattes = filmed(HANDHELD, SWAY)
    whole, tracker = BackgroundTracker()(brightness, mattes), BackgroundTracker()
    parts = [tracker(brightness[part], mattes[part]) for part in (slice(2 * CHUNK), slice(2 * CHUNK, None))]
    for name, rows in whole.items():
        np.testing.assert_allclose(np.concatenate([part[name] for part in parts]), rows, atol=1e-5)


def test_a_camera_that_stands_still_has_a_track_of_zeros_while_the_person_moves():
    track = BackgroundTracker()(*filmed(np.zeros((len(TIME), 2)), 3 * SWAY))
    assert not track["background"].any()
    assert not track["background_quality"].any()
    assert not camera_moves(track)
    assert not camera_moves({})


def test_a_pan_that_leaves_little_of_the_first_frames_in_view_is_followed_to_its_end():
    pan = np.stack([np.concatenate([np.zeros(CHUNK), np.linspace(0, 42, 2 * CHUNK)]), np.zeros(len(TIME))], 1)
    track = BackgroundTracker()(*filmed(pan, np.zeros(len(TIME))))
    assert np.abs(shifts(track) - pan).max() < 0.5
    assert track["background_quality"][-1] > 0.9


def test_a_zoom_is_motion_too():
    zoom = np.concatenate([np.ones(CHUNK), np.linspace(1, 1.1, 2 * CHUNK)])
    track = BackgroundTracker()(*filmed(np.zeros((len(TIME), 2)), SWAY, zoom))
    linear = track["background"].reshape(-1, 2, 3)[:, [0, 1], [1, 2]]
    assert np.abs(linear - (zoom - 1)[:, None]).max() < 0.025
    assert camera_moves(track)
    far = corner_shifts(torch.from_numpy(track["background"]))
    assert far[-1] == pytest.approx(0.1 * 2**0.5, abs=0.03)


def test_frames_that_begin_elsewhere_in_an_avatars_background_are_found_from_the_places_of_its_clip():
    avatar = room(0, 0).astype(np.float32) / 255
    known = Reference(torch.from_numpy(avatar), torch.ones(SIDE, SIDE))
    camera = np.repeat([[50.0, -12.0]], 10, 0)
    brightness, mattes = filmed(camera, np.zeros(10))
    starts = torch.zeros(3, 2, 3)
    starts[:, :, 0] = torch.tensor([[-20.0, 0.0], [10.0, 0.0], [46.0, -10.0]]) / (SIZE / 2)
    track = BackgroundTracker(replace(known, starts=starts))(brightness, mattes)
    np.testing.assert_allclose(shifts(track), camera, atol=0.5)
    assert np.abs(shifts(BackgroundTracker(known)(brightness, mattes)) - camera).max() > 5


def test_where_the_person_fills_the_frame_there_is_no_track():
    brightness, mattes = filmed(HANDHELD, SWAY)
    track = BackgroundTracker()(brightness, np.full_like(mattes, 255))
    assert not track["background"].any()
    assert not track["background_quality"].any()
