"""FaceMesh's landmarks: of a picture, of successive pictures, and of a picture and its mirror image."""

from __future__ import annotations

import contextlib
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from heads.measures.face import outer_eye_distance
from heads.rig import load_rig
from heads.rig.facemesh import mirror_pairs
from shards.tracking.models.solutions import quiet, solution

SETTLING = 5  # runs on a first picture until the landmarks converge; before, they are 1 to 3 px off
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
        self._search = solution(
            "face_mesh",
            "FaceMesh",
            static_image_mode=True,
            max_num_faces=1,
            refine_landmarks=True,
            min_detection_confidence=0.4,
        )
        with quiet():
            self._network = None if still else _LandmarkNetwork()
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
        found = self._search(picture).multi_face_landmarks
        return _pixels(_coordinates(found[0]), picture.shape) if found else None

    def forget(self) -> None:
        """Search the next picture from scratch, as after a cut."""
        self._region = None

    def close(self) -> None:
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
        with contextlib.nullcontext() if self._started else quiet():
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


def _coordinates(found: Any) -> np.ndarray:
    """``[N, 3]`` float32 of a list of landmarks: read from its bytes, which takes a tenth of the time of its attributes."""
    raw = found.SerializeToString()
    if len(raw) != len(found.landmark) * _LANDMARK.itemsize:  # some have further fields
        return np.array([(p.x, p.y, p.z) for p in found.landmark], np.float32)
    rows = np.frombuffer(raw, _LANDMARK)
    return np.stack([rows["x"], rows["y"], rows["z"]], 1)
