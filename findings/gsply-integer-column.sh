#!/usr/bin/env bash
# Guess: a reader of Gaussian PLY files finds its columns by name and skips an extra one, whatever its type.
# Behaviour: gsply's plyread() counts every property as four bytes of float. One uchar column (a label, a face region,
#   a colour) reads each row three bytes further off than the last: the first row is right, the rest are wild numbers or
#   NaN, and no error is raised. An extra float column is skipped correctly.
# Why it matters to a user of this field: tools that segment heads add such columns, and the PLY format allows them.
#   The count and the first row look right. Write labels as float, or beside the file.
# Versions: gsply 0.4.6, plyfile 1.1.3, numpy 1.26.4, Python 3.11. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check gsply==0.4.6 plyfile==1.1.3 numpy==1.26.4

venv/bin/python - <<'EOF'
import gsply
import numpy as np
from plyfile import PlyData, PlyElement

names = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
values = np.random.default_rng(0).normal(size=(100, len(names))).astype(np.float32)


def right_rows(label_type):
    """Write the Gaussians with a label column of this type; count the rows whose position gsply returns exactly."""
    table = np.zeros(len(values), dtype=[(name, "<f4") for name in names] + [("label", label_type)])
    for column, name in enumerate(names):
        table[name] = values[:, column]
    PlyData([PlyElement.describe(table, "vertex")]).write("head.ply")
    with np.errstate(all="ignore"):
        means = np.asarray(gsply.plyread("head.ply").means)
    return len(means), int((means == values[:, :3]).all(axis=1).sum())


as_float, as_byte = right_rows("<f4"), right_rows("u1")
print(f"label as float: {as_float[0]} Gaussians, {as_float[1]} with the right position")
print(f"label as uchar: {as_byte[0]} Gaussians, {as_byte[1]} with the right position")
if not (as_float == (100, 100) and as_byte == (100, 1)):
    raise SystemExit("Changed: gsply reads, or refuses, a PLY with an integer column.")
EOF
