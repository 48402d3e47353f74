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
from typing import Any, NamedTuple

import numpy as np

from configs import InputError
from heads.measures.face import outer_eye_distance
from heads.rig import load_rig
from heads.rig.facemesh import mirror_pairs
from shards.tracking.shrinking import shrunk

MATTE_SIZE = 256  # px, input of the matting network
SETTLING = 5  # runs on a first picture until the landmarks converge; before, they are 1 to 3 px off
# Scores of the face detector, measured on 267 frames of 89 people: a face that stands on its head is found too, with at
# most 0.82, and the same picture turned scores at least 0.07 more.
CERTAIN, MARGIN = 0.85, 0.03
SAME_FACE = 0.25  # outer eye distances: landmarks of one face in both pictures are nearer to each other (guess)
MIDDLE = 0.5  # px, where MediaPipe counts from: the middle of the first pixel
EYE_CORNERS = (33, 263)  # landmarks whose line is level in the region where the network looks · MediaPipe's graph
ROOM = 1.5  # side of that region relative to the landmarks' extent · MediaPipe's graph
_LANDMARK_GRAPH = """
    input_stream: "image"
    input_stream: "region"
    output_stream: "landmarks"
    executor { name: "" type: "ApplicationThreadExecutor" }
    node {
      calculator: "ConstantSidePacketCalculator"
      output_side_packet: "PACKET:with_attention"
      options { [mediapipe.ConstantSidePacketCalculatorOptions.ext] { packet { bool_value: true } } }
    }
    node {
      calculator: "FaceLandmarkCpu"
      input_stream: "IMAGE:image"
      input_stream: "ROI:region"
      input_side_packet: "WITH_ATTENTION:with_attention"
      output_stream: "LANDMARKS:landmarks"
    }
"""
# A landmark as protobuf writes it: a tag and a length, then x, y and z, each after its tag.
_LANDMARK = np.dtype([("head", "u1", 2), *((f, t) for c in "xyz" for f, t in ((f"{c}_tag", "u1"), (c, "<f4")))])
_QUIET = threading.RLock()  # standard error belongs to the whole process: two threads must not take it from each other


