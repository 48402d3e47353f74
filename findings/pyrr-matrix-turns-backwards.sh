#!/usr/bin/env bash
# Guess: a quaternion, the matrix made of it and the matrix made of the same angle turn a vector in one way.
# Behaviour: quaternion.apply_to_vector() turns by +angle, matrix33.apply_to_vector() with the matrix of that quaternion, or with
#   matrix33.create_from_x_rotation() of the same angle, by -angle: it multiplies the vector from the left, as a row.
# Why it matters to a user of this field: pyrr places cameras and heads in OpenGL viewers. Turning landmarks by a tracked head pose gives the
#   mirrored motion as soon as the quaternion is turned into a matrix "to apply it to many points": heads nod up for down.
# Versions: pyrr 0.10.3, numpy 1.26.4, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyrr==0.10.3 numpy==1.26.4

venv/bin/python - <<'EOF'
import numpy as np
from pyrr import matrix33, quaternion

angle, chin = np.radians(20), np.array([0.0, -1.0, 0.0])
turn = quaternion.create_from_x_rotation(angle)
results = {
    "quaternion": quaternion.apply_to_vector(turn, chin),
    "matrix of the quaternion": matrix33.apply_to_vector(matrix33.create_from_quaternion(turn), chin),
    "matrix of the angle": matrix33.apply_to_vector(matrix33.create_from_x_rotation(angle), chin),
    "matrix @ vector": matrix33.create_from_x_rotation(angle) @ chin,
}
for name, place in results.items():
    print(f"{name:25s} chin goes to z = {place[2]:+.3f}")
z = {name: float(place[2]) for name, place in results.items()}
apart = np.isclose(z["quaternion"], -z["matrix of the quaternion"]) and np.isclose(z["quaternion"], -z["matrix of the angle"])
if not (apart and abs(z["quaternion"]) > 0.3):
    raise SystemExit("Changed: a quaternion and its matrix turn a vector in one way.")
EOF
