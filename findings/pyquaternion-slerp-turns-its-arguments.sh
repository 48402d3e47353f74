#!/usr/bin/env bash
# Guess: Quaternion.slerp(a, b, t) returns a rotation between a and b, and leaves both as they are.
# Behaviour: it changes them. Both are scaled to unit length, and the sign of all four components of a is reversed when a and b lie in
#   opposite half-spaces. intermediates() does the same. The rotation of a stays, its numbers do not.
# Why it matters to a user of this field: filling a dropped frame between two tracked head poses reverses the stored pose before the
#   gap. Differences of components between frames (velocities, losses, smoothing, Gaussians' orientations in a PLY) then
#   jump by up to 2 at that frame, once for every gap, and a file written after the interpolation differs from one written before.
# Versions: pyquaternion 0.9.9, numpy 2.4.6, Python 3.11. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyquaternion==0.9.9 numpy==2.4.6

venv/bin/python - <<'EOF'
import numpy as np
from pyquaternion import Quaternion

# A head that turns slowly; the tracker's quaternions are continuous, except that it begins with another sign at frame 3.
poses = [Quaternion(axis=[0, 1, 0], degrees=angle) for angle in (2.0, 3.0, 4.0)]
poses += [-Quaternion(axis=[0, 1, 0], degrees=angle) for angle in (6.0, 7.0, 8.0)]


def steps():
    return np.abs(np.diff([pose.elements for pose in poses], axis=0)).max(1).round(2)


before, stored = steps(), poses[2].elements.copy()
middle = Quaternion.slerp(poses[2], poses[3], 0.5)
after = steps()
print("pose before the gap      :", stored.round(4))
print("the same after slerp()   :", poses[2].elements.round(4))
print("the pose in the gap      :", middle.elements.round(4))
print("steps between frames were:", before)
print("and are                  :", after)

first, second = Quaternion(2, 0, 0, 0), Quaternion(0, 3, 0, 0)
list(Quaternion.intermediates(first, second, 1))
print("2 and 3i after intermediates():", first.elements, second.elements)
turned = np.allclose(poses[2].elements, -stored) and after[1] > 1.9 > before[1]
scaled = np.isclose(first.norm, 1) and np.isclose(second.norm, 1)
if not (turned and scaled):
    raise SystemExit("Changed: slerp() and intermediates() leave their arguments as they are.")
EOF
