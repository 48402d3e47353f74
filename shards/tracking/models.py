"""The one module that uses MediaPipe: face landmarks, face boxes and person matte, with the models in its wheel."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np

from configs import InputError
from heads.measures.face import outer_eye_distance
from heads.rig import load_rig
from heads.rig.facemesh import mirror_pairs

MATTE_SIZE = 256  # px, input of the matting network
SETTLING = 5  # runs on a first picture until the landmarks converge; before, they are 1 to 3 px off
# Scores of the face detector, measured on 267 frames of 89 people: a face that stands on its head is found too, with at
# most 0.82, and the same picture turned scores at least 0.07 more.
CERTAIN, MARGIN = 0.85, 0.03
SAME_FACE = 0.25  # outer eye distances: landmarks of one face in both pictures are nearer to each other (guess)
# A landmark as protobuf writes it: a tag and a length, then x, y and z, each after its tag.
_LANDMARK = np.dtype([("head", "u1", 2), *((f, t) for c in "xyz" for f, t in ((f"{c}_tag", "u1"), (c, "<f4")))])
_QUIET = threading.RLock()  # standard error belongs to the whole process: two threads must not take it from each other


class FaceLandmarks:
    """Refined FaceMesh on successive pictures of one face."""

    def __init__(self, *, still: bool = False) -> None:
        """``still``: search every picture from scratch; otherwise the face is tracked from picture to picture."""
        with _quiet():
            self._mesh = _solutions().face_mesh.FaceMesh(
                static_image_mode=still, max_num_faces=1, refine_landmarks=True, min_detection_confidence=0.4
            )
        self._warm, self._still, self._settled = False, still, False

    def __call__(self, picture: np.ndarray) -> np.ndarray | None:
        """Landmarks ``[478, 3]`` of the face in a picture ``[H, W, 3]`` uint8 RGB; ``None``: no face.

        In px, with 0 at the picture's edge as everywhere in this project; z is relative, in px.
        """
        picture = np.ascontiguousarray(picture)
        found = self._process(picture)
        if not found:
            self._settled = False
            return None
        if not (self._settled or self._still):
            for _ in range(SETTLING - 1):
                found = self._process(picture) or found
            self._settled = True
        points = _coordinates(found[0])
        height, width = picture.shape[:2]
        # MediaPipe counts from the middle of the first pixel.
        return points * np.array([width, height, width], np.float32) + np.array([0.5, 0.5, 0], np.float32)

    def _process(self, picture: np.ndarray) -> Any:
        with contextlib.nullcontext() if self._warm else _quiet():
            found = self._mesh.process(picture).multi_face_landmarks
        self._warm = self._warm or bool(found)  # the landmark network is loaded, and logs, at the first face
        return found

    def forget(self) -> None:
        """Search the next picture from scratch, as after a cut."""
        self._mesh.reset()
        self._settled = False

    def close(self) -> None:
        self._mesh.close()


class MirroredLandmarks(FaceLandmarks):
    """The mean of the landmarks of each picture and of its mirror image.

    FaceMesh is biased to one side, differently for each person; the mean is not. Avatars gain 0.4 dB on the face in unseen
    frames (five people, ``benchmarks mirrored``) for 4 to 5 ms a picture. Where only the picture shows a face, or the mirror
    image another one, the picture's landmarks are returned.
    """

    _pool: ThreadPoolExecutor | None = None

    def __init__(self, *, parallel: bool = False) -> None:
        """``parallel``: search a picture and its mirror image at the same time, on two cores; the landmarks are the same."""
        super().__init__()
        self._other = FaceLandmarks()
        if parallel:
            self._pool = ThreadPoolExecutor(1, "mirror")

    def __call__(self, picture: np.ndarray) -> np.ndarray | None:
        flipped = picture[:, ::-1]
        started = None if self._pool is None else self._pool.submit(self._other, flipped)
        points = super().__call__(picture)
        mirrored = None if started is None else started.result()
        if points is None:
            self._other.forget()
            return None
        if started is None:
            mirrored = self._other(flipped)
        if mirrored is None:
            return points
        back = mirrored[_mirror_pairs()] * np.array([-1, 1, 1], np.float32)
        back[:, 0] += picture.shape[1]
        apart = np.linalg.norm((back - points)[:, :2], axis=1).mean()
        return (points + back) / 2 if apart < SAME_FACE * outer_eye_distance(points[:, :2]) else points

    def forget(self) -> None:
        super().forget()
        self._other.forget()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        super().close()
        self._other.close()


@functools.lru_cache(maxsize=1)
def _mirror_pairs() -> np.ndarray:
    """The landmark ``[478]`` that each landmark becomes in a mirror."""
    rig = load_rig()
    return mirror_pairs(rig.landmarks(rig.mean).cpu().numpy())


class FaceFinder:
    """Boxes of all faces in a picture, near and far."""

    def __init__(self) -> None:
        with _quiet():
            faces = _solutions().face_detection
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
        with _quiet():
            return [one for finder in self._finders for one in finder.process(picture).detections or ()]

    def close(self) -> None:
        for finder in self._finders:
            finder.close()


class PersonMatte:
    """Alpha of the person in the foreground, picture by picture."""

    def __init__(self) -> None:
        with _quiet():
            self._segmenter = _solutions().selfie_segmentation.SelfieSegmentation(model_selection=0)
        self._warm = False

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """``[H, W]`` uint8 alpha of a picture ``[H, W, 3]`` uint8 RGB."""
        import cv2  # MediaPipe's own dependency: resizes ten times as fast as Pillow

        height, width = picture.shape[:2]
        small = cv2.resize(np.ascontiguousarray(picture), (MATTE_SIZE, MATTE_SIZE), interpolation=cv2.INTER_AREA)
        with contextlib.nullcontext() if self._warm else _quiet():
            alpha = self._segmenter.process(small).segmentation_mask
        self._warm = True
        levels = (np.clip(alpha, 0, 1) * 255 + 0.5).astype(np.uint8)
        return np.asarray(cv2.resize(levels, (width, height), interpolation=cv2.INTER_LINEAR))

    def close(self) -> None:
        self._segmenter.close()


def tessellation() -> np.ndarray:
    """Edges ``[E, 2]`` of the face mesh, as MediaPipe publishes them."""
    from mediapipe.python.solutions.face_mesh_connections import FACEMESH_TESSELATION

    return np.array(sorted(FACEMESH_TESSELATION))


def version() -> str:
    """MediaPipe's version, for records."""
    from importlib.metadata import version as installed

    return f"mediapipe {installed('mediapipe')}"


