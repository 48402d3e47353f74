"""The one module that touches MediaPipe: face landmarks, face boxes, person matte, all from the models in its wheel."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from configs import InputError

MATTE_SIZE = 256  # px, what the matte's network sees


class FaceLandmarks:
    """Refined FaceMesh on successive pictures of one face."""

    def __init__(self, *, still: bool = False) -> None:
        """``still``: every picture on its own, searched anew; otherwise the face is followed."""
        with _quiet():
            self._mesh = _solutions().face_mesh.FaceMesh(
                static_image_mode=still, max_num_faces=1, refine_landmarks=True, min_detection_confidence=0.4
            )
        self._warm = False

    def __call__(self, picture: np.ndarray) -> np.ndarray | None:
        """Landmarks (478, 3) px of the face in a picture (H, W, 3) uint8 RGB, z relative in px; ``None``: no face."""
        with contextlib.nullcontext() if self._warm else _quiet():
            found = self._mesh.process(np.ascontiguousarray(picture)).multi_face_landmarks
        if not found:
            return None
        self._warm = True  # the landmarks' network is loaded, with its remarks, when the first face is there
        points = np.array([(p.x, p.y, p.z) for p in found[0].landmark], np.float32)
        height, width = picture.shape[:2]
        return points * np.array([width, height, width], np.float32)

    def forget(self) -> None:
        """Searches the next picture anew: after a cut the old place means nothing."""
        self._mesh.reset()

    def close(self) -> None:
        self._mesh.close()


class FaceFinder:
    """Boxes of all faces in a picture, near and far."""

    def __init__(self) -> None:
        with _quiet():
            faces = _solutions().face_detection
            self._finders = [faces.FaceDetection(0.5, model_selection=k) for k in (0, 1)]

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """(n, 4) px x0, y0, x1, y1 of faces, largest first; both models' findings with doubles removed."""
        height, width = picture.shape[:2]
        boxes = []
        for finder in self._finders:
            with _quiet():
                for found in finder.process(np.ascontiguousarray(picture)).detections or ():
                    box = found.location_data.relative_bounding_box
                    boxes.append((box.xmin, box.ymin, box.xmin + box.width, box.ymin + box.height))
        boxes = np.array(boxes, np.float32).reshape(-1, 4) * np.array([width, height, width, height], np.float32)
        return _distinct(boxes[np.argsort(-_areas(boxes))])

    def close(self) -> None:
        for finder in self._finders:
            finder.close()


class PersonMatte:
    """Alpha of the person in front, per picture."""

    def __init__(self) -> None:
        with _quiet():
            self._segmenter = _solutions().selfie_segmentation.SelfieSegmentation(model_selection=0)
        self._warm = False

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """(H, W) uint8 alpha of a picture (H, W, 3) uint8 RGB."""
        from PIL import Image

        height, width = picture.shape[:2]
        small = Image.fromarray(picture).resize((MATTE_SIZE, MATTE_SIZE), Image.Resampling.BILINEAR, reducing_gap=1.5)
        with contextlib.nullcontext() if self._warm else _quiet():
            alpha = self._segmenter.process(np.asarray(small)).segmentation_mask
        self._warm = True
        alpha = Image.fromarray((np.clip(alpha, 0, 1) * 255 + 0.5).astype(np.uint8))
        return np.asarray(alpha.resize((width, height), Image.Resampling.BICUBIC))

    def close(self) -> None:
        self._segmenter.close()


def tessellation() -> np.ndarray:
    """Edges (E, 2) of the face mesh, as MediaPipe publishes them."""
    from mediapipe.python.solutions.face_mesh_connections import FACEMESH_TESSELATION

    return np.array(sorted(FACEMESH_TESSELATION))


def version() -> str:
    """MediaPipe's version, for records."""
    from importlib.metadata import version as installed

    return f"mediapipe {installed('mediapipe')}"


def _solutions() -> Any:
    try:
        import mediapipe
    except ImportError:
        raise InputError("tracking needs mediapipe 0.10.21: pip install 'headstart[track]'") from None
    return mediapipe.solutions


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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what the native library writes to standard error while it starts; it cannot be told otherwise."""
    os.environ.setdefault("GLOG_minloglevel", "3")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with contextlib.suppress(ValueError, OSError):
        sys.stderr.flush()
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)
