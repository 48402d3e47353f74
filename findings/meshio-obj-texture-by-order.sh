#!/usr/bin/env bash
# Guess: meshio.read() of an OBJ gives each vertex the texture coordinate that the faces give it ("f 1/4 2/3 3/2": vertex, texture).
# Behaviour: it ignores the second numbers. Vertex k gets line k of the "vt" lines, whatever the faces say: with equally many of
#   both, the texture is scrambled without a word, and written files keep that. Only where the counts differ, it raises an error.
# Why it matters to a user of this field: the canonical face of FaceMesh is such a file, with 468 vertices, 468 texture coordinates and
#   faces that pair them otherwise ("f 174/43 156/119 134/220"), and so are templates of heads without a seam. UV maps that are
#   sampled or baked with meshio's coordinates belong to other parts of the face. Read the pairs from the faces; trimesh does.
# Versions: meshio 5.3.5, trimesh 5.2.0, numpy 2.4.6, Python 3.11. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check meshio==5.3.5 trimesh==5.2.0 numpy==2.4.6

venv/bin/python - <<'EOF'
from pathlib import Path

import meshio
import numpy as np
import trimesh

# A sheet of 5 x 5 vertices whose texture coordinates are their own x and y, listed in another order.
SIDE = 5
grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1).reshape(-1, 2) / (SIDE - 1)
order = np.random.default_rng(0).permutation(len(grid))  # line of "vt" k describes vertex order[k]
place = np.argsort(order)
corner = [row * SIDE + column for row in range(SIDE - 1) for column in range(SIDE - 1)]
faces = [(k, k + 1, k + SIDE + 1) for k in corner] + [(k, k + SIDE + 1, k + SIDE) for k in corner]
lines = [f"v {x} {y} 0" for x, y in grid] + [f"vt {u} {v}" for u, v in grid[order]]
lines += ["f " + " ".join(f"{k + 1}/{place[k] + 1}" for k in face) for face in faces]
Path("sheet.obj").write_text("\n".join(lines) + "\n")

mesh = meshio.read("sheet.obj")
other = trimesh.load("sheet.obj", process=False)
wrong = np.abs(mesh.point_data["obj:vt"] - mesh.points[:, :2]).max(1)
right = np.abs(other.visual.uv - other.vertices[:, :2]).max()
print("vertices, texture coordinates :", len(grid), len(order))
print("trimesh, largest error        :", right)
print("meshio, vertices that are off :", int((wrong > 1e-6).sum()))
print(f"meshio, mean and largest error: {wrong.mean():.2f}, {wrong.max():.2f} (the sheet is 1 wide)")
if not (right < 1e-6 and (wrong > 1e-6).sum() > len(grid) / 2):
    raise SystemExit("Changed: meshio pairs texture coordinates with vertices as the faces say.")
EOF
