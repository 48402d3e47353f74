#!/usr/bin/env bash
# Guess: gltfpack makes an animated head smaller and keeps its expression; -noq (no quantization) keeps the weights as they are.
# Behaviour: weights of morph targets are written as bytes from 0 to 1, with every option. A negative weight becomes 0, one above
#   1 becomes 1, and no warning is printed. glTF itself allows any number.
# Why it matters to a user of this field: the expressions of FLAME and of any other principal components are negative half of the
#   time, and exaggerated or corrective ARKit weights leave 0 to 1 too. Half of the motion is gone, and a component that should
#   pull a face both ways pulls it one way. Write each target twice, once reversed, with weights that are not negative.
# Versions: gltfpack 1.3.0, @gltf-transform/core and extensions 4.5.1 (write and read here), Node 20. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund gltfpack@1.3.0 @gltf-transform/core@4.5.1 @gltf-transform/extensions@4.5.1

cat >pack.mjs <<'EOF'
import { Document, NodeIO } from '@gltf-transform/core';
import { KHRMeshQuantization } from '@gltf-transform/extensions';
import { execFileSync } from 'node:child_process';

const frames = 61, rate = 30;
const weights = Float32Array.from({ length: frames }, (_, frame) => 1.5 * Math.sin(frame / 5)); // -1.5 to 1.5

// One triangle, one morph target, and one animation of its weight.
const document = new Document();
const buffer = document.createBuffer();
const accessor = (type, array) => document.createAccessor().setType(type).setArray(array).setBuffer(buffer);
const target = document.createPrimitiveTarget()
    .setAttribute('POSITION', accessor('VEC3', new Float32Array([0, 0, 0.01, 0, 0, 0, 0, 0, 0])));
const primitive = document.createPrimitive()
    .setAttribute('POSITION', accessor('VEC3', new Float32Array([0, 0, 0, 0.1, 0, 0, 0, 0.1, 0])))
    .setIndices(accessor('SCALAR', new Uint16Array([0, 1, 2]))).addTarget(target);
const face = document.createNode('face').setMesh(document.createMesh('face').addPrimitive(primitive).setWeights([0]));
const sampler = document.createAnimationSampler()
    .setInput(accessor('SCALAR', Float32Array.from(weights, (_, frame) => frame / rate)))
    .setOutput(accessor('SCALAR', weights));
document.createAnimation('speech').addSampler(sampler).addChannel(
    document.createAnimationChannel().setTargetNode(face).setTargetPath('weights').setSampler(sampler));
document.createScene().addChild(face);

const io = new NodeIO().registerExtensions([KHRMeshQuantization]);
await io.write('head.glb', document);
async function keys(path) {
    const output = (await io.read(path)).getRoot().listAnimations()[0].listSamplers()[0].getOutput();
    return Array.from({ length: output.getCount() }, (_, key) => output.getElement(key, [])[0]);
}
const range = (values) => `${values.length} keys, ${Math.min(...values).toFixed(2)} to ${Math.max(...values).toFixed(2)}`;
console.log('before:'.padEnd(22), range(await keys('head.glb')));

let clipped = true;
for (const options of [[], ['-noq'], ['-noq', '-af', '0']]) {
    execFileSync('npx', ['gltfpack', '-i', 'head.glb', '-o', 'packed.glb', ...options]);
    const packed = await keys('packed.glb');
    console.log(`gltfpack ${options.join(' ')}`.padEnd(22), range(packed));
    clipped &&= Math.min(...packed) === 0 && Math.max(...packed) === 1;
    if (packed.length === frames) {
        const lost = weights.filter((weight, key) => Math.abs(packed[key] - weight) > 0.01).length;
        console.log(' '.repeat(22), `${lost} of ${frames} keys are off by more than 0.01`);
    }
}
if (!clipped) {
    console.log('Changed: gltfpack keeps weights of morph targets outside of 0 to 1.');
    process.exit(1);
}
EOF
node pack.mjs
