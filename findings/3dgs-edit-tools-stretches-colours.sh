#!/usr/bin/env bash
# Guess: 3dgs-to-csv and csv-to-3dgs, made for editing Gaussians in a table, give the same head back when nothing is edited.
# Behaviour: writing the table stretches f_dc_0..2 until this file's smallest coefficient is 0 and its largest 1, and says that it
#   normalises them; reading takes 0..1 for colours of one fixed scale, because the range is not kept. Skin comes back 67 of 255
#   levels off on average, and 121 where one Gaussian of 500 is a highlight. All other columns return exactly.
# Why it matters to a user of this field: one bright or dark Gaussian sets the range, so a highlight in the eye changes the whole
#   skin, and parts of a head that are edited apart (face, hair, teeth) do not fit together again. Edit the PLY's columns, with
#   plyfile or NumPy.
# Versions: 3dgs-edit-tools 0.3.0, open3d-cpu 0.20.0, pandas 2.3.3 (it imports them), numpy 1.26.4, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    3dgs-edit-tools==0.3.0 open3d-cpu==0.20.0 pandas==2.3.3 matplotlib==3.10.8 numpy==1.26.4

cat >head.py <<'EOF'
import subprocess

import numpy as np

NAMES = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
NAMES += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
COLOUR = [NAMES.index(f"f_dc_{channel}") for channel in range(3)]
HARMONIC = 0.28209479177387814  # a colour is 0.5 + HARMONIC f_dc


def write(path, rows):
    lines = "\n".join(f"property float {name}" for name in NAMES)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n{lines}\nend_header\n"
    with open(path, "wb") as file:
        file.write(header.encode() + rows.astype("<f4").tobytes())


def read(path):
    with open(path, "rb") as file:
        return np.frombuffer(file.read().partition(b"end_header\n")[2], "<f4").reshape(-1, len(NAMES))


generator = np.random.default_rng(0)
head = generator.normal(size=(500, len(NAMES))).astype("<f4")
head[:, 3:6] = 0
skin = np.array([200, 150, 125]) + generator.normal(0, 12, (500, 3))
head[:, COLOUR] = (skin / 255 - 0.5) / HARMONIC
glint = head.copy()
glint[0, COLOUR] = (np.array([1.3, 1.3, 1.3]) - 0.5) / HARMONIC  # a highlight brighter than white, as fits have them

changed = True
for name, rows in (("skin alone", head), ("with one highlight", glint)):
    write("head.ply", rows)
    subprocess.run(["venv/bin/3dgs-to-csv", "head.ply", "--output_csv", "head.csv"], check=True, capture_output=True)
    subprocess.run(["venv/bin/csv-to-3dgs", "head.csv", "--output_ply", "back.ply"], check=True, capture_output=True)
    back = read("back.ply")
    before, after = (255 * (0.5 + HARMONIC * each[1:, COLOUR]) for each in (rows, back))
    rest = [k for k in range(len(NAMES)) if k not in COLOUR]
    kept = np.abs(back[:, rest] - rows[:, rest]).max() < 1e-5
    print(f"{name:18} mean colour {before.mean(0).round(0)} returns as {after.mean(0).round(0)},", end=" ")
    print(f"{np.abs(after - before).mean():.0f} levels off on average; other columns kept: {kept}")
    changed &= np.abs(after - before).mean() > 8 and kept
if not changed:
    raise SystemExit("Changed: 3dgs-edit-tools returns the colours that it was given.")
EOF
venv/bin/python head.py