class Region(NamedTuple):
    """The square in which the landmark network looks for a face: centre, from that of the first pixel, and side, px;
    clockwise rotation, radians."""

    x: float
    y: float
    side: float
    rotation: float

    @classmethod
    def around(cls, points: np.ndarray) -> Region:
        """As MediaPipe places it around the landmarks ``[478, 3]`` px of the picture before, counted in its way."""
        low, high = points[:, :2].min(0) - MIDDLE, points[:, :2].max(0) - MIDDLE
        across = points[EYE_CORNERS[1], :2] - points[EYE_CORNERS[0], :2]
        x, y = (low + high) / 2
        return cls(float(x), float(y), ROOM * float((high - low).max()), float(np.arctan2(across[1], across[0])))

    def box(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """The part of a picture, x0 y0 x1 y1 px, that contains the square."""
        reach = self.side / 2 * (abs(np.cos(self.rotation)) + abs(np.sin(self.rotation))) + 2
        x0, y0 = max(0, int(self.x - reach)), max(0, int(self.y - reach))
        return x0, y0, min(shape[1], int(self.x + reach) + 1), min(shape[0], int(self.y + reach) + 1)


class FaceLandmarks:
    """Refined FaceMesh on successive pictures of one face.

    A first picture is searched by FaceMesh. In those that follow, its landmark network alone looks where the face was, which
    gives the same landmarks for less: FaceMesh's own graph takes 0.8 ms more a picture.
    """

    def __init__(self, *, still: bool = False) -> None:
        """``still``: search every picture from scratch; otherwise the face is tracked from picture to picture."""
        with _quiet():
            self._mesh = _solutions().face_mesh.FaceMesh(
                static_image_mode=True, max_num_faces=1, refine_landmarks=True, min_detection_confidence=0.4
            )
            self._network = None if still else _LandmarkNetwork()
        self._warm = False
        self._region: Region | None = None  # where the face was

    def __call__(self, picture: np.ndarray) -> np.ndarray | None:
        """Landmarks ``[478, 3]`` of the face in a picture ``[H, W, 3]`` uint8 RGB; ``None``: no face.

        In px, with 0 at the picture's edge as everywhere in this project; z is relative, in px.
        """
        if self._network is None:
            return self._searched(picture)
        if self._region is None:
            points = self._settled(picture, self._network)
        else:
            points = self._network(picture, self._region)
        self._region = None if points is None else Region.around(points)
        return points

    def _settled(self, picture: np.ndarray, network: _LandmarkNetwork) -> np.ndarray | None:
        """Landmarks of the first picture, looked for again where they were found until they stay."""
        points = self._searched(picture)
        for _ in range(SETTLING - 1):
            if points is not None:
                again = network(picture, Region.around(points))
                points = points if again is None else again
        return points

    def _searched(self, picture: np.ndarray) -> np.ndarray | None:
        picture = np.ascontiguousarray(picture)
        with contextlib.nullcontext() if self._warm else _quiet():
            found = self._mesh.process(picture).multi_face_landmarks
        self._warm = self._warm or bool(found)  # the landmark network is loaded, and logs, at the first face
        return _pixels(_coordinates(found[0]), picture.shape) if found else None

    def forget(self) -> None:
        """Search the next picture from scratch, as after a cut."""
        self._region = None

    def close(self) -> None:
        self._mesh.close()
        if self._network is not None:
            self._network.close()


class _LandmarkNetwork:
    """FaceMesh's landmark network, at a given place of a picture."""

    def __init__(self) -> None:
        """Needs a solution of MediaPipe that was made before, which says where the models are."""
        import mediapipe
        from mediapipe.framework.formats.rect_pb2 import NormalizedRect

        self._mediapipe, self._rect = mediapipe, NormalizedRect
        self._graph = mediapipe.CalculatorGraph(graph_config=_LANDMARK_GRAPH)
        self._graph.observe_output_stream("landmarks", lambda _, packet: self._found.append(packet), False)
        self._found: list[Any] = []
        self._started, self._time = False, 0

    def __call__(self, picture: np.ndarray, region: Region) -> np.ndarray | None:
        """Landmarks ``[478, 3]`` px of the face in a region of a picture ``[H, W, 3]``; ``None``: there is none."""
        x0, y0, x1, y1 = region.box(picture.shape)
        if x1 - x0 < 2 or y1 - y0 < 2:
            return None
        points = self._run(np.ascontiguousarray(picture[y0:y1, x0:x1]), region, x0, y0)
        return None if points is None else points + np.array([x0, y0, 0], np.float32)

    def _run(self, part: np.ndarray, region: Region, x0: int, y0: int) -> np.ndarray | None:
        """Landmarks of a part of a picture, whose corner is at ``x0, y0``."""
        create, height, width = self._mediapipe.packet_creator, *part.shape[:2]
        rect = self._rect(
            x_center=(region.x - x0) / width,
            y_center=(region.y - y0) / height,
            width=region.side / width,
            height=region.side / height,
            rotation=region.rotation,
        )
        image = create.create_image_frame(image_format=self._mediapipe.ImageFormat.SRGB, data=part)
        self._time += 1
        self._found.clear()
        with contextlib.nullcontext() if self._started else _quiet():
            if not self._started:
                self._graph.start_run()
            self._graph.add_packet_to_input_stream("image", image.at(self._time))
            self._graph.add_packet_to_input_stream("region", create.create_proto(rect).at(self._time))
            self._graph.wait_until_idle()
        self._started = True
        if not self._found:
            return None
        return _pixels(_coordinates(self._mediapipe.packet_getter.get_proto(self._found[0])), part.shape)

    def close(self) -> None:
        if self._started:
            self._graph.close()


class MirroredLandmarks(FaceLandmarks):
    """The mean of the landmarks of each picture and of its mirror image.

    FaceMesh is biased to one side, differently for each person; the mean is not. Avatars gain 0.4 dB on the face in unseen
    frames (five people, ``benchmarks mirrored``) for 3 to 4 ms a picture. Where only the picture shows a face, or the mirror
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
        import cv2  # MediaPipe's own dependency: mirrors five times as fast as NumPy

        flipped = cv2.flip(picture, 1)
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


def _pixels(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Landmarks in px of a picture; MediaPipe gives them in shares of it."""
    height, width = shape[:2]
    return points * np.array([width, height, width], np.float32) + np.array([MIDDLE, MIDDLE, 0], np.float32)


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
        small = shrunk(picture, MATTE_SIZE)
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
