#!/usr/bin/env bash
# Guess: gltf-transform with ALL_EXTENSIONS registered copies a GLB of Gaussians without loss, or refuses it.
# Behaviour: it does not know KHR_gaussian_splatting. It prints "Missing optional extension", keeps every attribute
#   named KHR_gaussian_splatting:..., and writes a file without the extension: the same vertex data, but by the rules of
#   glTF a cloud of plain points.
# Why it matters to a user of this field: gltf-transform stands in many asset pipelines (pruning, merging,
#   compressing). The head leaves it as dots. Put the extension's object back into the primitive, and its name into
#   extensionsUsed.
# Versions: @gltf-transform/core and @gltf-transform/extensions 4.5.1 (npm), Node 20. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund @gltf-transform/core@4.5.1 @gltf-transform/extensions@4.5.1

cat >copy.mjs <<'EOF'
import { readFileSync, writeFileSync } from 'node:fs';
import { NodeIO } from '@gltf-transform/core';
import { ALL_EXTENSIONS } from '@gltf-transform/extensions';

const NAME = 'KHR_gaussian_splatting';
// Two Gaussians: position, rotation (xyzw), linear scale, opacity, and the constant colour term.
const fields = [
    ['POSITION', 'VEC3', [0, 0, 0, 1, 0, 0]],
    [`${NAME}:ROTATION`, 'VEC4', [0, 0, 0, 1, 0, 0, 0, 1]],
    [`${NAME}:SCALE`, 'VEC3', [0.1, 0.1, 0.1, 0.2, 0.2, 0.2]],
    [`${NAME}:OPACITY`, 'SCALAR', [0.9, 0.5]],
    [`${NAME}:SH_DEGREE_0_COEF_0`, 'VEC3', [1, 0, 0, 0, 1, 0]],
];

function gaussians() {
    const binary = Buffer.from(new Float32Array(fields.flatMap(([, , values]) => values)).buffer);
    let offset = 0;
    const bufferViews = fields.map(([, , values]) => {
        const view = { buffer: 0, byteOffset: offset, byteLength: 4 * values.length };
        offset += view.byteLength;
        return view;
    });
    const accessors = fields.map(([, type], index) => ({ bufferView: index, componentType: 5126, count: 2, type }));
    accessors[0].min = [0, 0, 0];
    accessors[0].max = [1, 0, 0];
    const attributes = Object.fromEntries(fields.map(([name], index) => [name, index]));
    const extension = { kernel: 'ellipse', colorSpace: 'srgb_rec709_display' };
    const document = {
        asset: { version: '2.0' }, extensionsUsed: [NAME], scene: 0, scenes: [{ nodes: [0] }], nodes: [{ mesh: 0 }],
        meshes: [{ primitives: [{ attributes, mode: 0, extensions: { [NAME]: extension } }] }],
        buffers: [{ byteLength: binary.length }], bufferViews, accessors,
    };
    let text = JSON.stringify(document);
    text += ' '.repeat((4 - (text.length % 4)) % 4);
    const head = (...numbers) => Buffer.from(new Uint32Array(numbers).buffer);
    const total = 12 + 8 + text.length + 8 + binary.length;
    return Buffer.concat([head(0x46546c67, 2, total), head(text.length, 0x4e4f534a), Buffer.from(text),
        head(binary.length, 0x004e4942), binary]);
}

function describe(path) {
    const data = readFileSync(path);
    const document = JSON.parse(data.subarray(20, 20 + data.readUInt32LE(12)).toString());
    const primitive = document.meshes[0].primitives[0];
    const used = document.extensionsUsed ?? [];
    console.log(`${path}: extensionsUsed [${used}], in the primitive [${Object.keys(primitive.extensions ?? {})}]`);
    console.log(`  attributes ${Object.keys(primitive.attributes).join(' ')}`);
    return { known: used.includes(NAME) && NAME in (primitive.extensions ?? {}), attributes: primitive.attributes };
}

writeFileSync('head.glb', gaussians());
const io = new NodeIO().registerExtensions(ALL_EXTENSIONS);
await io.write('copy.glb', await io.read('head.glb'));
const before = describe('head.glb');
const after = describe('copy.glb');
const attributesKept = fields.every(([name]) => name in after.attributes);
if (!(before.known && !after.known && attributesKept)) {
    console.error('Changed: gltf-transform keeps KHR_gaussian_splatting, or drops its attributes too.');
    process.exit(1);
}
EOF
node copy.mjs
