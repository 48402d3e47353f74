"""The talking head as a module, and the optimisation core on a small made-up clip."""

import numpy as np
import pytest
import torch

from configs import InputError
from heads.fitting import RATES, Clip, FitConfig, Fitting
from heads.measures.image import psnr
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


def make_clip(rig, frames=12):
    """A clip drawn by a known head with random colours over a known wall."""
    torch.manual_seed(1)
    track = make_track(rig, frames)
    teacher = TalkingHead(rig, track["identity"], SIZE, SIZE, SMALL)
    with torch.no_grad():
        teacher.colors.copy_(torch.rand_like(teacher.colors) * 0.6 + 0.2)
        teacher.backdrop.background.uniform_(0.4, 0.5)
        teacher.backdrop.body_alpha.fill_(-20)
    drive = teacher.inputs(track)
    images, mattes = [], []
    with torch.no_grad():
        for i in range(frames):
            rendered = teacher.render(drive, i)
            images.append((rendered.image.clamp(0, 1) * 255).round().byte().numpy())
            mattes.append((rendered.alpha[..., 0] * 255).round().byte().numpy())
    return Clip(np.stack(images), np.stack(mattes), track)


def new_head(rig, clip, config=SMALL):
    torch.manual_seed(2)
    head = TalkingHead(rig, clip.track["identity"], SIZE, SIZE, config)
    head.calibrate(clip.track)
    return head


@torch.no_grad()
def quality(head, clip):
    drive = head.inputs(clip.track)
    return np.mean([psnr(head.render(drive, i).image, clip.frame(i)) for i in range(len(clip))])


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


def test_fitting_reproduces_the_clip_and_every_part_moves(rig):
    clip = make_clip(rig)
    head = new_head(rig, clip)
    appearance_basis = head.add_appearance_basis(2, 10)
    appearance_basis.basis.data.normal_(std=0.01)
    appearance_basis.row.fill_(3)
    before, start = quality(head, clip), {k: v.clone() for k, v in head.state_dict().items()}
    fitting = Fitting(head, clip, FitConfig(coarse=0, full_every=2, seed=3))
    for k in range(60):
        losses = fitting.step(k / 60)
    assert quality(head, clip) > max(before + 6, 24)
    assert set(losses) >= {"l1", "d_ssim", "loss"}
    named = dict(head.named_parameters())
    for part in RATES:
        moved = [not torch.equal(start[name], p) for name, p in named.items() if name == part or name.startswith(part)]
        assert any(moved), part


def test_an_interrupted_fit_goes_on_exactly(rig):
    clip = make_clip(rig, 5)

    def run(head, fitting, steps):
        for k in steps:
            fitting.step(k / 8)

    config = HeadConfig(resolution=24, color_rank=3, offset_rank=3, correction_rank=4, hidden=8, noise=0.0)
    whole = new_head(rig, clip, config)
    run(whole, Fitting(whole, clip, FitConfig(coarse=0)), range(8))
    first = new_head(rig, clip, config)
    fitting = Fitting(first, clip, FitConfig(coarse=0))
    run(first, fitting, range(5))
    saved = {k: v.clone() for k, v in first.state_dict().items()}, fitting.state_dict()
    second = new_head(rig, clip, config)
    resumed = Fitting(second, clip, FitConfig(coarse=0))
    second.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    run(second, resumed, range(5, 8))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(value, second.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_a_window_shows_the_same_pixels_as_the_whole_frame(rig):
    clip = make_clip(rig, 2)
    head, drive = new_head(rig, clip), None
    with torch.no_grad():
        head.colors.uniform_()
        head.backdrop.background.uniform_()
    drive = head.inputs(clip.track)
    whole = head.render(drive, 1).image
    part = head.render(drive, 1, window=(10, 20, 32, 40)).image
    torch.testing.assert_close(part, whole[10:42, 20:60], atol=2e-3, rtol=0)


def test_another_size_shows_the_same_view(rig):
    clip = make_clip(rig, 2)
    head = new_head(rig, clip)
    drive = head.inputs(clip.track)
    small = head.render(drive, 0, size=(SIZE // 2, SIZE // 2)).alpha.detach()[..., 0]
    large = head.render(drive, 0).alpha.detach()[..., 0]
    for axis in (0, 1):
        centres = []
        for alpha in (small, large):
            places = (torch.arange(len(alpha)) + 0.5) / len(alpha)
            centres.append(float((alpha.sum(axis) * places).sum() / alpha.sum()))
        assert abs(centres[0] - centres[1]) < 0.01


def test_residual_motion_of_a_recipe_moves_the_head(rig):
    clip = make_clip(rig, 2)
    head = new_head(rig, clip)
    drive = head.inputs(clip.track)
    still, means = head.render(drive, 0), torch.zeros(head.n, 3)
    same = head.render(drive, 0, delta=Motion(means, torch.zeros(head.n, 3), torch.zeros(head.n, 4)))
    torch.testing.assert_close(same.image, still.image, atol=1e-5, rtol=0)
    moved = head.render(drive, 0, delta=Motion(means + torch.tensor([0.5, 0, 0])))
    columns = torch.arange(SIZE)[None, :, None]
    shift = (moved.alpha * columns).sum() / moved.alpha.sum() - (still.alpha * columns).sum() / still.alpha.sum()
    assert 1 < float(shift) < 10


def test_an_extra_loss_of_a_recipe_is_added_to_the_step(rig):
    clip = make_clip(rig, 3)
    fitting = Fitting(new_head(rig, clip), clip)
    seen = []

    def extra(rendered, frame):
        seen.append((rendered.image.shape, frame))
        return rendered.image.mean() * 0 + 7.0

    losses = fitting.step(0.5, frame=2, extra=extra)
    assert losses["extra"] == 7
    assert losses["loss"] > 7
    assert seen == [((SIZE, SIZE, 3), 2)]


def test_unusable_clips_are_refused(rig):
    clip = make_clip(rig, 3)
    head = new_head(rig, clip)
    with pytest.raises(InputError, match="no frames"):
        Fitting(head, Clip(clip.frames[:0], clip.mattes[:0], clip.track))
    with pytest.raises(InputError, match="rows of track"):
        Fitting(head, Clip(clip.frames[:2], clip.mattes[:2], clip.track))
    with pytest.raises(InputError, match="expected the head's"):
        Fitting(head, Clip(clip.frames[:, ::2], clip.mattes, clip.track))
    with pytest.raises(InputError, match="resolution"):
        TalkingHead(rig, clip.track["identity"], SIZE, SIZE, HeadConfig(resolution=2))
    with pytest.raises(ValueError, match="maps: expected shape"):
        TalkingHead(rig, clip.track["identity"], SIZE, SIZE, SMALL, maps=torch.zeros(3, 14))


def test_a_frame_that_breaks_the_arithmetic_leaves_the_head_alone(rig):
    clip = make_clip(rig, 3)
    head = new_head(rig, clip)
    fitting = Fitting(head, clip)
    fitting.step(0.5)
    before = {k: v.clone() for k, v in head.state_dict().items()}
    losses = fitting.step(0.5, extra=lambda rendered, frame: rendered.image.sum() * float("nan"))
    assert losses["skipped"] == 1
    assert all(torch.equal(before[k], v) for k, v in head.state_dict().items())
