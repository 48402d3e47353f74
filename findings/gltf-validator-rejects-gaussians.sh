#!/usr/bin/env bash
# Guess: Khronos' own validator passes a glTF with Khronos' ratified KHR_gaussian_splatting, or says that it does not know the
#   extension and leaves what belongs to it alone.
# Behaviour: it says so (UNSUPPORTED_EXTENSION, an information), and then counts an error for each attribute that the extension
#   defines: "Invalid attribute name", because KHR_gaussian_splatting:ROTATION is neither of the core nor begins with an
#   underscore. A file as the extension wants it has four errors at least; the same file with underscores, which no viewer
#   takes for Gaussians, has none.
# Why it matters to a user of this field: asset pipelines and shops refuse files whose numErrors is not 0. Ignore
#   MESH_PRIMITIVE_INVALID_ATTRIBUTE for these names (option ignoredIssues hides all of that code), rather than rename them.
# Versions: gltf-validator 2.0.0-dev.3.10 (npm, the newest), Node 20. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund gltf-validator@2.0.0-dev.3.10

cat >check.cjs <<'EOF'
const { validateString } = require('gltf-validator');

const NAME = 'KHR_gaussian_splatting';
const FIELDS = [
    ['ROTATION', 'VEC4', [0, 0, 0, 1]], ['SCALE', 'VEC3', [0.1, 0.1, 0.1]], ['OPACITY', 'SCALAR', [0.9]],
    ['SH_DEGREE_0_COEF_0', 'VEC3', [1, 0, 0]],
];

/** One Gaussian; `named` gives the attribute's name for a field of the extension. */
function document(named) {
    const fields = [['POSITION', 'VEC3', [0, 0, 0]], ...FIELDS.map(([name, ...rest]) => [named(name), ...rest])];
    const binary = Buffer.from(new Float32Array(fields.flatMap(([, , values]) => values)).buffer);
    let byteOffset = 0;
    const bufferViews = fields.map(([, , values]) => {
        const view = { buffer: 0, byteOffset, byteLength: 4 * values.length, target: 34962 };
        byteOffset += view.byteLength;
        return view;
    });
    const accessors = fields.map(([, type], bufferView) => ({ bufferView, componentType: 5126, count: 1, type }));
    Object.assign(accessors[0], { min: [0, 0, 0], max: [0, 0, 0] });
    const attributes = Object.fromEntries(fields.map(([name], index) => [name, index]));
    const extension = {
        kernel: 'ellipse', colorSpace: 'srgb_rec709_display', projection: 'perspective', sortingMethod: 'cameraDistance',
    };
    const uri = `data:application/octet-stream;base64,${binary.toString('base64')}`;
    return JSON.stringify({
        asset: { version: '2.0' }, extensionsUsed: [NAME], scene: 0, scenes: [{ nodes: [0] }], nodes: [{ mesh: 0 }],
        meshes: [{ primitives: [{ attributes, mode: 0, extensions: { [NAME]: extension } }] }],
        buffers: [{ uri, byteLength: binary.length }], bufferViews, accessors,
    });
}

async function errors(label, named) {
    const { issues } = await validateString(document(named));
    console.log(`${label}: ${issues.numErrors} errors`);
    for (const { code, severity, pointer } of issues.messages) console.log(`  ${severity} ${code} ${pointer}`);
    return issues;
}

(async () => {
    const ratified = await errors('names of the extension', (name) => `${NAME}:${name}`);
    const renamed = await errors('with underscores', (name) => `_${name}`);
    const invalid = ratified.messages.filter(({ code }) => code === 'MESH_PRIMITIVE_INVALID_ATTRIBUTE');
    if (ratified.numErrors !== 4 || invalid.length !== 4 || renamed.numErrors !== 0) {
        console.log('Changed: gltf-validator no longer counts attributes of KHR_gaussian_splatting as errors.');
        process.exit(1);
    }
})();
EOF
node check.cjs
