"""The 52 ARKit blendshapes and a rig's expression, linked by a linear map that is built from the rig's geometry.

Every shape is described by what it does to a few measures of the face, such as "the corner of the mouth moves outwards
by 0.12 eye distances" (:data:`SHAPES`). Expression coefficients have unit variance, so the expression of a shape is
the most probable one that changes the measures in that way and leaves the others alone: a ridge regression. Blinks,
wide eyes and gaze go to the rig's eyelids and eyeballs. From weights to expression the map is a matrix product.
From expression to weights it is the bounded least-squares problem of that product, over the landmarks.

The amounts in :data:`SHAPES` are guesses from Apple's pictures of the shapes, in units of the eye distance (63 mm).
``tongueOut`` moves nothing, because the rig has no tongue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from configs import InputError
from heads.rig import facemesh
from heads.rig.rig import Rig

# The order of Apple's ARFaceAnchor.BlendShapeLocation as Live Link Face writes it.
NAMES = (
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft", "eyeSquintLeft",
    "eyeWideLeft", "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight",
    "eyeSquintRight", "eyeWideRight", "jawForward", "jawRight", "jawLeft", "jawOpen", "mouthClose", "mouthFunnel",
    "mouthPucker", "mouthRight", "mouthLeft", "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight",
    "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft",
    "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "browDownLeft", "browDownRight", "browInnerUp",
    "browOuterUpLeft", "browOuterUpRight", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft",
    "noseSneerRight", "tongueOut",
)  # fmt: skip

X, Y, Z = 0, 1, 2  # to the picture's right (the person's left), down, away from the viewer
# Measure: landmarks whose mean counts, landmarks whose mean is taken off, axis. ``_left`` ones are mirrored below.
_MIDDLE = {
    "gap": ((14, 87, 317), (13, 82, 312), Y),
    "chin_down": ((152, 148, 377), (), Y),
    "chin_left": ((152,), (), X),
    "chin_back": ((152,), (), Z),
    "lips_left": ((13, 14, 0, 17), (), X),
    "upper_lip_back": ((0, 37, 267), (), Z),
    "lower_lip_back": ((17, 84, 314), (), Z),
    "upper_lip_down": ((13, 82, 312), (), Y),
    "upper_lip_height": ((13,), (0,), Y),
    "lower_lip_height": ((17,), (14,), Y),
    "brows_apart": ((285,), (55,), X),
    "cheeks_back": ((425, 205), (), Z),
}
_SIDES = {
    "corner_out": ((291,), (61,), X),
    "corner_down": ((291,), (61,), Y),
    "corner_back": ((291,), (61,), Z),
    "upper_side_down": ((310, 311), (80, 81), Y),
    "lower_side_down": ((318, 402), (88, 178), Y),
    "inner_brow_down": ((285, 295, 296, 336), (55, 65, 66, 107), Y),
    "outer_brow_down": ((276, 283, 300, 293, 334), (46, 53, 70, 63, 105), Y),
    "cheek_down": ((330, 347, 280), (101, 118, 50), Y),
    "nostril_down": ((358, 279), (129, 49), Y),
    "lower_lid_down": ((374, 380, 373), (145, 153, 144), Y),
}
# Shape at weight 1: change of measures, eye distances. ``*`` stands for a side; the other side's measures stay.
SHAPES: dict[str, dict[str, float]] = {
    "jawOpen": {"gap": 0.55, "chin_down": 0.5},
    "jawForward": {"chin_back": -0.1, "lower_lip_back": -0.08},
    "jawLeft": {"chin_left": 0.15, "lips_left": 0.08},
    "jawRight": {"chin_left": -0.15, "lips_left": -0.08},
    "mouthClose": {"gap": -0.55, "upper_lip_down": 0.15},
    "mouthFunnel": {"corner_out_*": -0.08, "upper_lip_back": -0.1, "lower_lip_back": -0.1, "gap": 0.12},
    "mouthPucker": {"corner_out_*": -0.14, "upper_lip_back": -0.12, "lower_lip_back": -0.12, "gap": 0.0},
    "mouthLeft": {"lips_left": 0.12, "corner_out_left": 0.1, "corner_out_right": -0.1},
    "mouthRight": {"lips_left": -0.12, "corner_out_left": -0.1, "corner_out_right": 0.1},
    "mouthSmile*": {"corner_out_*": 0.12, "corner_down_*": -0.1, "cheek_down_*": -0.02, "gap": 0.0},
    "mouthFrown*": {"corner_down_*": 0.1, "gap": 0.0},
    "mouthDimple*": {"corner_out_*": 0.06, "corner_back_*": 0.05, "gap": 0.0},
    "mouthStretch*": {"corner_out_*": 0.12, "corner_down_*": 0.04, "gap": 0.0},
    "mouthRollLower": {"lower_lip_height": -0.1, "gap": 0.0},
    "mouthRollUpper": {"upper_lip_height": 0.08, "gap": 0.0},
    "mouthShrugLower": {"chin_down": -0.06, "lower_lip_back": -0.03, "gap": 0.0},
    "mouthShrugUpper": {"upper_lip_down": -0.05, "upper_lip_back": -0.03, "gap": 0.0},
    "mouthPress*": {"lower_side_down_*": -0.03, "upper_side_down_*": 0.03},
    "mouthLowerDown*": {"lower_side_down_*": 0.12},
    "mouthUpperUp*": {"upper_side_down_*": -0.1},
    "browDown*": {"inner_brow_down_*": 0.07, "outer_brow_down_*": 0.04, "brows_apart": -0.025},
    "browInnerUp": {"inner_brow_down_*": -0.1},
    "browOuterUp*": {"outer_brow_down_*": -0.1},
    "cheekPuff": {"cheeks_back": -0.06, "gap": 0.0},
    "cheekSquint*": {"cheek_down_*": -0.05, "lower_lid_down_*": -0.02},
    "noseSneer*": {"nostril_down_*": -0.05, "upper_side_down_*": -0.03},
    "eyeSquint*": {"lower_lid_down_*": -0.04, "cheek_down_*": -0.02},
}
SIDES = ("left", "right")  # the person's own
GAZE = 0.52  # radians of gaze at weight 1: 30 degrees; guess
WIDE = 0.3  # eyelids open beyond their usual by this share at eyeWide 1; guess
# Tolerances of measures, eye distances: those that a shape names, and the others, which should stay; guesses.
_NAMED, _STAYS = 0.01, 0.05
# Weights of lip and eye landmarks (others: 1), and of depth, when blendshape weights are fitted to an expression; guesses.
_LIPS, _EYES, _DEPTH = 6.0, 2.0, 0.5
_RIDGE = 1e-2  # of the mean square of a shape's motion: shapes share what several could explain
_SWEEPS = 200  # of coordinate descent, at most


@dataclass(frozen=True)
class ArkitMap:
    """What the shapes do to a rig.

    Attributes:
        expression: ``[52, K]`` expression of every shape at weight 1.
        metric: ``[K, K]`` squared length of an expression: the weighted mean square motion of its landmarks.
        wanted, measured: ``[52, M]`` changes of measures that the shapes ask for (NaN where they ask nothing), and
            those that their expressions make.
    """

    expression: np.ndarray
    metric: np.ndarray
    wanted: np.ndarray
    measured: np.ndarray

    def face(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """What drives a head, from weights ``[T, 52]`` in [0, 1].

        Returns:
            ``expression [T, K]``, ``eyelids [T, 2]``, ``gaze [T, 2, 2]`` (yaw towards +x and pitch towards +y, radians).
        """
        weights = np.asarray(weights, np.float64)
        return {
            "expression": (weights @ self.expression).astype(np.float32),
            "eyelids": _eyelids(weights).astype(np.float32),
            "gaze": _gaze(weights).astype(np.float32),
        }

    def weights(self, expression: np.ndarray, eyelids: np.ndarray, gaze: np.ndarray) -> np.ndarray:
        """Weights ``[T, 52]`` in [0, 1] of expressions ``[T, K]``, eyelids ``[T, 2]`` and gaze ``[T, 2, 2]``.

        Bounded least squares by coordinate descent; what the shapes cannot express, such as a mouth narrower than all of
        them together make it, is lost.
        """
        found = _bounded_least_squares(self.expression, self.metric, np.asarray(expression, np.float64))
        for side in range(2):
            _set(found, f"eyeBlink{SIDES[side].title()}", np.asarray(eyelids)[:, side])
            _set(found, f"eyeWide{SIDES[side].title()}", -np.asarray(eyelids)[:, side] / WIDE)
            yaw, pitch = np.asarray(gaze)[:, side, 0] / GAZE, np.asarray(gaze)[:, side, 1] / GAZE
            outwards = yaw if side == 0 else -yaw
            for name, value in (("Out", outwards), ("In", -outwards), ("Down", pitch), ("Up", -pitch)):
                _set(found, f"eyeLook{name}{SIDES[side].title()}", value)
        return found.astype(np.float32)

    def errors(self) -> dict[str, float]:
        """Root mean square miss of what every shape asks for, relative to what it asks for; 1: it does nothing."""
        asked = np.nan_to_num(self.wanted)
        missed = np.where(np.isnan(self.wanted), 0.0, self.measured - asked)
        size = np.linalg.norm(asked, axis=1)
        return {name: float(np.linalg.norm(missed[i]) / size[i]) for i, name in enumerate(NAMES) if size[i] > 0}


def arkit_map(rig: Rig) -> ArkitMap:
    """The map of a rig whose first vertices are the FaceMesh landmarks.

    Raises:
        InputError: a rig of another topology.
    """
    if rig.n_landmarks < facemesh.N_LANDMARKS:
        raise InputError(
            f"rig {rig.name} has no FaceMesh landmarks, and ARKit weights are tied to them; use an avatar on the "
            "mediapipe rig"
        )
    basis = rig.expression[:, : facemesh.N_LANDMARKS].cpu().numpy().astype(np.float64)
    names, effect = _measures(basis)
    wanted = np.stack([_wanted(shape, names) for shape in NAMES])
    expression = np.stack([_most_probable(effect, row) for row in wanted])
    return ArkitMap(expression, _metric(basis), wanted, expression @ effect)


def _measures(basis: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names ``M`` and what every expression coefficient does to them ``[K, M]``, of a basis ``[K, 478, 3]``."""
    table = dict(_MIDDLE)
    for name, (left, right, axis) in _SIDES.items():
        table[f"{name}_left"], table[f"{name}_right"] = (left, (), axis), (right, (), axis)
    columns = {}
    for name, (plus, minus, axis) in table.items():
        value = basis[:, list(plus), axis].mean(1)
        columns[name] = value - (basis[:, list(minus), axis].mean(1) if minus else 0.0)
    columns["corner_out_right"] = -columns["corner_out_right"]  # outwards is -x there
    return list(columns), np.stack(list(columns.values()), 1)


