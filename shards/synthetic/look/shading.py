"""Light on a rasterised mesh: soft skin, shadows, gloss. One pass over the covered pixels, in linear RGB."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from shards.synthetic.look.raster import rasterize_mesh

SHADOW_SIZE = 160
# Channels of a material texture: linear albedo 3, object-space bump 3, subsurface, specular, gloss exponent / 256.
CHANNELS = 9


@dataclass(frozen=True)
class Lights:
    """Lighting of one clip in camera axes (x right, y down, z forward); directions point towards the light."""

    key: np.ndarray  # (3,) unit
    key_color: np.ndarray  # (3,) linear
    fill: np.ndarray
    fill_color: np.ndarray
    sky: np.ndarray  # (3,) linear, ambient from above
    ground: np.ndarray  # (3,) linear, ambient from below
    rim: np.ndarray
    rim_color: np.ndarray


def _unit(*v: float) -> np.ndarray:
    return np.array(v) / np.linalg.norm(v)


def sample_lights(rng: np.random.Generator) -> Lights:
    """A plausible room: one key from a side and above, weak fill from the other, ambient, a rim from behind."""
    side = rng.choice([-1.0, 1.0])
    warm = rng.uniform(-1, 1)
    tint = np.array([1 + 0.07 * warm, 1.0, 1 - 0.09 * warm])
    return Lights(
        key=_unit(side * rng.uniform(0.15, 0.85), -rng.uniform(0.35, 0.85), -1.0),
        key_color=rng.uniform(0.85, 1.2) * tint,
        fill=_unit(-side * rng.uniform(0.6, 1.2), -0.1, -1.0),
        fill_color=rng.uniform(0.12, 0.38) * tint[::-1],
        sky=rng.uniform(0.30, 0.42) * tint[::-1],
        ground=rng.uniform(0.13, 0.22) * np.array([1.05, 1.0, 0.93]),
        rim=_unit(-side * 0.9, -0.5, 0.75),
        rim_color=rng.uniform(0.0, 0.7) * tint,
    )


def shadow_map(points: np.ndarray, faces: np.ndarray, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth seen from a light: coordinates ``[V, 3]`` of the points in the map's pixels and depth, and the map itself."""
    up = np.array([0.0, 1.0, 0.0])
    right = np.cross(up, light)
    right /= np.linalg.norm(right)
    down = np.cross(light, right)
    local = points @ np.stack([right, down, -light], 1)  # depth grows away from the light
    low, high = local.min(0), local.max(0)
    scale = (SHADOW_SIZE - 2) / max(high[0] - low[0], high[1] - low[1])
    local[:, :2] = (local[:, :2] - low[:2]) * scale + 1
    depth, _, _ = rasterize_mesh(local, faces, SHADOW_SIZE, SHADOW_SIZE)
    return local.astype(np.float32), depth


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _shade(triangle, weights, faces, uv, texture, normals, rotation, eye, extra, lit, shadow, lights, out):
    height, width = triangle.shape
    th, tw = texture.shape[0], texture.shape[1]
    size = shadow.shape[0]
    t = np.empty(9)
    n = np.empty(3)
    half = np.empty(3)
    for y in range(height):
        for x in range(width):
            f = triangle[y, x]
            if f < 0:
                continue
            wb, wc = weights[y, x, 0], weights[y, x, 1]
            wa = 1.0 - wb - wc
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            # Texture, bilinear.
            u = (wa * uv[f, 0, 0] + wb * uv[f, 1, 0] + wc * uv[f, 2, 0]) * tw - 0.5
            v = (wa * uv[f, 0, 1] + wb * uv[f, 1, 1] + wc * uv[f, 2, 1]) * th - 0.5
            u = min(max(u, 0.0), tw - 1.001)
            v = min(max(v, 0.0), th - 1.001)
            iu, iv = int(u), int(v)
            du, dv = u - iu, v - iv
            for k in range(9):
                t[k] = (
                    (1 - dv) * ((1 - du) * texture[iv, iu, k] + du * texture[iv, iu + 1, k])
                    + dv * ((1 - du) * texture[iv + 1, iu, k] + du * texture[iv + 1, iu + 1, k])
                )  # fmt: skip
            # Normal in object space, bent by the part of the bump that lies in the surface, then to the camera.
            nx = wa * normals[a, 0] + wb * normals[b, 0] + wc * normals[c, 0]
            ny = wa * normals[a, 1] + wb * normals[b, 1] + wc * normals[c, 1]
            nz = wa * normals[a, 2] + wb * normals[b, 2] + wc * normals[c, 2]
            length = 1.0 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
            nx, ny, nz = nx * length, ny * length, nz * length
            upright = nx * t[3] + ny * t[4] + nz * t[5]
            nx, ny, nz = nx + t[3] - upright * nx, ny + t[4] - upright * ny, nz + t[5] - upright * nz
            length = 1.0 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
            r = rotation[0] if extra[a, 1] < 0.5 else rotation[1]
            for k in range(3):
                n[k] = (r[k, 0] * nx + r[k, 1] * ny + r[k, 2] * nz) * length
            facing = n[0] * eye[0] + n[1] * eye[1] + n[2] * eye[2]
            if facing < 0.0:
                facing = -facing
                for k in range(3):
                    n[k] = -n[k]
            occlusion = wa * extra[a, 0] + wb * extra[b, 0] + wc * extra[c, 0]
            # Shadow of the key light, 3 x 3 percentage-closer filter.
            sx = wa * lit[a, 0] + wb * lit[b, 0] + wc * lit[c, 0]
            sy = wa * lit[a, 1] + wb * lit[b, 1] + wc * lit[c, 1]
            slope = 1.0 - (n[0] * lights[0, 0] + n[1] * lights[0, 1] + n[2] * lights[0, 2])
            sz = wa * lit[a, 2] + wb * lit[b, 2] + wc * lit[c, 2] - 0.05 - 0.09 * max(slope, 0.0)
            bright = 0.0
            bx, by = int(sx - 0.5), int(sy - 0.5)
            fx, fy = sx - 0.5 - bx, sy - 0.5 - by
            for j in range(-1, 3):
                wy = (1 - fy) if j == -1 else (fy if j == 2 else 1.0)
                for i in range(-1, 3):
                    wx = (1 - fx) if i == -1 else (fx if i == 2 else 1.0)
                    qx, qy = bx + i, by + j
                    if qx < 0 or qy < 0 or qx >= size or qy >= size or sz <= shadow[qy, qx]:
                        bright += wx * wy
            bright /= 9.0
            soft, specular, gloss = t[6], t[7], 256.0 * t[8]
            for light in range(3):  # key, fill, rim
                ndl = n[0] * lights[light, 0] + n[1] * lights[light, 1] + n[2] * lights[light, 2]
                length = 0.0
                for k in range(3):
                    half[k] = lights[light, k] + eye[k]
                    length += half[k] * half[k]
                ndh = (n[0] * half[0] + n[1] * half[1] + n[2] * half[2]) / np.sqrt(length + 1e-9)
                visible = bright if light == 0 else occlusion
                shine = specular * (gloss + 8) * 0.04 * max(ndh, 0.0) ** gloss if ndl > 0 else 0.0
                shine *= visible * (0.3 + 0.7 * occlusion)
                for k in range(3):
                    # Light bleeds through skin, red farthest: wrapped diffuse per channel.
                    wrap = soft * (0.42 if k == 0 else (0.18 if k == 1 else 0.12))
                    diffuse = max(0.0, (ndl + wrap) / (1 + wrap))
                    shadowed = visible + (1 - visible) * wrap * 0.22
                    ambient_part = 0.55 + 0.45 * occlusion
                    out[y, x, k] += lights[light, 3 + k] * (t[k] * diffuse * shadowed * ambient_part + shine)
            up = 0.5 - 0.5 * n[1]
            fresnel = 0.04 + 0.25 * (1 - facing) ** 4
            for k in range(3):
                ambient = (lights[3, k] * up + lights[3, 3 + k] * (1 - up)) * occlusion
                out[y, x, k] += ambient * (t[k] + specular * fresnel)


