#!/usr/bin/env bash
# Guess: a Gaussian splat shown by Spark stands where its float32 position says, to a small part of a millimetre.
# Behaviour: Spark's default storage, PackedSplats, keeps centres as float16. Its steps grow with the distance from the
#   origin of the mesh: 0.06 mm at 0.1 m, 1 mm at 1.7 m, 8 mm at 10 m. Gaussians of one face that lie between two steps
#   collapse onto the same plane. The position of the mesh itself is float32.
# Why it matters to a user of this field: a head in room or world coordinates (standing height, a capture stage in
#   centimetres or COLMAP units) shows stripes and flattened lips in this viewer alone. Move the head to the origin of
#   its file, and the mesh, not the Gaussians, to its place in the room; or ask for `extSplats`.
# Versions: @sparkjsdev/spark 2.2.0, three 0.180.0 (npm), Node 20. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund @sparkjsdev/spark@2.2.0 three@0.180.0 >/dev/null

cat >measure.mjs <<'EOF'
globalThis.self = globalThis; // what the module expects of a browser while it is loaded
const THREE = await import("three");
const { SplatMesh } = await import("@sparkjsdev/spark");

const COUNT = 200, SPACING = 0.0002; // metres: a row of Gaussians upwards, 0.2 mm apart, 40 mm long
async function heights(floor) {
  const mesh = new SplatMesh({
    constructSplats: (splats) => {
      for (let i = 0; i < COUNT; i++)
        splats.pushSplat(new THREE.Vector3(0, floor + i * SPACING, 0), new THREE.Vector3(2e-4, 2e-4, 2e-4),
          new THREE.Quaternion(), 0.9, new THREE.Color(1, 1, 1));
    },
  });
  await mesh.initialized;
  const found = [];
  mesh.packedSplats.forEachSplat((index, centre) => found.push(centre.y));
  return found;
}

const seen = {};
for (const floor of [0, 1.7, 10]) {
  const found = await heights(floor);
  const worst = Math.max(...found.map((y, i) => Math.abs(y - floor - i * SPACING)));
  seen[floor] = { worst, planes: new Set(found).size, count: found.length };
  console.log(`${COUNT} Gaussians from ${floor} m upwards: ${seen[floor].planes} different heights, worst ${(1000 * worst).toFixed(3)} mm off`);
}
const near = seen[0], standing = seen[1.7], far = seen[10];
if (!(near.worst < 5e-5 && near.planes === COUNT && standing.worst > 4e-4 && standing.planes < COUNT / 4 && far.planes < 10)) {
  console.log("Changed: Spark keeps centres of Gaussians more exactly than as float16.");
  process.exit(1);
}
process.exit(0);
EOF
node measure.mjs
