#!/usr/bin/env bash
# Guess: simplify() of glTF-Transform keeps a mesh within `error` of its shape, blendshapes included.
# Behaviour: only the neutral shape is looked at. Vertices go where the neutral face is smooth, whatever its morph targets do
#   there: with error 0.001 (0.2 mm on this face) a pucker of 5 mm on a cheek is wrong by more than 3 mm, and with the
#   default, error 0.0001, on a flat patch it disappears. gltfpack -si, by the same author as the simplifier, keeps
#   such vertices.
# Why it matters to a user of this field: `gltf-transform optimize` simplifies by default, and a head with ARKit shapes for the web
#   goes through it. It looks right at rest, and its lips, lids and cheeks move less, or with dents. Pass --simplify false, or
#   use gltfpack.
# Versions: @gltf-transform/functions 4.5.1, meshoptimizer 1.3.0, Node 20. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund @gltf-transform/core@4.5.1 @gltf-transform/functions@4.5.1 meshoptimizer@1.3.0

cat >simplify.mjs <<'EOF'
import { Document } from "@gltf-transform/core";
import { simplify, weld } from "@gltf-transform/functions";
import { MeshoptSimplifier } from "meshoptimizer";

const SIDE = 101, WIDTH = 0.2; // vertices along an edge; m
await MeshoptSimplifier.ready;

/** A patch of a sphere of this radius (m; 0: flat), with a bump of 5 mm and 10 mm radius as its morph target. */
function face(radius) {
  const document = new Document(), buffer = document.createBuffer(), rest = [], pucker = [], index = [];
  for (let j = 0; j < SIDE; j++)
    for (let i = 0; i < SIDE; i++) {
      const x = (i / (SIDE - 1) - 0.5) * WIDTH, y = (j / (SIDE - 1) - 0.5) * WIDTH, r = Math.hypot(x, y) / 0.01;
      rest.push(x, y, radius ? Math.sqrt(radius ** 2 - x * x - y * y) - radius : 0);
      pucker.push(0, 0, r < 1 ? 0.005 * (0.5 + 0.5 * Math.cos(Math.PI * r)) : 0);
    }
  for (let j = 0; j < SIDE - 1; j++)
    for (let i = 0; i < SIDE - 1; i++) {
      const a = j * SIDE + i;
      index.push(a, a + 1, a + SIDE, a + 1, a + SIDE + 1, a + SIDE);
    }
  const accessor = (type, array) => document.createAccessor().setType(type).setArray(array).setBuffer(buffer);
  const target = document.createPrimitiveTarget("pucker").setAttribute("POSITION", accessor("VEC3", new Float32Array(pucker)));
  const primitive = document.createPrimitive().addTarget(target)
    .setAttribute("POSITION", accessor("VEC3", new Float32Array(rest)))
    .setIndices(accessor("SCALAR", new Uint16Array(index)));
  const mesh = document.createMesh().addPrimitive(primitive).setWeights([0]);
  document.createScene().addChild(document.createNode().setMesh(mesh));
  return { document, primitive, rest, pucker };
}

/** Vertices left, and the largest error of the morph target's depth at the vertices of before, mm. */
async function simplified(radius, options) {
  const { document, primitive, rest, pucker } = face(radius);
  await document.transform(weld(), simplify({ simplifier: MeshoptSimplifier, ...options }));
  const points = primitive.getAttribute("POSITION"), depth = primitive.listTargets()[0].getAttribute("POSITION");
  const triangles = primitive.getIndices().getArray();
  let worst = 0;
  for (let v = 0; v < SIDE * SIDE; v++) {
    const [x, y] = [rest[3 * v], rest[3 * v + 1]];
    if (Math.hypot(x, y) > 0.012) continue;
    for (let t = 0; t < triangles.length; t += 3) {
      const [i, j, k] = triangles.slice(t, t + 3), [a, b, c] = [i, j, k].map((n) => points.getElement(n, []));
      const area = (b[1] - c[1]) * (a[0] - c[0]) + (c[0] - b[0]) * (a[1] - c[1]);
      const u = ((b[1] - c[1]) * (x - c[0]) + (c[0] - b[0]) * (y - c[1])) / area;
      const w = ((c[1] - a[1]) * (x - c[0]) + (a[0] - c[0]) * (y - c[1])) / area;
      if (u < -1e-6 || w < -1e-6 || u + w > 1 + 1e-6) continue;
      const [p, q, r] = [i, j, k].map((n) => depth.getElement(n, [])[2]);
      worst = Math.max(worst, Math.abs(u * p + w * q + (1 - u - w) * r - pucker[3 * v + 2]));
      break;
    }
  }
  return [points.getCount(), 1000 * worst];
}

const [round, roundError] = await simplified(0.15, { error: 0.001 });
const [flat, flatError] = await simplified(0, {});
console.log(`curved, error 0.001: ${SIDE * SIDE} -> ${round} vertices, a pucker of 5 mm is wrong by up to ${roundError.toFixed(1)} mm`);
console.log(`flat, defaults     : ${SIDE * SIDE} -> ${flat} vertices, a pucker of 5 mm is wrong by up to ${flatError.toFixed(1)} mm`);
if (!(roundError > 2 && flatError > 4.5)) {
  console.error("Changed: simplify() respects morph targets.");
  process.exit(1);
}
EOF
node simplify.mjs