def shade(
    triangle: np.ndarray,
    weights: np.ndarray,
    faces: np.ndarray,
    uv: np.ndarray,
    texture: np.ndarray,
    normals: np.ndarray,
    rotations: np.ndarray,
    occlusion: np.ndarray,
    static: np.ndarray,
    lit: np.ndarray,
    shadow: np.ndarray,
    lights: Lights,
) -> np.ndarray:
    """Linear RGB ``[H, W, 3]`` float32 of the covered pixels; zero elsewhere.

    normals ``[V, 3]`` in object space; rotations ``[2, 3, 3]`` object → camera for head and for static parts; occlusion ``[V]``
    in [0, 1] is how much ambient light arrives; static ``[V]`` chooses the second rotation; lit, shadow: `shadow_map`.
    """
    table = np.zeros((4, 6))
    table[0] = [*lights.key, *lights.key_color]
    table[1] = [*lights.fill, *lights.fill_color]
    table[2] = [*lights.rim, *lights.rim_color]
    table[3] = [*lights.sky, *lights.ground]
    out = np.zeros((*triangle.shape, 3), np.float32)
    extra = np.stack([occlusion, static], 1).astype(np.float32)
    eye = np.array([0.0, 0.0, -1.0])
    surface = triangle, weights, faces, uv, texture, normals.astype(np.float32)
    _shade(*surface, np.asarray(rotations, np.float32), eye, extra, lit, shadow, table, out)
    return out


