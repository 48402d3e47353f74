#!/usr/bin/env bash
# Guess: AnimationUtils.subclip(clip, name, 100, 150, 25) plays what the clip shows from 4 s to 6 s.
# Behaviour: it keeps the keys that lie between the two frames and nothing else. What holds still has no keys there once the clip
#   went through AnimationClip.optimize(), so its whole track is dropped: a head that is turned by 0.5 rad throughout faces
#   forward in the part. And the part begins with its first key, not at frame 100: if the mouth moves 0.4 s later, it moves at
#   once, and the part ends before its time.
# Why it matters to a user of this field: captured or generated face animations are optimised, since most of 52 weights and the pose
#   rest most of the time, and are then cut into sentences. The head snaps to the front, closed eyes open, and lips lead the sound.
#   Cut first and optimise the parts, or insert keys at both ends of every track.
# Versions: three 0.187.0 (npm), Node 20. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund three@0.187.0

cat >cut.mjs <<'EOF'
import { AnimationClip, AnimationMixer, AnimationUtils, NumberKeyframeTrack, Object3D, Quaternion, QuaternionKeyframeTrack,
    Vector3 } from 'three';

// Ten seconds at 25 frames a second: a head that is turned throughout, and a mouth that opens from 4.4 s to 5.4 s.
const turn = new Quaternion().setFromAxisAngle(new Vector3(0, 1, 0), 0.5).toArray();
const times = [], mouth = [], turns = [];
for (let frame = 0; frame <= 250; frame++) {
    const time = frame / 25;
    times.push(time);
    mouth.push(time > 4.4 && time < 5.4 ? Math.sin(Math.PI * (time - 4.4)) : 0);
    turns.push(...turn);
}
const clip = new AnimationClip('talk', -1, [
    new NumberKeyframeTrack('.position[y]', times, mouth),
    new QuaternionKeyframeTrack('.quaternion', times, turns),
]);

function shown(part, time) {
    const head = new Object3D();
    const mixer = new AnimationMixer(head);
    mixer.clipAction(part).play();
    mixer.setTime(time);
    return { yaw: 2 * Math.acos(Math.min(1, head.quaternion.w)), mouth: head.position.y };
}

function describe(name, part, start) {
    const found = [0.2, 0.9].map((time) => shown(part, start + time));
    console.log(`${name.padEnd(26)}: ${part.duration.toFixed(2)} s, ${part.tracks.length} tracks;`,
        found.map(({ yaw, mouth: open }) => `yaw ${yaw.toFixed(2)} mouth ${open.toFixed(2)}`).join(' | '));
    return { duration: part.duration, tracks: part.tracks.length, found };
}

const sparse = clip.clone().optimize();
console.log('0.2 s and 0.9 s after 4 s:');
describe('the clip', clip, 4);
const whole = describe('the clip, optimised', sparse, 4);
const dense = describe('part of the clip', AnimationUtils.subclip(clip, 'part', 100, 150, 25), 0);
const lost = describe('part of the optimised clip', AnimationUtils.subclip(sparse, 'part', 100, 150, 25), 0);
const right = ({ found }) => Math.abs(found[0].yaw - 0.5) < 1e-3 && Math.abs(found[0].mouth) < 1e-3 && found[1].mouth > 0.9;
const early = lost.found[0].mouth > 0.3 && lost.duration < 1.5;
if (!(right(whole) && right(dense) && lost.tracks === 1 && lost.found[0].yaw < 1e-3 && early)) {
    console.error('Changed: a part of an optimised clip shows what the clip shows.');
    process.exit(1);
}
EOF
node cut.mjs
