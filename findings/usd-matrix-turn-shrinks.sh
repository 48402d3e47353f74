#!/usr/bin/env bash
# Guess: a head that is turned by keys of its transform, a matrix at each, keeps its size between them: USD slerps quaternions,
#   and a pose [4, 4] is the usual form in which trackers and cameras give it.
# Behaviour: matrices are interpolated number by number. Halfway between two keys that are a turn of 60 degrees apart
#   the head is 13 % narrower, halfway through 90 degrees 29 %, and through 170 degrees a twelfth of its width is left.
#   xformOp:orient (a quaternion) and xformOp:rotateXYZ keep its size. At the keys all three are right.
# Why it matters to a user of this field: a head whose poses stand at a few keys breathes while it turns; a check of the
#   keys, or of a playback at the keys' own rate, finds nothing. Write poses as translate and orient.
# Versions: usd-core 26.11, numpy 1.26.4, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check usd-core==26.11 numpy==1.26.4

venv/bin/python - <<'EOF'
import numpy as np
from pxr import Gf, Usd, UsdGeom


def widths(kind, degrees):
    """Width, at the first key and halfway to the second, of a head that is 1 wide and turns about its vertical axis."""
    stage = Usd.Stage.CreateInMemory()
    head = UsdGeom.Xform.Define(stage, "/head")
    turn = Gf.Rotation(Gf.Vec3d(0, 1, 0), degrees)
    if kind == "transform":
        op, keys = head.AddTransformOp(), (Gf.Matrix4d(1), Gf.Matrix4d().SetRotate(turn))
    elif kind == "orient":
        op = head.AddOrientOp(UsdGeom.XformOp.PrecisionDouble)
        keys = (Gf.Quatd(1), turn.GetQuat())
    else:
        op, keys = head.AddRotateXYZOp(), (Gf.Vec3f(0), Gf.Vec3f(0, degrees, 0))
    for time, key in enumerate(keys):
        op.Set(key, 10 * time)
    matrices = [head.ComputeLocalToWorldTransform(time) for time in (0, 5)]
    return [float(np.linalg.norm(matrix.TransformDir(Gf.Vec3d(1, 0, 0)))) for matrix in matrices]


seen = {}
for degrees in (60, 90, 170):
    for kind in ("transform", "orient", "rotateXYZ"):
        seen[kind, degrees] = widths(kind, degrees)
        first, half = seen[kind, degrees]
        print(f"{degrees:3d} degrees by {kind:9s}: width at the key {first:.3f}, halfway {half:.3f}")
turned = [seen["transform", degrees] for degrees in (60, 90, 170)]
shrinks = all(first == 1 and abs(half - np.cos(np.radians(d / 2))) < 1e-6 for d, (first, half) in zip((60, 90, 170), turned))
others = all(abs(half - 1) < 1e-6 for (kind, _), (_, half) in seen.items() if kind != "transform")
if not (shrinks and others):
    raise SystemExit("Changed: USD keeps the size of what a transform matrix turns, or another operation loses it.")
EOF
