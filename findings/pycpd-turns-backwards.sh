#!/usr/bin/env bash
# Guess: RigidRegistration of pycpd returns s, R, t with target = s R y + t for a point y of the source, as the paper writes it.
# Behaviour: R stands on the other side, target = s y R + t: used as a rotation matrix it turns the other way. The points that
#   register() returns beside it are right. A head turned by 20 degrees is reported as turned by -20, and R y + t of its points
#   lies 6.4 cm from the target.
# Why it matters to a user of this field: scans and landmarks of heads are aligned by it, and the rotation is kept as the pose.
#   Small angles of both signs look plausible, and a fit that starts from the opposite turn starts at twice the error. Transpose R.
# Versions: pycpd 2.0.0, scipy 1.15.3, numpy 1.26.4, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pycpd==2.0.0 scipy==1.15.3 numpy==1.26.4

venv/bin/python - <<'EOF'
import numpy as np
from pycpd import RigidRegistration
from scipy.spatial.transform import Rotation

source = np.random.default_rng(0).normal(size=(200, 3)) * (0.07, 0.1, 0.08)  # metres
wrong = True
for axis, angle in (("y", 20), ("x", -10), ("z", 15)):
    turn = Rotation.from_euler(axis, angle, degrees=True)
    target = turn.apply(source) + (0.01, 0, 0.02)
    moved, (scale, matrix, shift) = RigidRegistration(X=target, Y=source).register()
    found = Rotation.from_matrix(matrix).as_euler("xyz", degrees=True)["xyz".index(axis)]
    columns = np.linalg.norm(scale * source @ matrix.T + shift - target, axis=1).mean()
    rows = np.linalg.norm(scale * source @ matrix + shift - target, axis=1).mean()
    registered = np.linalg.norm(moved - target, axis=1).mean()
    print(f"turned by {angle:+} degrees about {axis}: R turns by {found:+.1f};", end=" ")
    print(f"off by {1000 * columns:.1f} mm by s R y + t, {1000 * rows:.1f} by s y R + t, {1000 * registered:.1f} as registered")
    wrong &= abs(found + angle) < 0.5 and registered < 1e-4 and rows < 1e-4 and columns > 0.01
if not wrong:
    raise SystemExit("Changed: pycpd returns the rotation that takes the source to the target.")
EOF
