#!/usr/bin/env bash
# Guess: UsdGeom.BBoxCache computes the bounds of a ParticleField3DGaussianSplat from its positions and scales, as it
#   does for Points from positions and widths.
# Behaviour: usd-core has the schema but no extent function for it. ComputeExtentFromPlugins() returns None and the
#   cache an empty box, without a warning; only an authored "extent" is seen. Points with the same data get their box.
# Why it matters to a user of this field: a host frames, culls and places a head by these bounds. A head without an
#   authored extent counts as empty. Write positions plus and minus three standard deviations as extent.
# Versions: usd-core 26.11, Python 3.11. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check usd-core==26.11

venv/bin/python - <<'EOF'
from pxr import Gf, Usd, UsdGeom, UsdVol

stage = Usd.Stage.CreateInMemory()
centres = [Gf.Vec3f(-0.1, 0, 0), Gf.Vec3f(0.1, 0.2, 0)]

splats = UsdVol.ParticleField3DGaussianSplat.Define(stage, "/splats")
splats.CreatePositionsAttr(centres)
splats.CreateScalesAttr([Gf.Vec3f(0.01)] * 2)
splats.CreateOrientationsAttr([Gf.Quatf(1, 0, 0, 0)] * 2)
splats.CreateOpacitiesAttr([1.0, 1.0])

points = UsdGeom.Points.Define(stage, "/points")
points.CreatePointsAttr(centres)
points.CreateWidthsAttr([0.02] * 2)


def box(prim):
    """The aligned range that a fresh cache finds; None where it is empty."""
    cache = UsdGeom.BBoxCache(Usd.TimeCode.Default(), [UsdGeom.Tokens.default_])
    bounds = cache.ComputeWorldBound(prim.GetPrim()).ComputeAlignedRange()
    return None if bounds.IsEmpty() else bounds


computed = UsdGeom.Boundable.ComputeExtentFromPlugins(splats, Usd.TimeCode.Default())
without = box(splats)
print("points:", box(points))
print("Gaussians, no extent authored:", without, "; ComputeExtentFromPlugins:", computed)
splats.CreateExtentAttr([Gf.Vec3f(-0.13, -0.03, -0.03), Gf.Vec3f(0.13, 0.23, 0.03)])
print("Gaussians, extent authored:", box(splats))
if not (computed is None and without is None and box(points) is not None and box(splats) is not None):
    raise SystemExit("Changed: usd-core computes the extent of a ParticleField3DGaussianSplat.")
EOF
