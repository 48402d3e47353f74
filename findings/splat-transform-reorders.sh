#!/usr/bin/env bash
# Guess: converting a PLY of Gaussians into .sog or .compressed.ply and back keeps row i in row i, as .spz does.
# Behaviour: splat-transform writes both in Morton order, without an option to keep the order and without a table of
#   the permutation. The count is right and hardly any row is where it was.
# Why it matters to a user of this field: animated heads bind Gaussian i to a triangle, a UV texel or a row of blend
#   weights. After such a trip each one moves with a foreign part of the face, though the still picture is the same.
#   Bind after converting, or match by position.
# Versions: @playcanvas/splat-transform 3.7.0 (npm), plyfile 1.1.3, numpy 1.26.4, Python 3.11, Node 20. Date:
#   2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check plyfile==1.1.3 numpy==1.26.4
npm install --silent --no-audit --no-fund @playcanvas/splat-transform@3.7.0

cat >write.py <<'EOF'
import numpy as np
from plyfile import PlyData, PlyElement

rng = np.random.default_rng(0)
names = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
table = np.zeros(1000, dtype=[(name, "<f4") for name in names])
for name in names:
    table[name] = rng.normal(-6 if name.startswith("scale") else 0, 0.1, len(table))
PlyData([PlyElement.describe(table, "vertex")]).write("head.ply")
EOF
venv/bin/python write.py
for kind in spz sog compressed.ply; do
    node_modules/.bin/splat-transform --quiet --gpu cpu head.ply "head.$kind"
    node_modules/.bin/splat-transform --quiet "head.$kind" "back-$kind.ply"
done

venv/bin/python - <<'EOF'
import numpy as np
from plyfile import PlyData


def positions(path):
    vertex = PlyData.read(path)["vertex"]
    return np.stack([vertex[axis] for axis in "xyz"], axis=1)


given = positions("head.ply")
kept = {}
for kind in ("spz", "sog", "compressed.ply"):
    back = positions(f"back-{kind}.ply")
    distance = np.linalg.norm(back[:, None] - given[None], axis=2)
    kept[kind] = int((distance.argmin(axis=1) == np.arange(len(given))).sum())
    furthest = distance.min(axis=1).max()
    print(f"through .{kind}: {len(back)} Gaussians, {kept[kind]} in their row, none further off than {furthest:.4f}")
if not (kept["spz"] > 990 and kept["sog"] < 50 and kept["compressed.ply"] < 50):
    raise SystemExit("Changed: splat-transform keeps the order of Gaussians in .sog or .compressed.ply.")
EOF
