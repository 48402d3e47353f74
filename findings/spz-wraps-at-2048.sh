#!/usr/bin/env bash
# Guess: SPZ stores positions in 24 bits of the scene's own bounding box, as .compressed.ply does, so units do not
#   matter.
# Behaviour: they are fixed-point numbers of 1/4096 unit. In metres a head's Gaussians move by up to 0.12 mm; in
#   millimetres everything beyond 2,048 mm is stored modulo 4,096, so x = 2100 comes back as -1996. gaussforge wraps
#   without a word; gsply clips such a position to 2,048 in the same file format, also without a word.
# Why it matters to a user of this field: face trackers and scanners work in millimetres with the camera at the
#   origin, and a subject beyond two metres is common. Centre the head and convert the unit before writing SPZ.
# Versions: gaussforge 0.6.0, gsply 0.4.6, plyfile 1.1.3, numpy 1.26.4, Python 3.11. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check gaussforge==0.6.0 gsply==0.4.6 plyfile==1.1.3 numpy==1.26.4

venv/bin/python - <<'EOF'
from pathlib import Path

import gaussforge
import gsply
import numpy as np
from plyfile import PlyData, PlyElement

names = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
forge = gaussforge.GaussForge()


def write(x):
    table = np.zeros(len(x), dtype=[(name, "<f4") for name in names])
    table["x"], table["rot_0"] = x, 1
    PlyData([PlyElement.describe(table, "vertex")]).write("head.ply")


def through_gaussforge():
    packed = forge.convert(Path("head.ply").read_bytes(), "ply", "spz")["data"]
    Path("back.ply").write_bytes(forge.convert(packed, "spz", "ply")["data"])
    return np.array(PlyData.read("back.ply")["vertex"]["x"])


metres = np.linspace(-0.1, 0.1, 1001, dtype=np.float32)
write(metres)
step = np.abs(through_gaussforge() - metres).max()
print(f"a head in metres: positions move by up to {1000 * step:.3f} mm")

millimetres = np.array([1900, 2000, 2100, 2200], np.float32)
write(millimetres)
wrapped = through_gaussforge()
gsply.write_spz("head.spz", gsply.plyread("head.ply"))
clipped = np.asarray(gsply.read_spz("head.spz").means)[:, 0]
print("in millimetres:  given", millimetres, " gaussforge", wrapped, " gsply", clipped)

if not (1e-4 < step < 1.3e-4 and np.allclose(wrapped, [1900, 2000, -1996, -1896])):
    raise SystemExit("Changed: gaussforge no longer wraps SPZ positions beyond 2,048 units.")
if not np.allclose(clipped, [1900, 2000, 2048, 2048], atol=1e-3):
    raise SystemExit("Changed: gsply no longer clips SPZ positions beyond 2,048 units.")
EOF
