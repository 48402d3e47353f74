"""Region masks: coverage, antialiasing, what belongs to what."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from configs import InputError
from heads.masks import REGIONS, fill_polygons, region_masks
from heads.rig import facemesh, load_rig

SIZE = 128


@pytest.fixture(scope="module")
def landmarks():
    """The mean head's landmarks, (2, 478, 3) px: mouth shut, and open."""
    rig = load_rig()
    expression = torch.stack([torch.zeros(rig.n_expression), rig.control("jaw")["expression"]])
    points = rig.vertices(torch.zeros(1, rig.n_identity), expression)[:, :478].numpy()
    return points * 26 + np.array([SIZE / 2, SIZE / 2 - 8, 0])


def polygon_area(points):
    x, y = points[..., 0], points[..., 1]
    return 0.5 * np.abs((x * np.roll(y, -1, -1) - y * np.roll(x, -1, -1)).sum(-1))


@pytest.mark.parametrize("seed", range(5))
def test_a_polygon_covers_its_area_wherever_it_lies(seed):
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
    polygon = 20 * np.stack([np.cos(angle), np.sin(angle)], -1) * rng.uniform(0.4, 1, (9, 1)) + rng.uniform(28, 36, 2)
    mask = fill_polygons(polygon[None], 64, 64)[0]
    assert mask.sum() == pytest.approx(polygon_area(polygon), rel=0.01)
    assert 0 <= mask.min() <= mask.max() <= 1 + 1e-6


def test_a_square_of_half_pixels_has_half_covered_edges():
    square = np.array([[[1.5, 1.5], [3.5, 1.5], [3.5, 3.5], [1.5, 3.5]]])
    expected = np.outer([0, 0.5, 1, 0.5, 0], [0, 0.5, 1, 0.5, 0])
    assert np.allclose(fill_polygons(square, 5, 5)[0], expected)


def test_polygons_beyond_the_picture_are_cut_off():
    big = np.array([[[-50.0, -50], [100, -50], [100, 100], [-50, 100]]])
    assert np.allclose(fill_polygons(big, 8, 6), 1)
    away = big + 1000
    assert fill_polygons(away, 8, 6).max() == 0
    assert fill_polygons(np.full((1, 4, 2), np.nan), 8, 6).max() == 0


def test_a_polygon_moves_smoothly_with_its_corners():
    square = np.array([[[10.0, 10], [20, 10], [20, 20], [10, 20]]])
    masks = np.concatenate([fill_polygons(square + np.array([shift, 0.0]), 32, 32) for shift in np.linspace(0, 1, 9)])
    assert np.abs(np.diff(masks, axis=0)).max() <= 0.126


@pytest.mark.parametrize("levels", [None, 255])
def test_a_window_of_the_masks_is_that_part_of_the_whole_ones(landmarks, levels):
    matte = np.full((2, SIZE, SIZE), 0.5, np.float32)
    whole = region_masks(landmarks, SIZE, SIZE, REGIONS, matte, levels)
    part = region_masks(landmarks, 90, 41, REGIONS, matte[:, 17:107, 35:76], levels, (17, 35))
    for name in REGIONS:
        assert whole[name][:, 17:107, 35:76].any(), name
        assert np.allclose(part[name], whole[name][:, 17:107, 35:76], atol=1e-6), name


def test_regions_lie_inside_each_other_as_a_face_does(landmarks):
    masks = region_masks(landmarks, SIZE, SIZE)
    assert set(masks) == {"face", "eyes", "lips", "mouth_inside", "head"}
    for mask in masks.values():
        assert mask.shape == (2, SIZE, SIZE)
        assert mask.dtype == np.float32
        assert 0 <= mask.min() <= mask.max() <= 1 + 1e-6
    for inner in ("eyes", "lips", "mouth_inside"):
        assert (masks[inner] * (1 - masks["face"])).max() < 1e-5
    assert (masks["face"] * (1 - masks["head"])).max() < 1e-5
    assert (masks["lips"] * masks["mouth_inside"]).max() < 0.6  # only shared border pixels
    assert masks["head"].sum() > 1.5 * masks["face"].sum()


