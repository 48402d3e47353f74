#!/usr/bin/env bash
# Guess: three.js plays a BVH file where other readers do: a joint's position channels say where it is in its parent.
# Behaviour: BVHLoader adds the joint's OFFSET to them, which bvhio, bvhsdk and bvhtoolbox do not. Hips at 90 are animated at 180,
#   and a head that has position channels is 120 above them instead of 60. At rest, before the clip plays, all is in place.
# Why it matters to a user of this field: head and body motion for avatars is exchanged as BVH. Files whose root offset is zero look
#   right, others lift the person by the height of the hips, and a neck, jaw or eye with six channels leaves its socket. Set the
#   offsets to zero where a joint has position channels, or subtract them from the clip's position tracks.
# Versions: three 0.187.0 (npm), bvhio 1.5.4, bvhsdk 0.2.1, bvhtoolbox 0.1.3, numpy 1.26.4, Node 20, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check bvhio==1.5.4 bvhsdk==0.2.1 bvhtoolbox==0.1.3 numpy==1.26.4
npm install --silent --no-audit --no-fund three@0.187.0

cat >take.bvh <<'EOF'
HIERARCHY
ROOT Hips
{
  OFFSET 0 90 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Head
  {
    OFFSET 0 60 0
    CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 20 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.04
0 90 0 0 0 0 0 60 0 0 0 0
0 90 0 0 0 0 0 60 0 10 20 0
EOF

venv/bin/python - <<'EOF'
import bvhio
import bvhsdk

hips = bvhio.readAsHierarchy("take.bvh").loadPose(0)
print(f"bvhio:      hips at {hips.PositionWorld.y:.0f}, head at {hips.Children[0].PositionWorld.y:.0f}")
hips, head = bvhsdk.ReadFile("take.bvh").getlistofjoints()
print(f"bvhsdk:     hips at {hips.getPosition(0)[1]:.0f}, head at {head.getPosition(0)[1]:.0f}")
EOF
venv/bin/bvh2csv -p take.bvh >/dev/null || true  # it exits 1 when all is well
sed -n 2p take_pos.csv | awk -F, '{ printf "bvhtoolbox: hips at %d, head at %d\n", $3, $6 }'

cat >play.mjs <<'EOF'
import { readFileSync } from 'node:fs';
import { AnimationMixer, Vector3 } from 'three';
import { BVHLoader } from 'three/addons/loaders/BVHLoader.js';

const { skeleton, clip } = new BVHLoader().parse(readFileSync('take.bvh', 'utf8'));
const [hips, head] = skeleton.bones;
const heights = () => [hips, head].map((bone) => {
    hips.updateMatrixWorld(true);
    return bone.getWorldPosition(new Vector3()).y;
});
const rest = heights();
const mixer = new AnimationMixer(hips);
mixer.clipAction(clip).play();
mixer.setTime(0);
const played = heights();
console.log(`three.js:   hips at ${played[0]}, head at ${played[1]}; before the clip plays ${rest[0]} and ${rest[1]}`);
if (!(rest[0] === 90 && rest[1] === 150 && played[0] === 180 && played[1] === 300)) {
    console.log('Changed: BVHLoader of three.js takes position channels without adding the offset.');
    process.exit(1);
}
EOF
node play.mjs
