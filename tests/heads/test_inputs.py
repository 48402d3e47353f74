"""What drives a head: rotation vectors, neighbourhoods, inputs; and the backdrop that follows the pose."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from heads.geometry.rotation import rotation_matrix, rotation_vector
from heads.person.backdrop import Backdrop
from heads.person.image_registration import align, composed, inverse, planes, register
from heads.person.inputs import (
    AUDIO_CONTEXT,
    POSE,
    TRACK_CONTEXT,
    feature_windows,
    frame_vectors,
    head_inputs,
    neighbourhood,
    pose_vectors,
)
from heads.person.layers import first_row, places


def track(frames=6, expressions=5):
    g = np.random.default_rng(0)
    return {
        "rotation": Rotation.random(frames, random_state=0).as_matrix().astype(np.float32),
        "translation": g.normal(size=(frames, 3)).astype(np.float32),
        "intrinsics": np.diag([256.0, 256.0, 1.0]).astype(np.float32),
        "expression": g.normal(size=(frames, expressions)).astype(np.float32),
        "eyelids": g.random((frames, 2)).astype(np.float32),
        "gaze": g.random((frames, 2, 2)).astype(np.float32),
    }


def test_rotation_vectors_agree_with_scipy_and_invert():
    rotations = Rotation.random(50, random_state=1)
    matrices = torch.from_numpy(rotations.as_matrix())
    torch.testing.assert_close(rotation_vector(matrices), torch.from_numpy(rotations.as_rotvec()), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(rotation_matrix(rotation_vector(matrices)), matrices, atol=1e-6, rtol=1e-6)


def test_rotations_are_smooth_at_zero():
    zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.equal(rotation_matrix(zero), torch.eye(3, dtype=torch.float64))
    assert torch.autograd.gradcheck(rotation_matrix, (zero,), atol=1e-5)
    tiny = torch.tensor([1e-5, -2e-5, 3e-5])
    torch.testing.assert_close(rotation_vector(rotation_matrix(tiny)), tiny, atol=1e-7, rtol=1e-2)


def test_a_neighbourhood_holds_the_frame_and_the_means_around_it():
    rows = torch.arange(10.0)[:, None]
    out = neighbourhood(rows)
    assert out.shape == (10, 3)
    assert out[5].tolist() == [5, 5, 5]
    assert out[0].tolist() == [0, 0.5, 1.5]
    assert torch.equal(neighbourhood(rows[:1]), torch.zeros(1, 3))


def test_inputs_depend_only_on_the_tracks_near_a_frame():
    full = track(20)
    part = {k: v if k == "intrinsics" else v[5:16] for k, v in full.items()}
    torch.testing.assert_close(head_inputs(full).vectors[10], head_inputs(part).vectors[5])


def test_inputs_refuse_missing_and_uneven_entries():
    bad = track()
    bad["gaze"] = bad["gaze"][:3]
    with pytest.raises(ValueError, match="differ in frames"):
        head_inputs(bad)
    del bad["gaze"]
    with pytest.raises(ValueError, match="no entry 'gaze'"):
        head_inputs(bad)


def test_a_new_backdrop_stands_still_and_a_bent_one_moves_the_body_only():
    backdrop = Backdrop(40, 48, inputs=4, margin=0)
    with torch.no_grad():
        backdrop.background.uniform_()
        backdrop.body.uniform_()
        backdrop.body_alpha.fill_(-30.0)
        backdrop.body_alpha[..., 20:, :] = 30.0
    still = backdrop(torch.zeros(4))
    torch.testing.assert_close(still[:19], backdrop.background[0].permute(1, 2, 0)[:19])
    torch.testing.assert_close(still[21:], backdrop.body[0].permute(1, 2, 0)[21:])
    assert torch.equal(backdrop(torch.randn(4)), still)
    with torch.no_grad():
        backdrop.bend.weight[: 9 * 9] = 1 / 48
    moved = backdrop(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(moved[22:, :-1], still[22:, 1:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(moved[:18], still[:18])


def test_a_window_of_the_backdrop_is_that_part_of_it_laid_out_bilinearly():
    torch.manual_seed(0)
    backdrop, pose = Backdrop(40, 48, inputs=4), torch.randn(4)
    with torch.no_grad():
        for parameter in backdrop.parameters():
            torch.nn.init.normal_(parameter, std=0.02 if parameter is backdrop.bend.weight else 1.0)
    whole = backdrop(pose)
    torch.testing.assert_close(backdrop(pose, window=(7, 9, 20, 31)), whole[7:27, 9:40])
    points = backdrop.displacement(pose)
    expected = torch.nn.functional.interpolate(points, (40, 48), mode="bilinear", align_corners=True)
    moved = (places(points, 40, 48) - places(torch.zeros_like(points), 40, 48)).permute(0, 3, 1, 2) / 2
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=1e-4)


def test_displacements_that_are_affine_are_continued_into_the_margin():
    y, x = torch.meshgrid(torch.linspace(0, 1, 9), torch.linspace(0, 1, 9), indexing="ij")
    points = torch.stack([0.1 * x - 0.05 * y + 0.02, 0.03 * x])[None]
    moved = places(points, 40, 48, margin=(5, 6))
    still = places(torch.zeros_like(points), 40, 48, margin=(5, 6))
    assert moved.shape == (1, 50, 60, 2)
    torch.testing.assert_close(moved[:, 5:-5, 6:-6], places(points, 40, 48))
    assert still[0, 0, 0].tolist() == pytest.approx([-1 - 11 / 48, -1 - 9 / 40])
    steps = (moved - still).diff(dim=2)
    assert float(steps.std(dim=2).max()) < 1e-6
    assert places(points, 40, 48, (3, 2, 7, 8), (5, 6)).equal(moved[:, 3:10, 2:10])


def test_no_pose_bends_the_body_further_than_the_reach():
    backdrop = Backdrop(16, 16, inputs=2)
    torch.nn.init.normal_(backdrop.bend.weight)
    far, farther = (backdrop.displacement(torch.tensor([x, 0.0])) for x in (1e3, 1e6))
    assert torch.equal(far, farther)
    assert torch.isfinite(backdrop.displacement(torch.tensor([float("nan"), float("inf")]))).all()


def test_the_backdrop_starts_from_what_the_clip_shows():
    frames = np.full((3, 32, 32, 3), 50, np.uint8)
    mattes = np.zeros((3, 32, 32), np.uint8)
    frames[:, 16:], mattes[:, 16:] = 200, 255
    backdrop = Backdrop(32, 32, inputs=2)
    head = torch.zeros(3, 32, 32)
    head[:, 16:24, 12:20] = 1
    frames[:, 16:24, 12:20] = 7
    backdrop.initialise(frames, mattes, head, [0, 1, 2])
    picture = backdrop(torch.zeros(2)).detach() * 255
    assert (picture[:15] - 50).abs().max() < 4
    assert (picture[17:, :10] - 200).abs().max() < 8
    assert (backdrop.body[0, :, 18:22, 14:18] * 255 - 200).abs().max() < 8


def test_a_throat_goes_on_behind_the_head_that_hides_it():
    frames, mattes = np.full((3, 64, 64, 3), 240, np.uint8), np.zeros((3, 64, 64), np.uint8)
    head = torch.zeros(3, 64, 64)
    frames[:, 8:40, 16:48], mattes[:, 8:40, 16:48], head[:, 8:40, 16:48] = 9, 255, 1
    frames[:, 40:, 24:40], mattes[:, 40:, 24:40] = 120, 255  # the throat, narrower than the head
    backdrop = Backdrop(64, 64, inputs=2, margin=0)
    backdrop.initialise(frames, mattes, head, [0, 1, 2])
    alpha, colors = torch.sigmoid(backdrop.body_alpha[0, 0]), backdrop.body[0] * 255
    assert alpha[39:, 26:38].min() > 0.85
    assert (colors[:, 36:, 26:38] - 120).abs().max() < 3
    assert alpha[:30].max() < 0.05  # not up to the hair
    assert alpha[:, :22].max() < 0.05  # nor beside it
    assert (alpha[35:40, 30].diff() > 0).all()


def test_the_edge_of_the_heads_mask_leaves_no_line_in_the_body():
    frames, mattes = np.full((3, 64, 64, 3), 240, np.uint8), np.zeros((3, 64, 64), np.uint8)
    head = torch.zeros(3, 64, 64)
    frames[:, 8:40, 16:48], mattes[:, 8:40, 16:48], head[:, 8:40, 16:48] = 9, 255, 1
    head[:, 8:40, (16, 47)], head[:, (8, 39), 16:48] = 0.5, 0.5  # antialiased, inside the matte
    backdrop = Backdrop(64, 64, inputs=2, margin=0)
    backdrop.initialise(frames, mattes, head, [0, 1, 2])
    assert torch.sigmoid(backdrop.body_alpha).max() < 0.05


def test_hair_just_outside_the_matte_does_not_colour_the_background():
    frames, mattes = np.full((1, 64, 64, 3), 200, np.uint8), np.zeros((1, 64, 64), np.uint8)
    frames[:, :, 20:40], mattes[:, :, 21:39] = 0, 255  # the matte misses a pixel on either side
    backdrop = Backdrop(64, 64, inputs=2)
    backdrop.initialise(frames, mattes, torch.ones(1, 64, 64), [0])
    assert (backdrop.background * 255 - 200).abs().max() < 2


def test_what_the_head_hides_learns_next_to_nothing_from_what_shines_through():
    torch.manual_seed(0)
    backdrop = Backdrop(16, 16, 6, margin=0)
    optimizer = torch.optim.Adam([backdrop.background], lr=0.01, eps=backdrop.adam_eps)
    through = torch.ones(16, 16)
    through[:, :8] = 1e-3
    for _ in range(30):
        optimizer.zero_grad()
        (through * (backdrop.background - torch.rand(1, 3, 16, 16)).abs()).mean().backward()
        optimizer.step()
    moved = (backdrop.background.detach() - 0.5).abs()[0].mean(0)
    assert moved[:, :8].max() < 0.005 < 0.02 < moved[:, 8:].mean()


def test_rows_that_a_moved_torso_cannot_reach_are_left_out_and_no_others():
    torch.manual_seed(0)
    both, field = torch.rand(1, 4, 48, 48), (torch.rand(1, 2, 9, 9) - 0.5) / 4
    both[:, 3, :30] = 0
    whole = torch.nn.functional.grid_sample(both, places(field, 48, 48, margin=(6, 6)), align_corners=False)
    top = first_row(both[:, 3:], field, (6, 6))
    assert 6 < top < 36
    assert whole[:, 3, :top].max() == 0 < whole[:, 3, top:].max()
    assert first_row(torch.zeros(1, 1, 48, 48), field, (0, 0)) == 47


def test_the_body_starts_to_follow_the_pose_as_it_does_in_the_clip():
    # Stripes and a gradient, moved by up to four px with the first of two inputs; nothing is optimised.
    x = np.arange(96) / 8
    rows = np.arange(64)[:, None] / 64

    def frame(shift: float) -> np.ndarray:
        value = 120 + 60 * np.sin(x - shift / 8) + 40 * rows * np.cos(0.7 * (x - shift / 8))
        return np.repeat(value[:, 16:80, None], 3, -1).astype(np.uint8)

    poses = torch.tensor([[t, 0.1 * (-1) ** k] for k, t in enumerate(np.linspace(-2, 2, 12))], dtype=torch.float32)
    frames = np.stack([frame(2 * float(pose[0])) for pose in poses])
    mattes, head = np.full((12, 64, 64), 255, np.uint8), torch.zeros(12, 64, 64)
    unseen = torch.tensor([1.3, 0.0])
    errors = []
    for given in (None, poses):
        backdrop = Backdrop(64, 64, inputs=2)
        backdrop.calibrate(poses)
        backdrop.initialise(frames, mattes, head, range(12), given)
        shown = backdrop(unseen).detach().numpy() * 255
        errors.append(np.abs(shown - frame(2.6))[:, 8:-8].mean())
    assert errors[1] < 0.3 * errors[0], errors


def shirt(x: float, y: float, size: int = 64) -> np.ndarray:
    """A plaid picture ``[size, size, 3]`` uint8, moved by (x, y) px."""
    down, across = np.mgrid[:size, :size]
    value = 120 + 50 * np.sin((across - x) / 5) * np.cos((down - y) / 7) + 30 * np.cos((across - x + down - y) / 9)
    return np.repeat(value[..., None], 3, -1).astype(np.uint8)


def test_a_body_with_a_track_of_its_own_is_where_the_track_says_whatever_the_head_does():
    # The torso moves by up to 5 px; the pose is noise.
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(12, 2, generator=generator) * 10 - 5
    poses = torch.randn(12, 2, generator=generator)
    body = torch.zeros(12, 6)
    body[:, [0, 3]] = places / 32  # half pictures
    frames = np.stack([shirt(*place) for place in places.tolist()])
    mattes, head = np.full((12, 64, 64), 255, np.uint8), torch.zeros(12, 64, 64)
    backdrop = Backdrop(64, 64, inputs=2)
    backdrop.calibrate(poses)
    backdrop.initialise(frames, mattes, head, range(12), poses, body)
    place = torch.zeros(6)
    place[0], place[3] = 3 / 32, -2 / 32
    true, inner = shirt(3, -2), slice(8, -8)

    def error(**moved: torch.Tensor) -> float:
        shown = backdrop(torch.zeros(2), **moved).detach().numpy() * 255
        return float(np.abs(shown - true)[inner, inner].mean())

    assert error(body=place) < 2 < 10 < error()
    several = backdrop(torch.zeros(2, 2), body=torch.stack([place, place]))
    torch.testing.assert_close(several[0], backdrop(torch.zeros(2), body=place))
    # A torso that is registered to the layer is where the clip's track says.
    brightness = torch.from_numpy(true[None, ..., 0].astype(np.float32) / 255)
    found, agreement = align(brightness, torch.ones(1, 64, 64), backdrop.reference(64))
    assert (found.flatten() - place).abs()[[0, 3]].max() < 0.3 / 32
    assert agreement > 0.9


def test_a_background_with_a_track_stands_where_the_camera_shows_it_beyond_the_edges_of_single_frames_too():
    # The camera moves a wall by up to 5 px behind a person who stands still and covers the frame's lower middle.
    shifts = torch.linspace(-5, 5, 11)
    track = torch.zeros(11, 6)
    track[:, 0], track[:, 3] = (shifts + 1) / 32, -shifts / 64
    frames = np.stack([shirt(float(x) + 1, -float(x) / 2) for x in shifts])
    mattes = np.zeros((11, 64, 64), np.uint8)
    mattes[:, 40:, 20:44] = 255
    frames[:, 40:, 20:44] = 30
    moving, still = Backdrop(64, 64, inputs=2), Backdrop(64, 64, inputs=2)
    for backdrop, given in ((moving, track), (still, None)):
        backdrop.initialise(frames, mattes, torch.zeros(11, 64, 64), range(11), torch.zeros(11, 2), background=given)
        backdrop.body_alpha.data.fill_(-20)
    bare = slice(0, 36)

    def error(shown: torch.Tensor, frame: int) -> float:
        return float(np.abs(shown.detach().numpy() * 255 - frames[frame])[bare].mean())

    pose = torch.zeros(2)
    for k in (0, 5, 10):
        assert error(moving(pose, background=track[k]), k) < 3
    assert min(error(still(pose), k) for k in (0, 10)) > 12
    assert error(moving(pose), 5) < 3, "without a track it stands at its mean"
    part = moving(pose, 64, 64, (3, 5, 30, 40), background=track[9])
    torch.testing.assert_close(part, moving(pose, background=track[9])[3:33, 5:45])
    several = moving(torch.zeros(2, 2), background=track[[0, 9]])
    torch.testing.assert_close(several[1], moving(pose, background=track[9]))
    small = moving(pose, 32, 32, background=track[0])
    assert (
        float(
            (small - moving(pose, background=track[0]).unflatten(0, (32, 2)).unflatten(2, (32, 2)).mean((1, 3)))
            .abs()
            .mean()
        )
        < 0.02
    )
    picture = moving.background_reference(64).picture
    wall = torch.from_numpy(shirt(0, 0)[..., 0].astype(np.float32) / 255)  # where the track is zero
    assert float((picture - wall)[bare].abs().mean()) < 0.02


@pytest.mark.parametrize("margin", [0, 1 / 8])
def test_a_body_that_moves_shows_what_other_frames_cut_off(margin):
    # Each frame shows the 64 columns of a wider torso that are before the camera.
    body = torch.zeros(9, 6)
    shifts = torch.linspace(-6, 6, 9)
    body[:, 0] = shifts / 32
    frames = np.stack([shirt(shift, 0) for shift in shifts.tolist()])
    backdrop = Backdrop(64, 64, inputs=2, margin=margin)
    backdrop.initialise(
        frames, np.full((9, 64, 64), 255, np.uint8), torch.zeros(9, 64, 64), range(9), torch.zeros(9, 2), body
    )
    place = torch.zeros(6)
    place[0] = -5 / 32  # to the left, so that 5 columns of the right are seen that the middle frame cuts off
    shown = backdrop(torch.zeros(2), body=place).detach().numpy() * 255
    edge = np.abs(shown - shirt(-5, 0))[:, -5:].mean()
    assert edge < 3 if margin else edge > 8
    assert torch.sigmoid(backdrop.body_alpha.detach()).min() > 0.95  # what few frames show is no less solid


def test_a_body_that_was_saved_without_a_margin_opens_and_shows_what_it_showed():
    old, new = Backdrop(40, 48, inputs=2, margin=0), Backdrop(40, 48, inputs=2)
    with torch.no_grad():
        for parameter in old.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    new.load_state_dict(old.state_dict())
    assert new.framed == (1, 1)
    assert torch.equal(new(torch.ones(2)), old(torch.ones(2)))
    with pytest.raises(RuntimeError, match="size mismatch"):
        Backdrop(20, 24, inputs=2).load_state_dict(old.state_dict())


def test_a_backdrop_that_was_saved_before_bodies_had_a_track_opens_and_follows_the_head():
    old = Backdrop(16, 16, inputs=2)
    torch.nn.init.normal_(old.bend.weight)
    state = {name: value for name, value in old.state_dict().items() if name != "rest"}
    new = Backdrop(16, 16, inputs=2)
    new.load_state_dict(state)
    torch.testing.assert_close(new.displacement(torch.ones(2)), old.displacement(torch.ones(2)))


def test_affine_maps_are_undone_and_follow_each_other():
    motion = 0.2 * torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(composed(motion, inverse(motion)), torch.zeros(5, 2, 3), atol=1e-6, rtol=0)
    shift, grow = torch.zeros(2, 3), torch.zeros(2, 3)
    shift[0, 0], grow[0, 1] = 0.1, 1.0  # by 0.1 to the right; twice as wide
    assert composed(shift, grow)[0].tolist() == pytest.approx([0.2, 1.0, 0.0])
    assert composed(grow, shift)[0].tolist() == pytest.approx([0.1, 1.0, 0.0])


def test_registration_finds_where_a_region_went_and_leaves_blank_frames_alone():
    grid, _ = planes(48, 64, torch.zeros(()))

    def textured(p: torch.Tensor) -> torch.Tensor:
        return 0.5 + 0.2 * torch.sin(9 * p[..., 0]) * torch.cos(7 * p[..., 1]) + 0.1 * torch.sin(4 * p.sum(-1))

    # The frame shows at p + u(p) what the common picture shows at p.
    true = torch.tensor([[0.05, 0.02, 0.0], [-0.04, 0.0, 0.03]])
    linear = torch.eye(2) + true[:, 1:]
    moved = (grid - true[:, 0]) @ torch.linalg.inv(linear).T
    frames = torch.stack([textured(grid), textured(moved), torch.full((48, 64), 0.5)])
    found = register(frames, torch.ones_like(frames), first=0, rounds=1)
    torch.testing.assert_close(found[1], true, atol=4e-3, rtol=0)
    assert found[0].abs().max() < 1e-4
    assert found[2].abs().max() < 1e-4


def test_a_smaller_picture_is_the_same_view():
    backdrop = Backdrop(32, 32, inputs=2)
    with torch.no_grad():
        backdrop.background[..., :20] = 0.2
        backdrop.background[..., 20:] = 0.8
    small = backdrop(torch.zeros(2), 16, 16)
    assert small.shape == (16, 16, 3)
    assert abs(float(small[:, :6].mean()) - 0.2) < 0.02


def test_inputs_are_picked_changed_and_moved_without_losing_what_belongs_to_all_frames():
    inputs = head_inputs(track(10)).with_(index=torch.arange(10))
    part = inputs.pick([7, 2])
    assert part.index.tolist() == [7, 2]
    assert torch.equal(part.vectors, inputs.vectors[[7, 2]])
    assert torch.equal(part.intrinsics, inputs.intrinsics)
    assert part.features is None
    assert len(inputs.pick(slice(2, 5))) == 3
    assert inputs.to("cpu").with_(index=None).index is None


def test_cut_frames_serve_as_neighbours_only():
    full = track(20)
    del full["intrinsics"]
    cut = head_inputs(full, cut=TRACK_CONTEXT)
    assert len(cut) == 20 - 2 * TRACK_CONTEXT
    assert cut.intrinsics is None
    assert torch.equal(cut.vectors, head_inputs(full).vectors[TRACK_CONTEXT:-TRACK_CONTEXT])


def test_pose_vectors_are_the_poses_of_the_frame_and_its_neighbours():
    vectors = frame_vectors(track(8))
    width = vectors.shape[1]
    poses = pose_vectors(neighbourhood(vectors))
    assert poses.shape == (8, 3 * POSE)
    assert torch.equal(poses[:, :POSE], vectors[:, :POSE])
    assert torch.equal(poses[:, POSE : 2 * POSE], neighbourhood(vectors)[:, width : width + POSE])


def test_feature_windows_repeat_the_ends():
    rows = feature_windows(torch.arange(5.0)[:, None], torch.tensor([0, 4]))
    assert rows.shape == (2, 2 * AUDIO_CONTEXT + 1, 1)
    assert rows[0, :, 0].tolist()[AUDIO_CONTEXT:] == [0, 1, 2, 3, 4] + [4] * (AUDIO_CONTEXT - 4)
    assert rows[1, :, 0].tolist()[: AUDIO_CONTEXT + 1] == [0] * (AUDIO_CONTEXT - 4) + [0, 1, 2, 3, 4]


def test_hair_that_no_gaussian_shows_is_not_learned_as_background():
    def gradient(heads: torch.Tensor, rows: float) -> torch.Tensor:
        backdrop = Backdrop(64, 48, POSE)
        backdrop.background.grad = torch.ones_like(backdrop.background)
        backdrop.shield(heads, rows)
        return backdrop.background.grad[0, 0, 8:-8, 6:-6]

    heads = torch.zeros(2, 64, 48, 1)
    heads[0, 20:40, 10:20] = 1
    heads[1, 20:40, 30:35] = 1
    expected = torch.ones(64, 48)
    expected[19:30, 9:21] = 0  # a pixel beyond the head, since hair reaches there, and none below the given row
    assert torch.equal(gradient(heads[:1], rows=30 / 64), expected)
    expected[19:30, 29:36] = 0  # a gradient of two frames is that of their heads
    assert torch.equal(gradient(heads, rows=30 / 64), expected)
    for above in (-0.2, 0.0):
        assert gradient(heads, rows=above).all(), "the mouths are above the picture"
    assert not gradient(heads, rows=1.7)[35].all()


def test_hair_is_not_learned_where_a_moving_camera_shows_the_background_either():
    backdrop = Backdrop(64, 64, POSE)
    track = torch.zeros(1, 6)
    track[0, 0] = 4 / 32  # the frame shows the background 4 px further to the right
    heads = torch.zeros(1, 64, 64, 1)
    heads[0, 20:40, 20:30] = 1
    backdrop.background.grad = torch.ones_like(backdrop.background)
    backdrop.shield(heads, 30 / 64, track)
    kept = backdrop.background.grad[0, 0, 8:-8, 8:-8]
    assert kept[20:29, 16:26].max() < 1e-3
    assert kept[31:].min() == 1
    assert kept[:, 30:].min() == 1
