#!/usr/bin/env bash
# Guess: splat-transform's outputs of one PLY agree: a .glb holds the positions of the .ply and the .spz.
# Behaviour: the .glb alone is turned by 180 degrees about z: x and y change their sign, z stays, in the vertex data
#   and not by a node's transform. The .spz read back keeps the coordinates of the .ply.
# Why it matters to a user of this field: a head in camera axes has y down and looks along -z; glTF wants y up and a
#   front that looks along +z. The turn brings the head upright, but a glTF viewer sees it from behind. Code that turns
#   the head about x first, as other formats need, gets it upside down.
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
table = np.zeros(100, dtype=[(name, "<f4") for name in names])
for name in names:
    table[name] = rng.normal(-6 if name.startswith("scale") else 0, 0.1, len(table))
PlyData([PlyElement.describe(table, "vertex")]).write("head.ply")
EOF
venv/bin/python write.py
node_modules/.bin/splat-transform --quiet head.ply head.glb
node_modules/.bin/splat-transform --quiet head.ply head.spz
node_modules/.bin/splat-transform --quiet head.spz back.ply

venv/bin/python - <<'EOF'
import json
import struct

import numpy as np
from plyfile import PlyData


def ply(path):
    vertex = PlyData.read(path)["vertex"]
    return np.stack([vertex[axis] for axis in "xyz"], axis=1)


data = open("head.glb", "rb").read()
length = struct.unpack_from("<I", data, 12)[0]
document = json.loads(data[20 : 20 + length])
accessor = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
view = document["bufferViews"][accessor["bufferView"]]
start = 20 + length + 8 + view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
glb = np.frombuffer(data, "<f4", 3 * accessor["count"], start).reshape(-1, 3)

given = ply("head.ply")
turned, kept = np.allclose(glb, given * [-1, -1, 1]), np.allclose(ply("back.ply"), given, atol=1e-3)
print("first Gaussian: .ply", given[0], " .spz", ply("back.ply")[0], " .glb", glb[0])
print("transform of the node in the .glb:", document["nodes"])
if not (turned and kept and not {"matrix", "rotation"} & set(document["nodes"][0])):
    raise SystemExit("Changed: splat-transform's .glb has the positions of the .ply, or another turn.")
EOF
