#!/usr/bin/env bash
# Guess: usd-core has one order for the four numbers of a quaternion. Gf.Quatf(w, x, y, z) takes the real part first and
#   prints it first, so an array [N, 4] of w, x, y, z, as Gaussian splatting stores rotations, can be set as it is.
# Behaviour: arrays that go to or come from NumPy are x, y, z, w: the real part is last. attribute.Set(rotations) and
#   Vt.QuatfArray.FromNumpy(rotations) take w for x, x for y, y for z and z for the real part, without an error. Reading the
#   attribute back into NumPy gives the array that was set, so a round trip proves nothing; only the printed values tell.
# Why it matters to a user of this field: a head of Gaussians has tens of thousands of orientations, and NumPy is the way in.
#   Every one is wrong, most by more than 100 degrees: the head is there, with fur instead of skin. Roll the columns:
#   np.roll(rotations, -1, axis=1).
# Versions: usd-core 26.11, numpy 1.26.4, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check usd-core==26.11 numpy==1.26.4

venv/bin/python - <<'EOF'
import numpy as np
from pxr import Gf, Sdf, Usd, Vt

rotations = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)  # w, x, y, z
rotations /= np.linalg.norm(rotations, axis=1, keepdims=True)
stage = Usd.Stage.CreateInMemory()
splat = stage.DefinePrim("/head", "ParticleField3DGaussianSplat")
orientations = splat.CreateAttribute("orientations", Sdf.ValueTypeNames.QuatfArray)


def degrees_off():
    """Median angle between what the attribute holds, as Gf.Quatf says, and the rotations."""
    held = np.array([[q.GetReal(), *q.GetImaginary()] for q in orientations.Get()])
    return float(np.median(2 * np.degrees(np.arccos(np.clip(np.abs((held * rotations).sum(1)), 0, 1)))))


one_by_one = Vt.QuatfArray([Gf.Quatf(*map(float, row)) for row in rotations])
orientations.Set(one_by_one)
by_constructor = degrees_off()
orientations.Set(rotations)
as_array = degrees_off()
round_trip = np.array_equal(np.array(orientations.Get()), rotations)
orientations.Set(Vt.QuatfArray.FromNumpy(np.roll(rotations, -1, axis=1)))
rolled = degrees_off()

first = Vt.QuatfArray([Gf.Quatf(1, 2, 3, 4)])
print(f"Gf.Quatf(1, 2, 3, 4) prints as {first[0]} and becomes {np.array(first)[0].tolist()} in NumPy")
print(f"orientations set one by one: {by_constructor:.1f} degrees off (median)")
print(f"set as an array of w, x, y, z: {as_array:.1f} degrees off; read back into NumPy, the same array: {round_trip}")
print(f"set with the columns rolled to x, y, z, w: {rolled:.1f} degrees off")
if not (by_constructor < 0.1 and as_array > 90 and round_trip and rolled < 0.1):
    raise SystemExit("Changed: usd-core takes NumPy's quaternions with the real part first, or refuses them.")
EOF
