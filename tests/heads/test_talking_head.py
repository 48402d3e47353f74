"""The talking head as a module: what a new one shows, its views, its residual motion."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from configs import InputError
from heads.gaussians.neck import FADE, neck_fade
from heads.motion.fields import Motion
from heads.person.talking_head import HeadConfig, TalkingHead
from heads.rig import load_rig

SIZE = 64
SMALL = HeadConfig(resolution=24, color_rank=3, offset_rank=3, correction_rank=4, hidden=8)


@pytest.fixture(scope="module")
def rig():
    return load_rig("mediapipe")


def make_track(rig, frames=12):
    g = np.random.default_rng(0)
    turn = np.linspace(-0.2, 0.2, frames)
    rotation = np.tile(np.eye(3, dtype=np.float32), (frames, 1, 1))
    rotation[:, 0, 0], rotation[:, 0, 2] = np.cos(turn), np.sin(turn)
    rotation[:, 2, 0], rotation[:, 2, 2] = -np.sin(turn), np.cos(turn)
    translation = np.tile(np.array([0, -0.2, 20], np.float32), (frames, 1))
    translation[:, 0] = np.linspace(-0.3, 0.3, frames)
    expression = np.cumsum(g.normal(size=(frames, rig.n_expression)), axis=0).astype(np.float32) * 0.2
    track = {
        "rotation": rotation,
        "translation": translation,
        "intrinsics": np.array([[4 * SIZE, 0, SIZE / 2], [0, 4 * SIZE, SIZE / 2], [0, 0, 1]], np.float32),
        "identity": np.zeros(rig.n_identity, np.float32),
        "expression": expression,
        "eyelids": np.zeros((frames, 2), np.float32),
        "gaze": np.zeros((frames, 2, 2), np.float32),
    }
    vertices = rig.vertices(torch.zeros(frames, rig.n_identity), torch.from_numpy(expression))[:, :478].numpy()
    camera = np.einsum("tij,tnj->tni", rotation, vertices) + translation[:, None]
    pixels = camera[..., :2] / camera[..., 2:] * 4 * SIZE + SIZE / 2
    track["landmarks"] = np.concatenate([pixels, camera[..., 2:]], -1).astype(np.float32)
    return track


def new_head(rig, track):
    torch.manual_seed(2)
    head = TalkingHead(rig, track["identity"], SIZE, SIZE, SMALL)
    head.calibrate(track)
    return head


def test_a_short_neck_leaves_out_what_would_not_be_drawn(rig):
    track = make_track(rig)
    parts = replace(SMALL, resolution=64)
    long = TalkingHead(rig, track["identity"], SIZE, SIZE, parts)
    short = TalkingHead(rig, track["identity"], SIZE, SIZE, replace(parts, neck=FADE))
    gone = neck_fade(long.uv, rig) == 1
    assert short.n == int((~gone).sum()) < 0.8 * long.n
    assert set(long.uv.regions[gone].tolist()) == {rig.regions["neck"]}
    assert torch.equal(short.maps(), long.maps()[~gone])
    long.opacities.data[gone] = -9.0
    for head in (long, short):
        head.backdrop.background.data.fill_(0.3)
        head.calibrate(track)
    images = [head.render(head.inputs(track), 7).image for head in (long, short)]
    assert images[0].std() > 0.05
    assert torch.equal(*images)


def test_a_new_head_is_its_rigged_gaussians_whatever_the_expression_and_pose(rig):
    track = make_track(rig)
    full = TalkingHead(rig, track["identity"], SIZE, SIZE, SMALL)
    plain = HeadConfig(resolution=24, color_rank=0, offset_rank=0, correction_rank=0, body=False)
    bare = TalkingHead(rig, track["identity"], SIZE, SIZE, plain)
    full.calibrate(track)
    drive = full.inputs(track)
    for i in (0, 7):
        a, b = full.render(drive, i, background=None), bare.render(drive, i)
        torch.testing.assert_close(a.image, b.image)
        torch.testing.assert_close(a.alpha, b.alpha)


def test_a_window_shows_the_same_pixels_as_the_whole_frame(rig):
    track = make_track(rig, 2)
    head, drive = new_head(rig, track), None
    with torch.no_grad():
        head.colors.uniform_()
        head.backdrop.background.uniform_()
    drive = head.inputs(track)
    whole = head.render(drive, 1).image
    part = head.render(drive, 1, window=(10, 20, 32, 40)).image
    torch.testing.assert_close(part, whole[10:42, 20:60], atol=2e-3, rtol=0)


def test_another_size_shows_the_same_view(rig):
    track = make_track(rig, 2)
    head = new_head(rig, track)
    drive = head.inputs(track)
    small = head.render(drive, 0, size=(SIZE // 2, SIZE // 2)).alpha.detach()[..., 0]
    large = head.render(drive, 0).alpha.detach()[..., 0]
    for axis in (0, 1):
        centres = []
        for alpha in (small, large):
            places = (torch.arange(len(alpha)) + 0.5) / len(alpha)
            centres.append(float((alpha.sum(axis) * places).sum() / alpha.sum()))
        assert abs(centres[0] - centres[1]) < 0.01


def test_residual_motion_of_a_recipe_moves_the_head(rig):
    track = make_track(rig, 2)
    head = new_head(rig, track)
    drive = head.inputs(track)
    still, means = head.render(drive, 0), torch.zeros(head.n, 3)
    same = head.render(drive, 0, delta=Motion(means, torch.zeros(head.n, 3), torch.zeros(head.n, 4)))
    torch.testing.assert_close(same.image, still.image, atol=1e-5, rtol=0)
    moved = head.render(drive, 0, delta=Motion(means + torch.tensor([0.5, 0, 0])))
    columns = torch.arange(SIZE)[None, :, None]
    shift = (moved.alpha * columns).sum() / moved.alpha.sum() - (still.alpha * columns).sum() / still.alpha.sum()
    assert 1 < float(shift) < 10


def test_impossible_sizes_are_refused(rig):
    identity = make_track(rig, 2)["identity"]
    with pytest.raises(InputError, match="resolution"):
        TalkingHead(rig, identity, SIZE, SIZE, HeadConfig(resolution=2))
    with pytest.raises(ValueError, match="maps: expected shape"):
        TalkingHead(rig, identity, SIZE, SIZE, SMALL, maps=torch.zeros(3, 14))
