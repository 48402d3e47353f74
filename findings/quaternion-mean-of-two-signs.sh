#!/usr/bin/env bash
# Guess: mean_rotor_in_chordal_metric() of numpy-quaternion, the rotation "closest to all R in the least-squares sense", does not depend on which of its
#   two quaternions stands for a rotation, as its slerp(), which takes the shorter way, does not.
# Behaviour: it adds the quaternions. If one has the other sign, the mean of head poses 6 and 17 degrees to one side is a head turned by 168 degrees the
#   other way about the same axis, of full length and without a warning.
# Why it matters to a user of this field: trackers return either sign and flip it within a clip. The mean pose of a clip, a camera's of several
#   calibrations, or a smoothed pose is then turned away from the camera.
# Versions: numpy-quaternion 2024.0.13, numpy 2.4.6, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy-quaternion==2024.0.13 numpy==2.4.6 2>/dev/null

venv/bin/python -W ignore - <<'EOF'
import numpy as np
import quaternion

a, b = (quaternion.from_rotation_vector([0, np.radians(degrees), 0]) for degrees in (6, 17))


def degrees(rotor):
    return np.degrees(np.linalg.norm(quaternion.as_rotation_vector(rotor)))


same, other = (quaternion.mean_rotor_in_chordal_metric(np.array([a, c])) for c in (b, -b))
between = quaternion.slerp_evaluate(a, -b, 0.5)
print(f"mean of 6 and 17 degrees           : {degrees(same):.1f}")
print(f"the second with the other sign     : {degrees(other):.1f}, components {np.round(quaternion.as_float_array(other), 3)}")
print(f"slerp half way, with the other sign: {degrees(between):.1f}")
if not (abs(degrees(same) - 11.5) < 0.1 and degrees(other) > 150 and abs(degrees(between) - 11.5) < 0.1):
    raise SystemExit("Changed: the mean of rotations no longer depends on their quaternions' signs, or slerp does.")
EOF
