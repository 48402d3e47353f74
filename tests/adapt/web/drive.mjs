// Runs the modules of an exported page in node: node drive.mjs FOLDER SOUND.wav OUT.json
// A list of numbers is written for everything that tests compare.

import fs from "node:fs";

const [folder, sound, out] = process.argv.slice(2);
globalThis.self = globalThis;
new Function(fs.readFileSync(`${folder}/avatar.js`, "utf8"))();
const load = (name) => import(`${folder}/${name}`);
const { openAvatar } = await load("open.js"), { Head } = await load("head.js"), { Motion } = await load("motion.js");
const { Driver } = await load("speech.js"), { wav } = await load("sound.js"), { LogMelStream } = await load("logmel.js");
const { Projector, STRIDE } = await load("projection.js");

const bytes = fs.readFileSync(sound), samples = wav(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
const avatar = await openAvatar(self.HEADSTART_AVATAR), rows = new LogMelStream();
const logmel = [...rows.push(samples.subarray(0, 5000)), ...rows.push(samples.subarray(5000)), ...rows.finish()];

const driver = new Driver(avatar, { features: () => new LogMelStream() });
async function said(live) {
  const speech = driver.speech(live);
  for (let at = 0; at < samples.length; at += 7000) await speech.feed(samples.subarray(at, at + 7000));
  await speech.finish();
  return speech;
}
const { forLips, speechLevel } = await load("level.js"), faint = samples.map((value) => value / 20);
const numbers = avatar.driver.level, levelOf = (sound) => speechLevel(sound, numbers);
const level = { own: levelOf(samples), clip: numbers.clip, faint: levelOf(faint), raised: levelOf(forLips(faint, numbers)),
  kept: forLips(samples, numbers) === samples, silence: levelOf(new Float32Array(16000)) };
const speech = await said(false), quick = await said(true);
const motion = new Motion(avatar), head = new Head(avatar), projector = new Projector(head.count);
motion.speech = speech;

const frames = [];
for (let number = 0; number < speech.end; number += 13) {
  const { row, vector } = motion.at(number);
  head.set(row, vector);
  const seen = projector.project(head, avatar.intrinsics, avatar.size, avatar.size);
  frames.push({ number, vector: [...vector], centres: [...head.centres], colors: [...head.colors], rotation: head.rotation,
    translation: head.translation, seen, ellipses: [...projector.sorted.subarray(0, STRIDE * seen)] });
}
motion.poses.mode = "generated";
const sway = [0, 40, 333].map((number) => ({ ...motion.poses.at(number), number }));
const blinks = Array.from({ length: 1000 }, (_, number) => motion.blinks.at(number));
const list = (values) => values.map((value) => [...value]);
const expressions = (each) => list(each.frames.map((frame) => frame.expression));
fs.writeFileSync(out, JSON.stringify({ logmel: list(logmel), expression: expressions(speech), quick: expressions(quick), level, frames, sway, blinks }));
