#!/usr/bin/env bash
# Guess: gsplat2USD --rotate-x 180, the turn that its documentation names for clouds in camera axes (y down), turns
#   the whole head: positions, orientations, and the spherical harmonics that hold the view-dependent colour.
# Behaviour: it turns positions and orientations. The coefficients of the harmonics are written as they were read, so
#   after half a turn each Gaussian shows from above the colour that it had from below. Nothing is printed about it.
# Why it matters to a user of this field: trained heads come in camera axes and USD is y up, so most need this turn.
#   Sheen of skin, eyes and hair then sits on the wrong side, as if the light came from the floor. Author the turn as
#   a transform of the prim, or turn the file first with a tool that turns the harmonics (splat-transform -r does).
# Versions: gsplat2USD 0.1.5, usd-core 26.11, plyfile 1.1.3, numpy 2.3.1, Python 3.11. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check gsplat2usd==0.1.5 usd-core==26.11 plyfile==1.1.3 numpy==2.3.1

venv/bin/python - <<'EOF'
import subprocess

import numpy as np
from plyfile import PlyData, PlyElement
from pxr import Usd, UsdVol

C0, C1 = 0.28209479177387814, 0.4886025119029199
ABOVE = np.array([0.0, -1.0, 0.0])  # y is down in camera axes
TURN = np.diag([1.0, -1.0, -1.0])  # 180 degrees about x

names = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(9))]
names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
vertex = np.zeros(1, dtype=[(name, "f4") for name in names])
vertex["x"], vertex["y"], vertex["z"], vertex["rot_0"], vertex["opacity"] = 0.1, 0.2, 0.3, 1.0, 3.0
for axis, log_scale in enumerate((-5.0, -4.0, -3.0)):
    vertex[f"scale_{axis}"] = log_scale
vertex["f_rest_0"] = 0.6  # red grows for a ray that goes down: seen from above
PlyData([PlyElement.describe(vertex, "vertex")]).write("head.ply")


def seen(name, side):
    """The position and the colour of the Gaussian, seen from the given side: (3,), (3,)."""
    stage = Usd.Stage.Open(name)
    splat = UsdVol.ParticleField3DGaussianSplat(stage.GetDefaultPrim())
    terms = np.array(splat.GetRadianceSphericalHarmonicsCoefficientsAttr().Get())
    x, y, z = -side  # the ray's direction, from the eye to the Gaussian
    colour = 0.5 + C0 * terms[0] + C1 * (-y * terms[1] + z * terms[2] - x * terms[3])
    return np.array(splat.GetPositionsAttr().Get())[0], colour


def convert(output, *turn):
    subprocess.run(
        ["venv/bin/gsplat2USD", "-i", "head.ply", "-o", output, *turn], check=True, stdout=subprocess.DEVNULL
    )


convert("plain.usda")
convert("turned.usda", "--rotate-x", "180")
place, colour = seen("plain.usda", ABOVE)
turned_place, turned_colour = seen("turned.usda", TURN @ ABOVE)
_, opposite = seen("turned.usda", -TURN @ ABOVE)
print("as it is: at", place.round(3), "and from above", colour.round(3))
print("turned by 180 degrees about x: at", turned_place.round(3), "and from above", turned_colour.round(3))
print("turned, from below:", opposite.round(3))
moved = np.allclose(turned_place, TURN @ place, atol=1e-5)
if not (moved and np.allclose(opposite, colour, atol=1e-5) and abs(turned_colour - colour).max() > 0.4):
    raise SystemExit("Changed: gsplat2USD turns the spherical harmonics with the Gaussians.")
EOF
