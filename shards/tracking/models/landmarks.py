"""FaceMesh's landmarks: of a picture, of successive pictures, and of a picture and its mirror image."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from heads.measures.face import outer_eye_distance
from heads.rig import load_rig
from heads.rig.facemesh import mirror_pairs
from shards.tracking.models.mesh import SIDE, MeshNetwork
from shards.tracking.models.solutions import solution

SETTLING = 5  # runs on a first picture until the landmarks converge; before, they are 1 to 3 px off
SAME_FACE = 0.25  # outer eye distances: landmarks of one face in both pictures are nearer to each other (guess)
MIDDLE = 0.5  # px, where MediaPipe counts from: the middle of the first pixel
EYE_CORNERS = (33, 263)  # landmarks whose line is level in the region where the network looks · MediaPipe's graph
ROOM = 1.5  # side of that region relative to the landmarks' extent · MediaPipe's graph
SEARCH: dict[str, float] = {
    "static_image_mode": True,
    "max_num_faces": 1,
    "refine_landmarks": True,
    "min_detection_confidence": 0.4,
}
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

    def to_picture(self, side: int) -> np.ndarray:
        """The matrix ``[2, 3]`` from points of the square, of ``side`` px, to those of the picture."""
        cosine, sine = np.cos(self.rotation), np.sin(self.rotation)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        return np.column_stack([turn * (self.side / side), (self.x, self.y) - turn.sum(1) * self.side / 2])


class FaceLandmarks:
    """Refined FaceMesh on successive pictures of one face.

    A first picture is searched by FaceMesh. In those that follow, its landmark network alone looks where the face was
    (:class:`MeshNetwork`), which gives the same landmarks in half of the time.
    """

    def __init__(self, *, still: bool = False, mirrored: bool = False) -> None:
        """
        Args:
            still: search every picture from scratch; otherwise the face is tracked from picture to picture.
            mirrored: the landmarks are those of each picture's mirror image.
        """
        self._search = solution("face_mesh", "FaceMesh", **SEARCH)
        self._network = None if still else MeshNetwork()
        self._mirrored = mirrored
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
            points = self._seen(picture, self._region, self._network)
        self._region = None if points is None else Region.around(points)
        return points

    def _settled(self, picture: np.ndarray, network: MeshNetwork) -> np.ndarray | None:
        """Landmarks of the first picture, looked for again where they were found until they stay."""
        points = self._searched(picture)
        for _ in range(SETTLING - 1):
            if points is not None:
                again = self._seen(picture, Region.around(points), network)
                points = points if again is None else again
        return points

    def _searched(self, picture: np.ndarray) -> np.ndarray | None:
        import cv2  # MediaPipe's own dependency

        found = self._search(cv2.flip(picture, 1) if self._mirrored else picture).multi_face_landmarks
        return _pixels(_coordinates(found[0]), picture.shape) if found else None

    def _seen(self, picture: np.ndarray, region: Region, network: MeshNetwork) -> np.ndarray | None:
        """Landmarks of the face in a region; ``None``: there is none."""
        import cv2

        to_picture = region.to_picture(SIDE)
        shown = to_picture.copy()
        if self._mirrored:
            shown[0] = np.array([0, 0, picture.shape[1] - 1]) - to_picture[0]
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        part = cv2.warpAffine(picture, shown, (SIDE, SIDE), flags=how, borderMode=cv2.BORDER_REPLICATE)
        points, face = network(part)
        if face <= 0:  # less than one half
            return None
        points[:, :2] = points[:, :2] @ to_picture[:, :2].T + to_picture[:, 2] + MIDDLE
        points[:, 2] *= region.side / SIDE
        return points

    def forget(self) -> None:
        """Search the next picture from scratch, as after a cut."""
        self._region = None

    def close(self) -> None:
        """Ends threads, if there are any."""


class MirroredLandmarks(FaceLandmarks):
    """The mean of the landmarks of each picture and of its mirror image.

    FaceMesh is biased to one side, differently for each person; the mean is not. Avatars gain 0.4 dB on the face in unseen
    frames (five people, ``benchmarks mirrored``) for 2 ms a picture. Where only the picture shows a face, or the mirror
    image another one, the picture's landmarks are returned.
    """

    _pool: ThreadPoolExecutor | None = None

    def __init__(self, *, parallel: bool = False) -> None:
        """``parallel``: search a picture and its mirror image at the same time, on two cores; the landmarks are the same."""
        super().__init__()
        self._other = FaceLandmarks(mirrored=True)
        if parallel:
            self._pool = ThreadPoolExecutor(1, "mirror")

    def __call__(self, picture: np.ndarray) -> np.ndarray | None:
        started = None if self._pool is None else self._pool.submit(self._other, picture)
        points = super().__call__(picture)
        mirrored = None if started is None else started.result()
        if points is None:
            self._other.forget()
            return None
        if started is None:
            mirrored = self._other(picture)
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
