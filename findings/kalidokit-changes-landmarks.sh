#!/usr/bin/env bash
# Guess: Kalidokit's Face.solve() reads face landmarks and returns a pose; the landmarks stay as the tracker gave them.
# Behaviour: with runtime "mediapipe" it multiplies them in place by the picture's size. Solving the same landmarks again multiplies
#   again: a head that leans by 20 degrees leans by 12 the second time and by 7 the third, in a 16:9 picture. Without imageSize it
#   does not multiply, and then takes wide pictures for square ones: the same lean is 33 degrees.
# Why it matters to a user of this field: Kalidokit turns MediaPipe's landmarks into VRM poses. Landmarks that are stored or sent on
#   after it, or solved twice (two avatars, a second smoothing, a paused video), are no longer in 0..1, and a wrong lean still
#   looks like a pose. Pass a copy: landmarks.map((point) => ({ ...point })).
# Versions: kalidokit 1.1.5 (npm), Node 20. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund kalidokit@1.1.5

cat >solve.cjs <<'EOF'
const { Face } = require('./node_modules/kalidokit/dist/kalidokit.umd.js');

// 478 points on an ellipsoid; the head's pose is taken from four of them, at the temples and the jaw.
const head = Array.from({ length: 478 }, (_, index) => {
    const height = 1 - 2 * (index + 0.5) / 478, radius = Math.sqrt(1 - height * height), turn = 2.4 * index;
    return [0.8 * radius * Math.cos(turn), height, 0.5 * radius * Math.sin(turn)];
});
Object.assign(head, { 21: [-0.7, -0.6, 0.2], 251: [0.7, -0.6, 0.2], 397: [0.55, 0.6, 0.2], 172: [-0.55, 0.6, 0.2] });

const width = 1280, height = 720;
function landmarks(degrees) { // of the head leaning by this angle, as MediaPipe gives them: fractions of width and height
    const [cosine, sine] = [Math.cos(degrees * Math.PI / 180), Math.sin(degrees * Math.PI / 180)];
    return head.map(([x, y, z]) => ({
        x: 0.5 + 150 * (cosine * x - sine * y) / width, y: 0.5 + 150 * (sine * x + cosine * y) / height, z: 150 * z / width,
    }));
}
const lean = (points, imageSize) => Math.abs(Face.solve(points, { runtime: 'mediapipe', imageSize }).head.degrees.z);

const points = landmarks(20);
const before = { ...points[21] };
const leans = [1, 2, 3].map(() => lean(points, { width, height }));
const show = ({ x, y }) => `(${x.toPrecision(3)}, ${y.toPrecision(3)})`;
console.log(`a head leaning by 20 degrees, solved three times: ${leans.map((value) => value.toFixed(1)).join(', ')}`);
console.log(`a landmark at ${show(before)} is at ${show(points[21])} afterwards`);
const square = lean(landmarks(20), undefined);
console.log(`without imageSize: ${square.toFixed(1)}`);
if (!(Math.abs(leans[0] - 20) < 0.1 && Math.abs(leans[1] - 20) > 5 && points[21].x > 100 && square > 30)) {
    console.log('Changed: Kalidokit leaves the landmarks that it solves as they are.');
    process.exit(1);
}
EOF
node solve.cjs