def test_the_sure_head_has_all_hair_above_the_mouth_and_nothing_beside_the_jaw(landmarks):
    landmarks = landmarks * 0.5 + SIZE / 4  # room for hair
    masks = region_masks(landmarks, SIZE, SIZE, ("face", "head", "sure_head"))
    eyes, mouth = (int(landmarks[0, rows, 1].mean()) for rows in ((33, 263), facemesh.LIP_CORNERS))
    face, head, sure = (masks[name][0].sum(-1) for name in ("face", "head", "sure_head"))
    assert sure[eyes] > 2 * face[eyes] > 1.3 * head[eyes]
    assert sure[mouth] < 1.15 * face[mouth] < 0.9 * head[mouth]
    assert (masks["face"] * (1 - masks["sure_head"])).max() < 0.01
    top = np.flatnonzero(face)[0]
    assert np.flatnonzero(sure)[0] < np.flatnonzero(head)[0] < top


def test_an_opening_mouth_shows_its_inside_and_keeps_its_lips(landmarks):
    masks = region_masks(landmarks, SIZE, SIZE)
    shut, wide = masks["mouth_inside"].sum((1, 2))
    assert wide > 2 * shut
    assert masks["lips"][1].sum() == pytest.approx(masks["lips"][0].sum(), rel=0.5)


def test_hair_and_neck_are_the_person_without_the_face(landmarks):
    tall = SIZE + 60
    matte = np.full((2, tall, SIZE), 255, np.uint8)
    matte[:, :, : SIZE // 2] = 0
    masks = region_masks(landmarks, tall, SIZE, ("face", "hair_neck"), matte=matte)
    assert (masks["hair_neck"] * masks["face"]).max() < 0.3
    assert masks["hair_neck"][:, :, : SIZE // 2].max() == 0
    assert masks["hair_neck"][:, 4, SIZE // 2 :].min() > 0.9  # hair above the face
    assert masks["hair_neck"][:, -1].max() < 0.1  # not the chest


def test_torch_in_torch_out(landmarks):
    masks = region_masks(torch.from_numpy(landmarks), SIZE, SIZE, ("lips",))
    assert isinstance(masks["lips"], torch.Tensor)
    assert np.array_equal(masks["lips"].numpy(), region_masks(landmarks, SIZE, SIZE, ("lips",))["lips"])


def test_wrong_input_is_named(landmarks):
    with pytest.raises(InputError, match="unknown region 'beard'"):
        region_masks(landmarks, 8, 8, ("beard",))
    with pytest.raises(InputError, match=r"shape \(3, 68, 2\)"):
        region_masks(np.zeros((3, 68, 2)), 8, 8)
    with pytest.raises(InputError, match="hair_neck needs a matte"):
        region_masks(landmarks, 8, 8, ("hair_neck",))


def test_levels_are_those_of_a_mask_kept_in_eight_bits(landmarks):
    plain = region_masks(landmarks, SIZE, SIZE)
    for name, mask in region_masks(landmarks, SIZE, SIZE, levels=255).items():
        assert np.array_equal(mask, (plain[name] * 255 + 0.5).astype(np.uint8).astype(np.float32) / 255.0)


def test_polygons_that_cross_themselves_and_leave_the_picture_are_filled_by_the_even_odd_rule():
    star = np.array([[[16, -4], [26, 28], [-2, 8], [34, 8], [6, 28]]], np.float64)
    mask = fill_polygons(star, 32, 32)[0]
    inside = np.zeros((32 * 8, 32 * 8))
    y, x = (np.mgrid[: 32 * 8, : 32 * 8] + 0.5) / 8
    for (ax, ay), (bx, by) in zip(star[0], np.roll(star[0], -1, 0), strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            inside += ((ay <= y) != (by <= y)) & (x < ax + (y - ay) / (by - ay) * (bx - ax))
    exact = (inside % 2).reshape(32, 8, 32, 8).mean((1, 3))
    assert np.abs(mask - exact).max() < 0.3
    assert np.abs(mask - exact).mean() < 0.01
