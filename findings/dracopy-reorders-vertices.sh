#!/usr/bin/env bash
# Guess: DracoPy.encode() rounds the vertices of a mesh or the points of a cloud, and leaves them in their places.
# Behaviour: by default it puts them in another order. A mesh's depends on its faces; a cloud's on the positions, so two frames of
#   one cloud get two orders, and a cloud loses points that share a place. With preserve_order=True all stay where they were.
# Why it matters to a user of this field: blendshapes, skinning weights and the scales and rotations of Gaussians are arrays in
#   the order of the vertices. Decoded, the file looks right as a surface or a cloud, and what is stored beside it belongs to
#   other vertices; the difference of two decoded frames is no motion.
# Versions: DracoPy 2.2.0, numpy 1.26.4, Python 3.11. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check DracoPy==2.2.0 numpy==1.26.4

venv/bin/python - <<'EOF'
import DracoPy
import numpy as np

side = 20
cells = np.arange(side * side).reshape(side, side)
a, b, c, d = (corner.ravel() for corner in (cells[:-1, :-1], cells[:-1, 1:], cells[1:, :-1], cells[1:, 1:]))
faces = np.concatenate([np.stack([a, b, c], 1), np.stack([d, c, b], 1)])
x, y = np.meshgrid(np.linspace(-0.1, 0.1, side), np.linspace(-0.1, 0.1, side))
neutral = np.stack([x, y, 0.05 * np.cos(8 * x)], -1).reshape(-1, 3).astype(np.float32)  # m
smile = neutral.copy()
smile[:, 1] += 0.01 * np.abs(neutral[:, 0]) / 0.1  # at most 10 mm


def decoded(points, faces=None, **options):
    return np.asarray(DracoPy.decode(DracoPy.encode(points, faces, **options)).points)


def apart(first, second):
    """Largest distance of point k of one from point k of the other, mm."""
    return 1000 * float(np.linalg.norm(first - second, axis=1).max())


mesh, kept = apart(decoded(neutral, faces), neutral), apart(decoded(neutral, faces, preserve_order=True), neutral)
motion = apart(decoded(smile), decoded(neutral))
still = apart(decoded(smile, preserve_order=True), decoded(neutral, preserve_order=True))
twice = np.concatenate([neutral, neutral[:5]])
left = len(decoded(twice))
print(f"mesh: vertex k after decoding lies up to {mesh:.0f} mm from vertex k; with preserve_order=True {kept:.2f} mm")
print(f"cloud: points move by up to 10 mm between two frames, decoded by up to {motion:.0f} mm; with preserve_order=True {still:.1f} mm")
print(f"cloud of {len(twice)} points, 5 of them twice: {left} are decoded")
if not (mesh > 100 and kept < 0.2 and motion > 20 and still < 11 and left == len(neutral)):
    raise SystemExit("Changed: DracoPy.encode() keeps the order and the number of points.")
EOF