def ambient_occlusion(points: np.ndarray, faces: np.ndarray, normals: np.ndarray, directions: int = 48) -> np.ndarray:
    """``[V]`` share of the sky each vertex sees, by depth maps from many directions; normals point outwards."""
    index = np.arange(directions) + 0.5
    polar = np.arccos(1 - 2 * index / directions)
    around = np.pi * (1 + 5**0.5) * index
    sky = np.stack([np.cos(around) * np.sin(polar), np.cos(polar), np.sin(around) * np.sin(polar)], 1)
    seen, total = np.zeros(len(points)), np.zeros(len(points))
    for direction in sky:
        weight = np.maximum(normals @ direction, 0)
        local, depth = shadow_map(points, faces, direction)
        x, y = (
            np.clip(local[:, 0].astype(int), 0, SHADOW_SIZE - 1),
            np.clip(local[:, 1].astype(int), 0, SHADOW_SIZE - 1),
        )
        seen += weight * (local[:, 2] - 0.09 <= depth[y, x])
        total += weight
    return seen / np.maximum(total, 1e-6)


def srgb_to_linear(color: np.ndarray) -> np.ndarray:
    """Display RGB in [0, 1] → linear."""
    color = np.asarray(color, dtype=np.float64)
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


_CURVE_TOP, _CURVE_STEPS = 6.0, 2047


def display(linear: np.ndarray) -> np.ndarray:
    """Linear RGB → display RGB in [0, 1] with soft highlights (Narkowicz 2015's fit of ACES), sRGB encoded."""
    x = np.maximum(linear, 0) * 0.75
    curve = np.clip(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 0, 1)
    return np.where(curve <= 0.0031308, curve * 12.92, 1.055 * np.power(np.maximum(curve, 1e-8), 1 / 2.4) - 0.055)


# The curve sampled evenly in the square root: per pixel a lookup instead of a power.
_CURVE = display(np.linspace(0, 1, _CURVE_STEPS + 1) ** 2 * _CURVE_TOP).astype(np.float32)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _develop(linear, triangle, hair, room, curve, scale, frame, matte):
    total = np.empty(4)
    for y in range(room.shape[0]):
        for x in range(room.shape[1]):
            total[:] = 0.0
            for j in range(scale):
                for i in range(scale):
                    sy, sx = y * scale + j, x * scale + i
                    through = 1.0 - hair[sy, sx, 3]
                    for k in range(3):
                        total[k] += hair[sy, sx, k]
                    if triangle[sy, sx] < 0:
                        total[3] += hair[sy, sx, 3]
                        continue
                    total[3] += 1.0
                    for k in range(3):
                        value = np.sqrt(min(max(linear[sy, sx, k], 0.0), 6.0) / 6.0)
                        total[k] += through * curve[int(value * (curve.shape[0] - 1) + 0.5)]
            share = 1.0 / (scale * scale)
            alpha = min(total[3] * share, 1.0)
            for k in range(3):
                value = total[k] * share + (1 - alpha) * room[y, x, k]
                frame[y, x, k] = np.uint8(255 * min(max(value, 0.0), 1.0) + 0.5)
            matte[y, x] = np.uint8(255 * alpha + 0.5)


def develop(
    linear: np.ndarray, triangle: np.ndarray, hair: np.ndarray, room: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The finished picture: hair over mesh over the room, scaled to the room's size.

    linear ``[sH, sW, 3]`` and triangle ``[sH, sW]`` from `shade` and the rasteriser; hair ``[sH, sW, 4]`` premultiplied
    display RGB and alpha; room ``[H, W, 3]`` display RGB. Returns frame ``[H, W, 3]`` uint8 and matte ``[H, W]`` uint8.
    """
    frame, matte = np.empty(room.shape, np.uint8), np.empty(room.shape[:2], np.uint8)
    scale = linear.shape[0] // room.shape[0]
    _develop(linear, triangle, hair.astype(np.float32), room.astype(np.float32), _CURVE, scale, frame, matte)
    return frame, matte