def _wanted(shape: str, names: list[str]) -> np.ndarray:
    """Changes of the measures ``[M]`` that a shape asks for, NaN where it asks nothing."""
    side = next((side for side in SIDES if shape.endswith(side.title())), "")
    general = f"{shape.removesuffix(side.title())}*" if side else shape
    asked = SHAPES.get(shape, SHAPES.get(general, {}))
    sides = (side,) if shape not in SHAPES else SIDES
    row = np.full(len(names), np.nan)
    for measure, amount in asked.items():
        for each in SIDES if measure.endswith("*") else ("",):
            row[names.index(measure.replace("*", each))] = amount if each in sides or not each else 0.0
    return row


def _most_probable(effect: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The shortest expression ``[K]`` with these effects, each within its tolerance; zero where nothing is asked."""
    if np.isnan(wanted).all():
        return np.zeros(len(effect))
    tolerance = np.where(np.isnan(wanted), _STAYS, _NAMED)
    scaled = effect / tolerance
    return np.linalg.solve(np.eye(len(effect)) + scaled @ scaled.T, scaled @ (np.nan_to_num(wanted) / tolerance))


def _metric(basis: np.ndarray) -> np.ndarray:
    """``[K, K]``, such that ``e @ metric @ e`` is the weighted mean square motion of the landmarks."""
    count = np.ones(facemesh.N_LANDMARKS)
    count[list(facemesh.LIPS_OUTER + facemesh.LIPS_INNER)] = _LIPS
    count[list(facemesh.EYE_LEFT + facemesh.EYE_RIGHT)] = _EYES
    weight = count[:, None] * np.array([1.0, 1.0, _DEPTH]) / count.sum()
    return np.einsum("knc,nc,lnc->kl", basis, weight, basis)


def _bounded_least_squares(shapes: np.ndarray, metric: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """Weights ``[T, 52]`` in [0, 1] whose shapes come nearest to expressions ``[T, K]`` in a metric."""
    gram = shapes @ metric @ shapes.T
    movable = np.flatnonzero(np.diag(gram) > 1e-12)
    gram = gram[np.ix_(movable, movable)]
    gram = gram + _RIDGE * np.trace(gram) / len(movable) * np.eye(len(movable))
    target = expression @ metric @ shapes[movable].T
    weights = np.zeros((len(expression), len(movable)))
    for _ in range(_SWEEPS):
        before = weights.copy()
        for j in range(len(movable)):
            step = (target[:, j] - weights @ gram[:, j]) / gram[j, j]
            weights[:, j] = np.clip(weights[:, j] + step, 0, 1)
        if np.abs(weights - before).max(initial=0.0) < 1e-5:
            break
    found = np.zeros((len(expression), len(NAMES)))
    found[:, movable] = weights
    return found


def _set(weights: np.ndarray, name: str, value: np.ndarray) -> None:
    weights[:, NAMES.index(name)] = np.clip(value, 0, 1)


def _of(weights: np.ndarray, name: str) -> np.ndarray:
    return weights[:, NAMES.index(name)]


def _eyelids(weights: np.ndarray) -> np.ndarray:
    """Closure ``[T, 2]``; below 0 where the eyes are wide."""
    return np.stack([_of(weights, f"eyeBlink{s}") - WIDE * _of(weights, f"eyeWide{s}") for s in ("Left", "Right")], 1)


def _gaze(weights: np.ndarray) -> np.ndarray:
    """``[T, 2, 2]`` yaw and pitch of the left and right eye, radians; outwards is +x for the left eye."""
    rows = []
    for side, outwards in (("Left", 1.0), ("Right", -1.0)):
        yaw = outwards * (_of(weights, f"eyeLookOut{side}") - _of(weights, f"eyeLookIn{side}"))
        rows.append(np.stack([yaw, _of(weights, f"eyeLookDown{side}") - _of(weights, f"eyeLookUp{side}")], 1))
    return GAZE * np.stack(rows, 1)
