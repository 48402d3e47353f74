#!/usr/bin/env bash
# Guess: mergeVertices() of three.js merges vertices that are the same: equal in every attribute, and in every morph
#   target too, since it carries the morph targets over into its result.
# Behaviour: it compares the attributes alone. Two vertices that coincide in the neutral face become one, which moves
#   as the first of them does; what the second one does in a morph target is dropped without a warning. The
#   default tolerance of 1e-4 can merge lips that are less than a tenth of a millimetre apart, in metres. weld() of
#   gltf-transform keeps such vertices apart.
# Why it matters to a user of this field: lips that touch in the neutral face are sewn together, and jawOpen no longer
#   opens the mouth. Meshes without normals and texture coordinates (tracked landmarks, scans, normals deleted so that
#   the merge finds more) are hit. Weld with gltf-transform, or before the morph targets are made.
# Versions: three 0.187.0, @gltf-transform/core and @gltf-transform/functions 4.5.1 (npm), Node 20. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund three@0.187.0 @gltf-transform/core@4.5.1 @gltf-transform/functions@4.5.1

cat >merge.mjs <<'EOF'
import { BufferGeometry, Float32BufferAttribute } from 'three';
import { mergeVertices } from 'three/examples/jsm/utils/BufferGeometryUtils.js';
import { Document } from '@gltf-transform/core';
import { weld } from '@gltf-transform/functions';

// Two strips of 5 cm in metres, 10 quads each: vertices 0..10 are the edge of the upper lip, 22..32 that of the lower.
const COLUMNS = 11, OPENING = 0.02;
const positions = [], index = [], jawOpen = [];
for (const [side, opening] of [[1, 0], [-1, -OPENING]]) {
    const first = positions.length / 3;
    for (const height of [0, 0.01 * side]) {
        for (let column = 0; column < COLUMNS; column += 1) {
            positions.push(0.005 * column, height, 0);
            jawOpen.push(0, opening, 0);
        }
    }
    for (let column = 0; column < COLUMNS - 1; column += 1) {
        const corner = first + column;
        index.push(corner, corner + 1, corner + COLUMNS, corner + 1, corner + COLUMNS + 1, corner + COLUMNS);
    }
}

// How far the mouth opens: between the edge of the upper lip and that of the lower one, in its middle, at weight 1.
function opening(corners, at, delta) {
    const middle = (COLUMNS - 1) / 2;
    const height = (triangle) => at[3 * corners[triangle] + 1] + delta[3 * corners[triangle] + 1];
    return height(6 * middle) - height(6 * (COLUMNS - 1 + middle));
}

function byThree(apart) {
    const geometry = new BufferGeometry();
    const moved = positions.map((value, i) => (i % 3 === 1 && i >= 66 ? value - apart : value));
    geometry.setAttribute('position', new Float32BufferAttribute(moved, 3));
    geometry.setIndex(index);
    geometry.morphAttributes.position = [new Float32BufferAttribute(jawOpen, 3)];
    geometry.morphTargetsRelative = true;
    const merged = mergeVertices(geometry);
    const delta = merged.morphAttributes.position[0].array;
    const open = opening(merged.index.array, merged.attributes.position.array, delta);
    console.log(`three.js, lips ${1000 * apart} mm apart: ${geometry.attributes.position.count} vertices, merged `
        + `${merged.attributes.position.count}, the mouth opens by ${(1000 * open).toFixed(2)} mm`);
    return open;
}

async function byGltfTransform() {
    const document = new Document();
    const buffer = document.createBuffer();
    const accessor = (type, array) => document.createAccessor().setType(type).setArray(array).setBuffer(buffer);
    const target = document.createPrimitiveTarget('jawOpen')
        .setAttribute('POSITION', accessor('VEC3', new Float32Array(jawOpen)));
    const primitive = document.createPrimitive().setIndices(accessor('SCALAR', new Uint16Array(index)))
        .setAttribute('POSITION', accessor('VEC3', new Float32Array(positions))).addTarget(target);
    document.createScene().addChild(document.createNode().setMesh(document.createMesh().addPrimitive(primitive)));
    await document.transform(weld());
    const at = primitive.getAttribute('POSITION').getArray();
    const delta = primitive.listTargets()[0].getAttribute('POSITION').getArray();
    const open = opening(primitive.getIndices().getArray(), at, delta);
    console.log(`gltf-transform: welded ${at.length / 3}, the mouth opens by ${(1000 * open).toFixed(2)} mm`);
    return open;
}

const touching = byThree(0);
const near = byThree(0.00004);
const apart = byThree(0.001);
const welded = await byGltfTransform();
if (!(touching < 1e-6 && near < 1e-6 && apart > OPENING && welded > OPENING - 1e-6)) {
    console.error('Changed: mergeVertices looks at morph targets, or gltf-transform no longer does.');
    process.exit(1);
}
EOF
node merge.mjs
