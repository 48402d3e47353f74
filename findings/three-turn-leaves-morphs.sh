#!/usr/bin/env bash
# Guess: rotateX(), scale() and applyMatrix4() of a three.js BufferGeometry convert a head to other axes and units with
#   everything in it: positions, normals, and the morph targets of its expressions.
# Behaviour: positions and normals are converted, morph targets are left as they were, without a warning. After a turn
#   from z up to y up, jawOpen moves the chin along z, into the neck, instead of down; after a change from metres to
#   millimetres it moves the chin by 0.02 mm instead of 20 mm. The neutral face is right in both cases.
# Why it matters to a user of this field: heads come from trackers, FLAME and Blender in other axes and units, and
#   baking the change into the geometry is a usual step before export. The result looks like a weak or broken prior.
#   Turn or scale the Mesh or a parent instead, or apply the matrix without its translation to each relative target.
# Versions: three 0.187.0 (npm), Node 20. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund three@0.187.0

cat >turn.mjs <<'EOF'
import { BufferGeometry, Float32BufferAttribute, Mesh, MeshBasicMaterial, Vector3 } from 'three';

// A chin in metres with z up, facing -y: its tip is vertex 0. jawOpen moves it down by 20 mm.
function head() {
    const geometry = new BufferGeometry();
    const at = [0, -0.1, -0.05, 0.02, -0.08, -0.04, -0.02, -0.08, -0.04];
    geometry.setAttribute('position', new Float32BufferAttribute(at, 3));
    geometry.setAttribute('normal', new Float32BufferAttribute([0, -1, 0, 0, -1, 0, 0, -1, 0], 3));
    geometry.morphAttributes.position = [new Float32BufferAttribute([0, 0, -0.02, 0, 0, 0, 0, 0, 0], 3)];
    geometry.morphTargetsRelative = true;
    return geometry;
}

// Where three.js itself puts the tip of the chin with jawOpen at 0 and at 1.
function tip(geometry) {
    const mesh = new Mesh(geometry, new MeshBasicMaterial());
    return [0, 1].map((weight) => {
        mesh.morphTargetInfluences[0] = weight;
        return mesh.getVertexPosition(0, new Vector3());
    });
}

function show(name, geometry) {
    const [closed, open] = tip(geometry);
    const text = (vector) => vector.toArray().map((value) => value.toFixed(5)).join(', ');
    const move = open.clone().sub(closed);
    console.log(`${name}: the neutral chin lies at (${text(closed)}), jawOpen moves it by (${text(move)})`);
    return { closed, move };
}

const given = show('as it is, z up, metres', head());
const turned = show('rotateX(-90 degrees), y up', head().rotateX(-Math.PI / 2));
const scaled = show('scale(1000), millimetres', head().scale(1000, 1000, 1000));
const near = (vector, x, y, z) => vector.distanceTo(new Vector3(x, y, z)) < 1e-4;
const neutralRight = near(turned.closed, 0, -0.05, 0.1) && near(scaled.closed, 0, -100, -50);
const unmoved = [given, turned, scaled].every(({ move }) => near(move, 0, 0, -0.02));
if (!(neutralRight && unmoved)) {
    console.error('Changed: three.js converts morph targets with the geometry.');
    process.exit(1);
}
EOF
node turn.mjs
