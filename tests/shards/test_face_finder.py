"""Which of MediaPipe's two face detectors look at a picture."""

import numpy as np
import pytest

from shards.tracking.models import faces


@pytest.mark.parametrize(
    ("side", "score", "count"), [(0.5, 0.95, 1), (0.2, 0.95, 2), (0.5, 0.6, 2)], ids=["large", "small", "uncertain"]
)
def test_far_faces_are_looked_for_unless_a_large_one_is_certain(side, score, count):
    finder = faces.FaceFinder.__new__(faces.FaceFinder)
    finder._near = lambda picture: _found((0.1, 0.1, side, side, score))
    finder._far = lambda picture: _found((0.8, 0.8, 0.1, 0.1, 0.9))
    assert len(finder(np.zeros((100, 100, 3), np.uint8))) == count


def _found(*faces):
    from mediapipe.framework.formats.detection_pb2 import Detection

    found = []
    for x, y, width, height, score in faces:
        detection = Detection(score=[score])
        box = detection.location_data.relative_bounding_box
        box.xmin, box.ymin, box.width, box.height = x, y, width, height
        found.append(detection)
    return type("Outputs", (), {"detections": found})