def _coordinates(found: Any) -> np.ndarray:
    """``[N, 3]`` float32 of a list of landmarks: read from its bytes, which takes a tenth of the time of its attributes."""
    raw = found.SerializeToString()
    if len(raw) != len(found.landmark) * _LANDMARK.itemsize:  # some have further fields
        return np.array([(p.x, p.y, p.z) for p in found.landmark], np.float32)
    rows = np.frombuffer(raw, _LANDMARK)
    return np.stack([rows["x"], rows["y"], rows["z"]], 1)


class _Postponed(ModuleType):
    """Stands in for a module until something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def _without_matplotlib() -> Iterator[None]:
    """MediaPipe's drawing tools import matplotlib, which takes longer than all the rest; here nothing is drawn."""
    names = [name for name in ("matplotlib", "matplotlib.pyplot") if name not in sys.modules]
    waiting = {name: _Postponed(name) for name in names}
    if len(waiting) == 2:
        waiting["matplotlib"].__dict__["pyplot"] = waiting["matplotlib.pyplot"]
    sys.modules.update(waiting)
    try:
        yield
    finally:
        for name, module in waiting.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _solutions() -> Any:
    try:
        with _without_matplotlib():
            import mediapipe
    except ImportError:
        raise InputError("tracking needs mediapipe 0.10.21: pip install 'headstart[track]'") from None
    return mediapipe.solutions


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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what the native library writes to standard error while it starts, which no option prevents."""
    os.environ.setdefault("GLOG_minloglevel", "3")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _QUIET:
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
