#!/usr/bin/env bash
# Guess: a viewer draws a Gaussian until it is invisible, as 3D Gaussian Splatting's renderer does: about 3 standard
#   deviations, or 3.3 for an opaque one (until its opacity falls below 1/255).
# Behaviour: the GaussianSplat of three.js ends at 2 standard deviations: there an opaque Gaussian still has 13.5 % of its
#   opacity. Its bounding box, its picking and its shader (examples/jsm/objects/GaussianSplat.js: Discard beyond r² = 4)
#   agree on that.
# Why it matters to a user of this field: hair, beards and every soft outline get hard edges and small gaps that the training's
#   renderer did not show. The error is the viewer's: do not enlarge the Gaussians for it, or other viewers blur.
# Versions: three 0.187.0 (npm), Node 20. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund three@0.187.0

cat >reach.mjs <<'EOF'
import { Raycaster, Vector3 } from 'three/webgpu';
import { GaussianSplat } from 'three/addons/objects/GaussianSplat.js';
import { createGaussianSplatGeometry } from 'three/addons/utils/GaussianSplatUtils.js';

// One opaque Gaussian at the origin, standard deviation 1 along every axis (xx, xy, xz, yy, yz, zz of its covariance).
const round = new Float32Array([1, 0, 0, 1, 0, 1]);
const splat = new GaussianSplat(createGaussianSplatGeometry(new Float32Array(3), round, new Uint8Array(4).fill(255)));
splat.updateMatrixWorld(true);
splat.computeBoundingBox();
const reach = splat.boundingBox.max.x;
console.log(`bounding box: ${reach} standard deviations; opacity left there: ${(100 * Math.exp(-reach * reach / 2)).toFixed(1)} %`);

const hit = [1.9, 2.1, 3.0].map((x) => {
    const hits = [];
    splat.raycast(new Raycaster(new Vector3(x, 0, 10), new Vector3(0, 0, -1)), hits);
    console.log(`a ray ${x} standard deviations from the middle, opacity ${(100 * Math.exp(-x * x / 2)).toFixed(1)} %: ${hits.length ? 'hit' : 'missed'}`);
    return hits.length > 0;
});

if (reach !== 2 || !hit[0] || hit[1] || hit[2]) {
    console.log('Changed: a Gaussian of three.js no longer ends at two standard deviations.');
    process.exit(1);
}
EOF
node reach.mjs
