"""One synthetic person: built once from an identity, then performing and drawn frame by frame with exact tracks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from heads import rasterization
from heads.rig import Rig
from shards.media.rates import FPS
from shards.synthetic import motion
from shards.synthetic.identity import Identity
from shards.synthetic.look.body import CLOTH_SIZE, Mesh, cloth_texture, glasses, socket_points, sockets, torso
from shards.synthetic.look.hair import STYLES, grow, visible_gaussians
from shards.synthetic.look.raster import Subdivision, interpolate, rasterize_mesh, vertex_normals
from shards.synthetic.look.scenery import background
from shards.synthetic.look.shading import (
    CHANNELS,
    ambient_occlusion,
    develop,
    display,
    sample_lights,
    shade,
    shadow_map,
    srgb_to_linear,
)
from shards.synthetic.look.skin import Painter, hair_amount, paint
from shards.synthetic.speech.lexicon import Phone
from shards.synthetic.speech.visemes import MouthSolver, mouth_curves
from shards.synthetic.speech.voice import compose, speak

FOCAL = 4.0  # focal length in image sizes, as everywhere in Headstart
SUPERSAMPLING = 2
_PIVOT = np.array([0.0, 1.35, 1.15])  # heads turn on their necks, not between their eyes
_UPPER_LID = {
    "left": (263, 466, 388, 387, 386, 385, 384, 398, 362),
    "right": (33, 246, 161, 160, 159, 158, 157, 173, 133),
}


@dataclass(frozen=True)
class Performance:
    """What one person does and says for T frames at 25 fps; the track fields of a sample, exact.

    expression ``[T, K]``, eyelids ``[T, 2]``, gaze ``[T, 2, 2]``, rotation ``[T, 3, 3]``, translation ``[T, 3]``, intrinsics
    ``[3, 3]`` for ``size`` px, audio ``[T * 640]`` at 16 kHz, body_rotation ``[T, 3, 3]``, body_translation ``[T, 3]``, and
    the words spoken.
    """

    size: int
    expression: np.ndarray
    eyelids: np.ndarray
    gaze: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    intrinsics: np.ndarray
    body_rotation: np.ndarray
    body_translation: np.ndarray
    audio: np.ndarray
    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.expression)


class Talker:
    """A person of the given identity on a rig (`heads.rig.load_rig`); a `Painter` can be shared by many talkers."""

    def __init__(self, rig: Rig, identity: Identity, painter: Painter | None = None) -> None:
        self.rig, self.identity = rig, identity
        self.painter = painter or Painter(rig)
        self.shape = torch.from_numpy(identity.shape).reshape(1, -1)
        self.neutral = self._vertices(np.zeros((1, rig.n_expression)))[0]
        self.marks = rig.landmark_vertices.numpy()  # [478], the vertices that are landmarks
        self.neutral_landmarks = self.neutral[self.marks]
        self.mouth = MouthSolver(rig, identity.shape)
        self.lights = sample_lights(np.random.default_rng([identity.seed, 0x119]))
        self._assemble()
        self._grow_hair()

    # ------------------------------------------------------------------------------------------ building

    def _vertices(
        self, expression: np.ndarray, eyelids: np.ndarray | None = None, gaze: np.ndarray | None = None
    ) -> np.ndarray:
        """``[B, V, 3]`` float64 rig vertices of this identity."""
        n = len(expression)
        with torch.no_grad():
            return (
                self.rig.vertices(
                    self.shape.expand(n, -1),
                    torch.as_tensor(np.asarray(expression), dtype=torch.float32),
                    None if eyelids is None else torch.as_tensor(eyelids, dtype=torch.float32),
                    None if gaze is None else torch.as_tensor(gaze, dtype=torch.float32),
                )
                .double()
                .numpy()
            )

    def _assemble(self) -> None:
        rig, identity = self.rig, self.identity
        faces, uv = rig.faces.numpy(), rig.face_uvs.double().numpy()
        self.subdivision = Subdivision(faces, len(self.neutral))
        self.fine_region = rig.face_regions.numpy()[self.subdivision.parent]
        head_points = self.subdivision.points(self.neutral)
        self.head_count = len(head_points)
        normals = vertex_normals(head_points, self.subdivision.faces)
        self._outward = -1.0 if normals[1, 2] > 0 else 1.0  # the nose tip points at the camera
        parts: list[Mesh] = [torso(identity), sockets(self.neutral_landmarks)]
        self.torso_count = len(parts[0].points)
        if identity.glasses:
            parts.append(glasses(self.neutral_landmarks))
        self.glasses_points = parts[2].points if identity.glasses else np.zeros((0, 3))
        self._build_texture()
        size = self.texture.shape[0]
        s = self.painter.size
        scaled = [self.subdivision.corners(uv) * (1.0, s / size)]
        scaled.append(parts[0].uv * (CLOTH_SIZE / s, CLOTH_SIZE / size) + (0, s / size))
        for part, v in zip(parts[1:], (0.25, 0.75), strict=False):  # one colour each
            scaled.append(np.broadcast_to([0.9, (s + v * CLOTH_SIZE) / size], part.uv.shape))
        self.uv = np.concatenate(scaled).astype(np.float32)
        offsets = np.cumsum([self.head_count] + [len(p.points) for p in parts])
        shifted = [p.faces + o for p, o in zip(parts, offsets, strict=False)]
        self.faces = np.concatenate([self.subdivision.faces, *shifted]).astype(np.int32)
        total = offsets[-1]
        self.static = np.zeros(total)
        self.static[self.head_count : self.head_count + self.torso_count] = 1.0
        rest = np.concatenate([head_points, *(p.points for p in parts)])
        self.rest_normals = vertex_normals(rest, self.faces)
        self.torso_points = parts[0].points
        self._occlude(rest)

    def _occlude(self, rest: np.ndarray) -> None:
        self.rest_normals[: self.head_count] *= self._outward
        # Clothes are wound either way round; a whole part is turned so that most of it faces outwards.
        body = slice(self.head_count, self.head_count + self.torso_count)
        outwards = (self.rest_normals[body] * (rest[body] - (0.0, 3.4, 1.1))).sum(1)
        self.rest_normals[body] *= np.sign(outwards.sum())
        skin = ~np.isin(self.fine_region, [self.rig.regions[n] for n in ("mouth_inside", "teeth_upper", "teeth_lower")])
        faces = np.concatenate([self.subdivision.faces[skin], self.faces[len(self.subdivision.faces) :]])
        self.occlusion = np.clip(0.12 + 1.0 * ambient_occlusion(rest, faces, self.rest_normals), 0, 1)
        self.vertex_region = np.zeros(self.head_count, int)
        for corner in range(3):
            self.vertex_region[self.subdivision.faces[:, corner]] = self.fine_region
        region = self.rig.regions
        self.mouth_vertices = np.isin(
            self.vertex_region, [region[n] for n in ("mouth_inside", "teeth_upper", "teeth_lower")]
        )
        self.mouth_depth = np.clip(self.subdivision.points(self.neutral)[:, 2] - self.neutral_landmarks[13, 2], 0, 1)
        self.eye_vertices = {s: self.vertex_region == region[f"eyeball_{s}"] for s in ("left", "right")}
        neck = self.vertex_region == region["neck"]
        y = self.subdivision.points(self.neutral)[:, 1]
        t = np.clip((y - 1.55) / 0.9, 0, 1)
        self.neck_weight = np.where(neck, t * t * (3 - 2 * t), 0.0)[:, None]

    def _build_texture(self) -> None:
        s = self.painter.size
        self.texture = np.zeros((s + CLOTH_SIZE, s, CHANNELS), np.float32)
        self.texture[:s] = paint(self.painter, self.identity)
        self.texture[s:, :CLOTH_SIZE] = cloth_texture(self.identity)
        rng = np.random.default_rng([self.identity.seed, 0x61A])
        frame = srgb_to_linear(np.array([(0.05, 0.05, 0.06), (0.16, 0.09, 0.05), (0.45, 0.42, 0.38)][rng.integers(3)]))
        self.texture[s:, CLOTH_SIZE:] = [*frame, 0, 0, 0, 0.1, 0.35, 80 / 256]
        flesh = srgb_to_linear(self.identity.skin * (0.62, 0.45, 0.44))
        self.texture[s : s + CLOTH_SIZE // 2, CLOTH_SIZE:] = [*flesh, 0, 0, 0, 0.6, 0.2, 60 / 256]

    def _grow_hair(self) -> None:
        identity = self.identity
        rng = np.random.default_rng([identity.seed, 0x4A1])
        with torch.no_grad():
            zero = torch.zeros(1, self.rig.n_identity), torch.zeros(1, self.rig.n_expression)
            mean = self.rig.vertices(*zero)[0].double().numpy()
        count = STYLES[identity.hair].strands
        skip = [self.rig.regions[n] for n in self.rig.regions if n not in ("face", "cranium", "ear")]
        faces = self.rig.faces.numpy()[~np.isin(self.rig.face_regions.numpy(), skip)]
        a, b, c = mean[faces].swapaxes(0, 1)
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        pick = rng.choice(len(faces), size=3 * count + 1, p=area / area.sum())
        u = rng.random((len(pick), 2))
        u = np.where(u.sum(1, keepdims=True) > 1, 1 - u, u)
        canonical = interpolate(mean, faces[pick], u)
        keep = np.nonzero(hair_amount(canonical, identity) > 0.35 + 0.4 * rng.random(len(pick)))[0][:count]
        normals = vertex_normals(self.neutral, self.rig.faces.numpy()) * self._outward
        roots = interpolate(self.neutral, faces[pick[keep]], u[keep])
        normal = interpolate(normals, faces[pick[keep]], u[keep])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        skull = np.unique(self.rig.faces.numpy()[self.rig.face_regions.numpy() == self.rig.regions["cranium"]])
        scale = np.ptp(self.neutral[skull], axis=0) / np.ptp(mean[skull], axis=0)
        self.strands = grow(identity, roots, normal, scale, rng)

    # ---------------------------------------------------------------------------------------- performing

    def perform(self, seconds: float, seed: int, size: int = 256) -> Performance:
        """Speech and motion for `seconds`, decided by the seed; the length is rounded to whole frames."""
        frames = max(1, round(seconds * FPS))
        identity, manner = self.identity, self.identity.manner
        rng = np.random.default_rng([identity.seed, seed, 0x7A1])
        utterance = compose(frames / FPS, rng, identity.voice)
        audio = speak(utterance, identity.voice, rng)
        angles = motion.poses(frames, (manner.yaw, manner.pitch, manner.roll), rng)
        angles[:, 1] += motion.nods(utterance.phones, frames, rng)
        rotation = motion.rotations(angles)
        expression = self.mouth.expression(mouth_curves(utterance.phones, frames))
        expression += self._mood(utterance.phones, frames, rng)
        looks = motion.glances(angles, rng)
        gaze = np.repeat((looks)[:, None], 2, axis=1).astype(np.float32)
        lids = motion.eyelids(frames, manner.blinks, rng)
        lids = np.clip(lids + np.clip(0.7 * looks[:, 1:], -0.08, 0.25) * (1 - lids), 0, 1).astype(np.float32)
        place = np.random.default_rng([identity.seed, seed, 0x91A])
        depth = FOCAL / place.uniform(0.162, 0.182)
        base = np.array([place.uniform(-0.12, 0.12), place.uniform(-0.62, -0.42), depth])
        sway = np.stack([motion.slow(frames, rng, 2.5) * a for a in (0.05, 0.025, 0.08)], 1)
        still = rotation.astype(np.float64)
        translation = base + sway + _PIVOT - still @ _PIVOT
        body = motion.rotations(angles * np.array([0.22, 0.0, 0.12]))
        focal = FOCAL * size
        return Performance(
            size=size,
            expression=expression.astype(np.float32),
            eyelids=lids,
            gaze=gaze,
            rotation=rotation,
            translation=translation.astype(np.float32),
            intrinsics=np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]], np.float32),
            body_rotation=body,
            body_translation=(base + 0.9 * sway + _PIVOT - body.astype(np.float64) @ _PIVOT).astype(np.float32),
            audio=audio,
            words=tuple(utterance.words),
        )

    def _mood(self, phones: list[Phone], frames: int, rng: np.random.Generator) -> np.ndarray:
        """``[T, K]`` expression beside the mouth shapes: brows on accents, a smile that comes and goes."""
        controls, manner = self.rig.controls, self.identity.manner

        def direction(name: str) -> np.ndarray:
            if name not in controls:
                return np.zeros(self.rig.n_expression)
            return np.asarray(self.rig.control(name, 1.0)["expression"], dtype=np.float64)

        brows = manner.brows * motion.accents(phones, frames, rng) + 0.12 * motion.slow(frames, rng)
        frown = 0.2 * np.clip(motion.slow(frames, rng, 3.0) - 0.6, 0, 1)
        smile = np.clip(0.5 * manner.smile + 0.18 * motion.slow(frames, rng, 3.0), -0.1, 0.7)
        return (
            np.outer(brows, direction("brows_up"))
            + np.outer(frown, direction("brows_down"))
            + np.outer(smile, direction("smile"))
        )

    def landmarks(self, performance: Performance) -> np.ndarray:
        """``[T, 478, 3]`` px in the frame; z in px relative to the head's origin, smaller is nearer."""
        vertices = self._vertices(performance.expression, performance.eyelids, performance.gaze)
        points = self.rig.landmarks(torch.from_numpy(vertices)).numpy()
        camera = points @ performance.rotation.astype(np.float64).swapaxes(1, 2) + performance.translation[
            :, None
        ].astype(np.float64)
        focal, centre = float(performance.intrinsics[0, 0]), performance.size / 2
        xy = focal * camera[..., :2] / camera[..., 2:] + centre
        depth = performance.translation[:, None, 2:].astype(np.float64)
        return np.concatenate([xy, (camera[..., 2:] - depth) * focal / depth], -1).astype(np.float32)

    # ------------------------------------------------------------------------------------------ drawing

    def render(
        self, performance: Performance, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (frame ``[H, W, 3]`` uint8 RGB, matte ``[H, W]`` uint8) for frames start..stop."""
        stop = len(performance) if stop is None else min(stop, len(performance))
        room = background(self.identity, performance.size)
        for first in range(start, stop, 25):
            block = slice(first, min(stop, first + 25))
            track = performance.expression[block], performance.eyelids[block], performance.gaze[block]
            for i, head in enumerate(self._vertices(*track)):
                yield self._draw(head, performance, first + i, room)

    def _draw(
        self, head: np.ndarray, performance: Performance, i: int, room: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        size = performance.size * SUPERSAMPLING
        pose = performance.rotation[i].astype(np.float64), performance.translation[i].astype(np.float64)
        body = performance.body_rotation[i].astype(np.float64), performance.body_translation[i].astype(np.float64)
        points = self.subdivision.points(head)
        normals = self.rest_normals.copy()
        normals[: self.head_count] = vertex_normals(points, self.subdivision.faces) * self._outward
        camera = self._to_camera(points, pose, body)
        focal = FOCAL * size
        screen = np.concatenate([focal * camera[:, :2] / camera[:, 2:] + size / 2, camera[:, 2:]], 1)
        depth, triangle, weights = rasterize_mesh(screen, self.faces, size, size)
        lit, shadow = shadow_map(camera, self.faces, self.lights.key)
        linear = shade(triangle, weights, self.faces, self.uv, self.texture, normals, np.stack([pose[0], body[0]]),
                       self._shadowed(head), self.static, lit, shadow, self.lights)  # fmt: skip
        return develop(linear, triangle, self._draw_hair(depth, *pose, size), room)

    def _to_camera(self, points: np.ndarray, pose: tuple, body: tuple) -> np.ndarray:
        """Head, torso and glasses in camera space; the neck follows the head above and the body below."""
        bags = socket_points(points[self.marks]) @ pose[0].T + pose[1]
        head = points @ pose[0].T + pose[1]
        head += self.neck_weight * (points @ body[0].T + body[1] - head)
        torso_points = self.torso_points @ body[0].T + body[1]
        return np.concatenate([head, torso_points, bags, self.glasses_points @ pose[0].T + pose[1]])

    def _shadowed(self, head: np.ndarray) -> np.ndarray:
        """``[V]`` ambient light per vertex in this frame: the mouth fills with light as it opens, lids shade the eyes."""
        occlusion = self.occlusion.copy()
        opening = np.clip((head[self.marks[14], 1] - head[self.marks[13], 1]) / 0.16, 0, 1)
        inside = (0.10 + 0.62 * opening) * np.clip(1.25 - 1.7 * self.mouth_depth, 0.12, 1)
        occlusion[: self.head_count][self.mouth_vertices] = inside[self.mouth_vertices]
        fine = self.subdivision.values(head)
        for side, where in self.eye_vertices.items():
            lid = head[list(_UPPER_LID[side])]
            order = np.argsort(lid[:, 0])
            edge = np.interp(fine[where, 0], lid[order, 0], lid[order, 1])
            occlusion[: self.head_count][where] = np.clip(0.42 + 0.55 * (fine[where, 1] - edge) / 0.10, 0.35, 0.95)
        return occlusion

    def _draw_hair(self, depth: np.ndarray, rotation: np.ndarray, translation: np.ndarray, size: int) -> np.ndarray:
        """``[H, W, 4]`` premultiplied display colour and cover of the hair that the mesh does not hide."""
        if self.strands is None:
            return np.zeros((size, size, 4), np.float32)
        focal = FOCAL * size
        means, quats, scales, color = visible_gaussians(self.strands, rotation, translation, self.lights, depth, focal)
        parts = means, quats, scales, np.full(len(means), 0.85), display(color)
        tensors = [torch.from_numpy(np.ascontiguousarray(part, np.float32)) for part in parts]
        intrinsics = torch.tensor([[[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]], dtype=torch.float32)
        with torch.no_grad():
            hair, cover, _ = rasterization(*tensors, torch.eye(4)[None], intrinsics, size, size, eps2d=0.1)
        return torch.cat([hair[0], cover[0]], -1).numpy()
