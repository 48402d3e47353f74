#!/usr/bin/env bash
# Guess: SPZ in bytes loses the same fraction of a degree of every Gaussian's orientation, whichever way it points.
# Behaviour: spz-js writes version 2 of the format, three bytes of the quaternion's x, y, z; w is what is missing to length 1.
#   Near w = 0, that is for half turns, a step of a byte in x, y, z is a large step in w. The orientations of a head near the
#   identity come back within 0.8 degrees; of the same head turned by half a turn about x, half are off by more than 2
#   degrees, and the worst by over 9.
# Why it matters to a user of this field: half a turn about x is what leads from cameras' axes (y down) to those of glTF and
#   viewers (y up), so the same head is stored well or badly by where the turn is made. Flat Gaussians of skin that are tilted
#   leave a rough silhouette. Turn after loading, not before writing, or write version 3 (its smallest-three code has no such
#   place), which spz-js 1.2.5 does not read.
# Versions: spz-js 1.2.5 (npm), Node 20. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund spz-js@1.2.5

cat >turn.mjs <<'EOF'
import { loadSpz, serializeSpz } from 'spz-js';

const count = 10000;
let state = 7;
function uniform() {
    state = (1664525 * state + 1013904223) % 2 ** 32;
    return state / 2 ** 32;
}
const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());

// Quaternions x, y, z, w of turns by some degrees about any axis.
const head = Array.from({ length: count }, () => {
    const turn = [normal(), normal(), normal()].map((value) => 0.15 * value);
    const angle = Math.hypot(...turn);
    return [...turn.map((value) => value * Math.sin(angle / 2) / angle), Math.cos(angle / 2)];
});
const halfTurn = ([x, y, z, w]) => [w, -z, y, -x]; // (1, 0, 0, 0) times the quaternion

async function degreesOff(quaternions) {
    const cloud = {
        numPoints: count, shDegree: 0, antialiased: false, sh: new Float32Array(0),
        positions: new Float32Array(3 * count), scales: new Float32Array(3 * count).fill(-6),
        rotations: new Float32Array(quaternions.flat()), alphas: new Float32Array(count).fill(2),
        colors: new Float32Array(3 * count),
    };
    const { rotations } = await loadSpz(Buffer.from(await serializeSpz(cloud)));
    return quaternions.map((quaternion, row) => {
        const back = rotations.slice(4 * row, 4 * row + 4);
        const cosine = Math.abs(quaternion.reduce((sum, value, axis) => sum + value * back[axis], 0)) / Math.hypot(...back);
        return 2 * Math.acos(Math.min(1, cosine)) * 180 / Math.PI;
    }).sort((a, b) => a - b);
}

const upright = await degreesOff(head);
const turned = await degreesOff(head.map(halfTurn));
const show = (errors) => `median ${errors[count / 2].toFixed(2)}, worst ${errors[count - 1].toFixed(2)} degrees off`;
console.log('near the identity:            ', show(upright));
console.log('after half a turn about x:    ', show(turned));
if (!(upright[count - 1] < 1 && turned[count / 2] > 2 && turned[count - 1] > 9)) {
    console.log('Changed: spz-js no longer stores half turns worse than other orientations.');
    process.exit(1);
}
EOF
node turn.mjs
