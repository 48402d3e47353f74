"""Public array functions of features, tracking and the basis have the shapes that their docstrings promise."""

from __future__ import annotations

import numpy as np
import pytest

from shards.features import extract_features
from shards.features.logmel import LogMel, LogMelStream, logmel
from shards.features.whisper import log_mel, standardised
from shards.synthetic.look import raster
from shards.tracking import pose, shape_statistics
from tests.support.shapes import checked

FACE = np.random.default_rng(0).random((4, 478, 3)) + np.array([0, 0, 1])
CAMERA = pose.intrinsics_for(64.0)
SOUND = np.zeros(6400, np.float32)

CASES = {
    "logmel": lambda: checked(logmel)(SOUND),
    "LogMelStream.push": lambda: checked(LogMelStream().push)(SOUND),
    "Feature.extract": lambda: checked(LogMel().extract)(SOUND),
    "extract_features": lambda: checked(extract_features)("logmel", SOUND),
    "whisper.log_mel": lambda: checked(log_mel)(SOUND, np.ones((201, 80), np.float32), 40),
    "whisper.standardised": lambda: checked(standardised)(np.random.default_rng(0).random((5, 7))),
    "intrinsics_for": lambda: checked(pose.intrinsics_for)(64.0),
    "unproject": lambda: checked(pose.unproject)(FACE, CAMERA),
    "project": lambda: checked(pose.project)(FACE, CAMERA),
    "similarity": lambda: checked(pose.similarity)(FACE, FACE, np.ones(478)),
    "head_pose": lambda: checked(pose.head_pose)(64 * FACE, CAMERA, FACE[0], np.ones(478)),
    "landmark_weights": lambda: checked(shape_statistics.landmark_weights)(),
    "lid_gap": lambda: checked(shape_statistics.lid_gap)(FACE),
    "neutral_face": lambda: checked(shape_statistics.neutral_face)(FACE),
    "mirrored": lambda: checked(shape_statistics.mirrored)(FACE, np.arange(478)),
    "closures": lambda: checked(shape_statistics.closures)(FACE, FACE[0]),
    "interpolate": lambda: checked(raster.interpolate)(np.ones((9, 3)), np.zeros((5, 3), int), np.zeros((5, 2))),
}


@pytest.mark.parametrize("name", CASES)
def test_a_call_has_the_shapes_that_the_docstring_promises(name):
    CASES[name]()
