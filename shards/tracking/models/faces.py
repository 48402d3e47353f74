"""Face boxes, and whether a face is upside down."""

from __future__ import annotations

from typing import Any

import numpy as np

from shards.tracking.models.solutions import quiet, solutions

# Scores of the face detector, measured on 267 frames of 89 people: a face that stands on its head is found too, with at
# most 0.82, and the same picture turned scores at least 0.07 more.
CERTAIN, MARGIN = 0.85, 0.03


class FaceFinder:
    """Boxes of all faces in a picture, near and far."""

    def __init__(self) -> None:
        with quiet():
            faces = solutions().face_detection
            self._finders = [faces.FaceDetection(0.5, model_selection=k) for k in (0, 1)]
        self._score = 0.0  # the highest of the last picture

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """``[N, 4]`` px x0, y0, x1, y1 of faces, largest first: the detections of both models without duplicates."""
        height, width = picture.shape[:2]
        found = self._detections(picture)
        self._score = _best(found)
        places = []
        for detection in found:
            box = detection.location_data.relative_bounding_box
            places.append((box.xmin, box.ymin, box.xmin + box.width, box.ymin + box.height))
        boxes = np.array(places, np.float32).reshape(-1, 4) * np.array([width, height, width, height], np.float32)
        return _distinct(boxes[np.argsort(-_areas(boxes))])

    def upside_down(self, picture: np.ndarray) -> bool:
        """Whether the picture that was just searched shows its face upside down.

        Detector and landmarks both take such a face for an upright one, with the mouth on the forehead.
        """
        if self._score >= CERTAIN:
            return False
        return _best(self._detections(picture[::-1, ::-1])) > self._score + MARGIN

    def _detections(self, picture: np.ndarray) -> list[Any]:
        picture = np.ascontiguousarray(picture)
        with quiet():
            return [one for finder in self._finders for one in finder.process(picture).detections or ()]

    def close(self) -> None:
        for finder in self._finders:
            finder.close()


def _best(detections: list[Any]) -> float:
    """The highest score, 0 for none."""
    return max((float(one.score[0]) for one in detections), default=0.0)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _distinct(boxes: np.ndarray) -> np.ndarray:
    """Drops boxes whose centre lies in a larger one that is kept."""
    kept: list[np.ndarray] = []
    for box in boxes:
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        if not any(k[0] <= x <= k[2] and k[1] <= y <= k[3] for k in kept):
            kept.append(box)
    return np.array(kept, np.float32).reshape(-1, 4)
