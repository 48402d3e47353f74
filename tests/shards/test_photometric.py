"""Tracks refined on the pixels: a textured head drawn at known poses and expressions, and tracked with errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from heads.geometry.rotation import rotation_matrix
from heads.rig import load_rig
from shards.tracking.coefficients import fitter_of
from shards.tracking.refinement.photometric import PhotometricRefiner, _pictures
from shards.tracking.refinement.surface import FACING, GRAZING, LINEARISATIONS, ROBUST, SIDE, Start, _skin
from shards.tracking.shrinking import shrunk
from tests.support import alignment
from tests.support.avatars import SIZE, World, make_world

ERRORS = {"rotation": 0.01, "translation": 0.01, "expression": 0.3}  # standard deviations


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), 60)


@pytest.fixture(scope="module")
def rough(world: World) -> dict[str, np.ndarray]:
    """The world's track with independent errors in every frame."""
    rng = np.random.default_rng(0)
    noise = {name: rng.normal(0, size, (*world.track[name].shape[:1], 3)) for name, size in ERRORS.items()}
    turn = rotation_matrix(torch.from_numpy(noise["rotation"].astype(np.float32))).numpy()
    expression = world.track["expression"].copy()
    expression[:, :3] += noise["expression"]
    return {
        **world.track,
        "rotation": turn @ world.track["rotation"].astype(np.float32),
        "translation": (world.track["translation"] + noise["translation"]).astype(np.float32),
        "expression": expression.astype(np.float32),
    }


def refiner(world: World, texture=None) -> PhotometricRefiner:
    return PhotometricRefiner(fitter_of(), world.track["identity"], world.track["intrinsics"], SIZE, texture)


def points(world: World, track: dict[str, np.ndarray]) -> np.ndarray:
    """Landmarks ``[T, N, 2]`` px of the rig as tracked."""
    rig, put = load_rig(), {name: torch.from_numpy(np.float32(track[name])) for name in (*ERRORS, "eyelids")}
    local = rig.landmarks(
        rig.vertices(torch.from_numpy(world.track["identity"])[None], put["expression"], put["eyelids"])
    )
    camera = local @ put["rotation"].transpose(1, 2) + put["translation"][:, None]
    return (camera[..., :2] / camera[..., 2:] * world.track["intrinsics"][0, 0] + SIZE / 2).numpy()


def test_errors_of_a_track_are_removed(world: World, rough: dict[str, np.ndarray]) -> None:
    texture = _texture_of(world)
    refined = refiner(world, texture)(world.frames, rough)
    truth = points(world, world.track)
    before = np.sqrt(((points(world, rough) - truth) ** 2).sum(-1).mean())
    after = np.sqrt(((points(world, {**rough, **refined}) - truth) ** 2).sum(-1).mean())
    assert before > 0.3
    assert after < 0.6 * before


def test_the_first_frames_are_a_reference_that_removes_their_own_jitter(
    world: World, rough: dict[str, np.ndarray]
) -> None:
    refined = refiner(world)(world.frames, rough)
    truth = points(world, world.track)

    def jitter(track: dict[str, np.ndarray]) -> float:
        off = points(world, track) - truth  # a constant offset is the reference's own
        return float(np.sqrt(((off - off.mean(0)) ** 2).sum(-1).mean()))

    assert jitter({**rough, **refined}) < 0.5 * jitter(rough)
    for name, values in refined.items():
        assert values.dtype == np.float32
        assert values.shape == rough[name].shape


def test_a_frames_values_do_not_depend_on_the_frames_beside_it(world: World, rough: dict[str, np.ndarray]) -> None:
    refine = refiner(world, _texture_of(world))
    whole = refine(world.frames, rough)
    part = refine(world.frames[7:12], {name: rows[7:12] if len(rows) == 60 else rows for name, rows in rough.items()})
    for name, values in part.items():
        np.testing.assert_allclose(values, whole[name][7:12], atol=1e-5)


