"""Turning a cloud to other axes moves every Gaussian as a rotation matrix would."""

from __future__ import annotations

import numpy as np
import pytest

from adapt.avatar.export.axes import checked_axes, half_turn, moved, rotation_matrices, to_axes
from configs import InputError
from tests.support.export_samples import covariances

HALF_TURN = np.diag([1.0, -1.0, -1.0])


def test_the_half_turn_of_quaternions_is_that_of_matrices(cloud):
    turned = half_turn(cloud)
    assert np.allclose(rotation_matrices(turned.quats), HALF_TURN @ rotation_matrices(cloud.quats), atol=1e-6)
    assert np.allclose(turned.means, cloud.means @ HALF_TURN.T)
    assert np.allclose(covariances(turned), HALF_TURN @ covariances(cloud) @ HALF_TURN.T, atol=1e-9)


def test_turning_twice_is_where_one_began(cloud):
    twice = half_turn(half_turn(cloud))
    assert np.array_equal(twice.means, cloud.means)
    assert np.allclose(rotation_matrices(twice.quats), rotation_matrices(cloud.quats), atol=1e-6)


def test_a_head_in_opengl_axes_is_upright_and_looks_at_the_viewer(cloud):
    means = np.zeros_like(cloud.means)
    means[0], means[1] = (0, -0.1, 0), (0, 0, -0.1)  # OpenCV axes: crown, and tip of the nose
    turned = to_axes(cloud.replace(means=means), "opengl")
    assert np.allclose(turned.means[0], (0, 0.1, 0))
    assert np.allclose(turned.means[1], (0, 0, 0.1))


def test_a_pose_moves_means_and_covariances(cloud):
    from heads.geometry.rotation import euler_to_rotation

    rotation = euler_to_rotation(*(np.radians([angle]) for angle in (30, -20, 10)))[0].astype(np.float64)
    posed = moved(cloud, rotation, np.array([0.1, 0.2, 0.3]))
    assert np.allclose(posed.means, cloud.means @ rotation.T + [0.1, 0.2, 0.3], atol=1e-6)
    assert np.allclose(covariances(posed), rotation @ covariances(cloud) @ rotation.T, atol=1e-8)


def test_unknown_axes_are_refused():
    assert checked_axes(None, "opengl") == "opengl"
    with pytest.raises(InputError, match="axes 'yup': expected opencv or opengl"):
        checked_axes("yup", "opengl")
