#!/usr/bin/env bash
# Guess: ply -> .compressed.ply -> ply by splat-transform returns finite opacities near those given.
# Behaviour: opacity is stored in 8 bits after the sigmoid, and its inverse is taken without a bound. Each Gaussian
#   whose logit lies beyond about 6.2 comes back as plus or minus infinity; about 4 % of a cloud whose logits have a
#   spread of 3 do. The exit status is 0 and nothing is printed.
# Why it matters to a user of this field: solid skin has such opacities. A renderer shows the file correctly, but a
#   head that is loaded to be trained further has gradients of zero there and NaN in any mean, weight decay or merge.
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
table = np.zeros(2000, dtype=[(name, "<f4") for name in names])
for name in names:
    table[name] = rng.normal(-6 if name.startswith("scale") else 0, 0.1, len(table))
table["opacity"] = rng.normal(0, 3, len(table))
PlyData([PlyElement.describe(table, "vertex")]).write("head.ply")
EOF
venv/bin/python write.py
node_modules/.bin/splat-transform --quiet head.ply head.compressed.ply
node_modules/.bin/splat-transform --quiet head.compressed.ply back.ply

venv/bin/python - <<'EOF'
import numpy as np
from plyfile import PlyData

given = np.array(PlyData.read("head.ply")["vertex"]["opacity"])
back = np.array(PlyData.read("back.ply")["vertex"]["opacity"])
finite = np.isfinite(back)
print(f"given: logits from {given.min():.1f} to {given.max():.1f}, all finite: {np.isfinite(given).all()}")
print(f"back: {np.isposinf(back).sum()} at +inf, {np.isneginf(back).sum()} at -inf of {len(back)}; ", end="")
with np.errstate(invalid="ignore"):
    print(f"the largest finite {np.abs(back[finite]).max():.2f}; the mean of all is {np.mean(back)}")
if not (np.isfinite(given).all() and len(back) == len(given) and (~finite).sum() > 20):
    raise SystemExit("Changed: splat-transform returns finite opacities from a .compressed.ply.")
EOF
