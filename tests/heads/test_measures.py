"""Measures of images and faces, each against a value known beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from heads.measures import face, image
from heads.rig import facemesh


def test_psnr_is_the_definition_and_has_defined_ends():
    x = torch.zeros(4, 4, 3)
    assert image.psnr(x, x) == 100
    assert image.psnr(x, x + 0.1) == pytest.approx(20, abs=1e-4)
    mask = torch.zeros(4, 4)
    assert math.isnan(image.psnr(x, x, mask))
    mask[0] = 1
    half = x.clone()
    half[1:] = 1
    assert image.psnr(x, half, mask) == 100


def test_psnr_takes_arrays_and_counts_every_pixel_of_a_sequence_once():
    a, b = np.zeros((2, 4, 6, 3), np.float32), np.zeros((2, 4, 6, 3), np.float32)
    b[0] = 0.1
    assert image.psnr(a[0], b[0]) == pytest.approx(20, abs=1e-4)
    assert image.psnr(a, b) == pytest.approx(20 + 10 * math.log10(2), abs=1e-4)
    mask = np.zeros((2, 4, 6), np.float32)
    mask[0] = 0.5
    assert image.psnr(a, b, mask) == pytest.approx(20, abs=1e-4)


def test_psnr_per_image_has_one_value_an_image_and_the_same_limit():
    a = torch.zeros(3, 4, 4, 3)
    b = torch.stack([a[0], a[1] + 0.1, a[2] + 0.01])
    masks = torch.ones(3, 4, 4)
    masks[2] = 0
    values = image.psnr_per_image(a, b, masks)
    torch.testing.assert_close(values[:2], torch.tensor([100.0, 20.0]), atol=1e-4, rtol=0)
    assert values[2].isnan()
    with pytest.raises(ValueError, match="differ in shape"):
        image.psnr_per_image(a, b[:2])


def made_face() -> np.ndarray:
    """Landmarks [2, 478, 3]: eyes 4 apart (outer corners 6), mouth 3 wide, closed, then open by 1."""
    points = np.zeros((2, facemesh.N_LANDMARKS, 3))
    points[:, facemesh.EYE_CORNERS, 0] = [-3, -1, 1, 3]
    points[:, facemesh.IRIS_RIGHT, 0], points[:, facemesh.IRIS_LEFT, 0] = -2.5, 2.5
    points[:, facemesh.LIP_CORNERS, 0] = [-1.5, 1.5]
    points[:, facemesh.LIPS_INNER, 1] += 2
    points[1, facemesh.INNER_LOWER, 1] += 1
    for eye, gap in zip(facemesh.LID_PAIRS, (0.5, 0.25)):
        for _, lower in eye:
            points[:, lower, 1] += gap
    return points


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_face_measures_of_a_made_face(kind):
    points = made_face() if kind == "numpy" else torch.from_numpy(made_face())
    np.testing.assert_allclose(face.eye_distance(points), [4, 4])
    np.testing.assert_allclose(face.outer_eye_distance(points), [6, 6])
    np.testing.assert_allclose(face.iris_distance(points), [5, 5])
    np.testing.assert_allclose(face.mouth_width(points), [3, 3])
    np.testing.assert_allclose(face.inner_lip_distance(points), [0, 1])
    np.testing.assert_allclose(face.lip_gap(points), [0, 0.25])
    np.testing.assert_allclose(face.mouth_opening(points), [0, 1])
    np.testing.assert_allclose(face.lid_gap(points), [[0.5, 0.25]] * 2)
    np.testing.assert_allclose(face.lip_gap(points[..., :2]), [0, 0.25])


def test_landmark_lists_name_landmarks_once_and_agree_with_each_other():
    for name, value in vars(facemesh).items():
        if name.isupper() and isinstance(value, tuple) and isinstance(value[0], int):
            assert len(set(value)) == len(value), name
            assert 0 <= min(value) <= max(value) < facemesh.N_LANDMARKS, name
    assert len(facemesh.LIPS) == 40
    assert facemesh.UPPER_LID_RIGHT == (33, 246, 161, 160, 159, 158, 157, 173, 133)
    assert facemesh.LOWER_LID_RIGHT == (33, 7, 163, 144, 145, 153, 154, 155, 133)
    assert facemesh.LOWER_LID_LEFT == (263, 249, 390, 373, 374, 380, 381, 382, 362)
    assert set(facemesh.INNER_UPPER + facemesh.INNER_LOWER) <= set(facemesh.LIPS_INNER)