def test_the_kernel_gives_the_corrections_of_plain_pytorch(world: World, rough: dict[str, np.ndarray]) -> None:
    """Of 5 frames, the fourth of which shows the back of the head: there, neither corrects anything."""
    some = {name: rows[:5].copy() if len(rows) == 60 else rows for name, rows in rough.items()}
    some["rotation"][3] = rotation_matrix(torch.tensor([[0.0, np.pi, 0.0]])).numpy()[0]
    frames = world.frames[:5]
    refine, texture = refiner(world), _texture_of(world)
    found = refine._corrections(texture, _pictures(frames), Start.of(some))
    rig, skin, who = fitter_of().rig, _skin(fitter_of().rig), torch.from_numpy(world.track["identity"])[None]
    moves = torch.cat([rig.expression, rig.eyelids * rig.lid_scale(who)[0, :, None, None]])
    base = skin.on(rig.vertices(who, torch.zeros(1, rig.n_expression))[0])
    given = (
        skin.normals,
        skin.on(moves),
        *(torch.from_numpy(x) for x in (texture.values, texture.weights, refine._camera)),
    )
    pictures, coefficients = _pictures(frames), np.concatenate([some["expression"], some["eyelids"]], 1)
    tracks = (pictures, some["rotation"], some["translation"], coefficients)
    for k in range(5):
        frame = (torch.from_numpy(rows[k]).double() for rows in tracks)
        surface, limits = (x.double() for x in (base, *given)), (GRAZING, FACING)
        expected = alignment.align(*frame, *surface, limits, ROBUST, torch.from_numpy(refine._prior), LINEARISATIONS)
        np.testing.assert_allclose(found[k], expected.numpy(), atol=2e-4)
    assert np.abs(found).max(1).astype(bool).tolist() == [True, True, True, False, True]


def test_pictures_are_luma_and_redness_blurred_with_their_slopes() -> None:
    import cv2

    frame = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    levels = frame.astype(np.float64) / 255
    red, green, blue = levels[..., 0], levels[..., 1], levels[..., 2]
    (planes,) = _pictures(frame[None])
    for k, channel in enumerate((0.3 * red + 0.59 * green + 0.11 * blue, 2 * red - 2 * green)):
        weights = np.array([0.25, 0.5, 0.25])
        blurred = cv2.sepFilter2D(channel, -1, weights, weights)
        across = cv2.filter2D(blurred, -1, np.array([[-0.5, 0, 0.5]]))
        down = cv2.filter2D(blurred, -1, np.array([[-0.5], [0], [0.5]]))
        np.testing.assert_allclose(planes[[k, 2 + k, 4 + k]], [blurred, across, down], atol=1e-6)


@pytest.mark.parametrize("shape", [(512, 512), (320, 320), (128, 128), (100, 90), (301, 513)])
def test_small_copies_are_means_over_areas(shape: tuple[int, int]) -> None:
    import cv2

    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8), (0, 0), 8)
    for side in ((128, 128), (80, 128)):
        expected = cv2.resize(picture, side[::-1], interpolation=cv2.INTER_AREA).astype(int)
        small = shrunk(picture, *side)
        assert small.shape == (*side, 3)
        assert np.abs(small - expected).max() <= 2


def test_a_covered_face_is_left_as_tracked(world: World, rough: dict[str, np.ndarray]) -> None:
    refine = refiner(world, _texture_of(world))
    covered = world.frames[:5].copy()
    covered[:] = np.random.default_rng(1).integers(0, 255, covered.shape, np.uint8)
    some = {name: rows[:5] if len(rows) == 60 else rows for name, rows in rough.items()}
    refined = refine(covered, some)
    assert np.abs(points(world, {**some, **refined}) - points(world, some)).mean() < 1.5


def test_a_profile_in_the_first_frames_does_not_spoil_the_texture(world: World, rough: dict[str, np.ndarray]) -> None:
    turned = {name: rows.copy() for name, rows in rough.items()}
    turned["rotation"][0] = rotation_matrix(torch.tensor([[0.0, np.pi, 0.0]])).numpy()[0]  # shows the back of the head
    refine = refiner(world)
    refined = refine(world.frames, turned)
    assert refine.texture is not None
    assert np.isfinite(refine.texture.values).all()
    for name, values in refined.items():
        assert np.isfinite(values).all(), name
    np.testing.assert_allclose(refined["rotation"][0], turned["rotation"][0], atol=1e-5)


def _texture_of(world: World):
    first = refiner(world)
    first(world.frames[:30], {name: rows[:30] if len(rows) == 60 else rows for name, rows in world.track.items()})
    return first.texture
