#!/usr/bin/env bash
# Guess: a converter's formats agree: ply -> .compressed.ply -> ply loses precision, not meaning.
# Behaviour: gaussforge writes the spherical harmonics of a .compressed.ply with colour channel and coefficient
#   swapped. Of the nine f_rest values of degree 1, three come back within 0.02 and six hold another one's value.
#   gsply's reader finds the same swap as gaussforge's own, so the writer is at fault. Through .spz all nine are right.
# Why it matters to a user of this field: the head looks right from the front, where the view-dependent part is small,
#   and glints in wrong colours from the side. Convert through another format, or drop the harmonics first.
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

rng = np.random.default_rng(0)
rest = [f"f_rest_{k}" for k in range(9)]  # coefficient k of red, then of green, then of blue
names = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity"]
names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
table = np.zeros(1000, dtype=[(name, "<f4") for name in names])
for name in names:
    table[name] = rng.uniform(-0.6, 0.6, len(table)) - 5 * name.startswith("scale")
PlyData([PlyElement.describe(table, "vertex")]).write("head.ply")

forge = gaussforge.GaussForge()
source = Path("head.ply").read_bytes()


def errors(columns):
    """The largest error of each f_rest column; this writer keeps the order of the Gaussians."""
    return np.array([np.abs(columns[k] - table[name]).max() for k, name in enumerate(rest)])


def there_and_back(kind):
    packed = forge.convert(source, "ply", kind)["data"]
    Path(f"packed.{kind}").write_bytes(packed)
    Path("back.ply").write_bytes(forge.convert(packed, kind, "ply")["data"])
    back = PlyData.read("back.ply")["vertex"]
    return errors([back[name] for name in rest])


spz, compressed = there_and_back("spz"), there_and_back("compressed.ply")
by_gsply = np.asarray(gsply.plyread("packed.compressed.ply").shN)  # [N, 3 coefficients, 3 channels]
other = errors([by_gsply[:, k % 3, k // 3] for k in range(9)])
print("largest error of f_rest_0 ... f_rest_8")
print("through .spz                     ", spz.round(2))
print("through .compressed.ply          ", compressed.round(2))
print(".compressed.ply as read by gsply ", other.round(2))

swapped = np.array([k // 3 != k % 3 for k in range(9)])
right = (compressed[~swapped] < 0.05).all() and (other[~swapped] < 0.05).all() and (spz < 0.05).all()
if not (right and (compressed[swapped] > 0.5).all() and (other[swapped] > 0.5).all()):
    raise SystemExit("Changed: gaussforge keeps the order of the harmonics in a .compressed.ply.")
EOF
