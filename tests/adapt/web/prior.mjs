// The streams of a prior and of Whisper's rows around a network that is replaced by arithmetic: node prior.mjs FOLDER IN.json OUT.json

import fs from "node:fs";

const [folder, given, out] = process.argv.slice(2);
globalThis.self = globalThis;
const { Prior } = await import(`${folder}/prior.js`), { logMel, WhisperStream } = await import(`${folder}/whisper.js`);
const { Ridge } = await import(`${folder}/drivers.js`);
const { rows, exported, calibration, ridge, past, sound, filters, columns, dims, pieces } = JSON.parse(fs.readFileSync(given, "utf8"));

// Rows minus the mean over the spread, and a trace of how long the window is.
const run = async ({ features: [values, [, count, size]], statistics: [statistics] }) => {
  const flat = new Float32Array(count * dims);
  for (let t = 0; t < count; t++) for (let d = 0; d < dims; d++) {
    flat[t * dims + d] = (values[t * size + d] - statistics[d]) / statistics[size + d] + count / 1000;
  }
  return flat;
};
const prior = new Prior(exported, { calibration: Float32Array.from(calibration) }, run);
const arrays = Object.fromEntries(Object.entries(ridge).map(([name, values]) => [`ridge.${name}`, Float32Array.from(values)]));
const typed = rows.map((row) => Float32Array.from(row));

async function streamed(regression) {
  const stream = prior.stream(regression), parts = [];
  for (let at = 0, i = 0; at < typed.length; at += pieces[i++ % pieces.length]) {
    parts.push(...await stream.push(typed.slice(at, at + pieces[i % pieces.length])));
  }
  return [...parts, ...await stream.finish()].map((frame) => [...frame.expression]);
}

const bank = Float32Array.from(filters), samples = Float32Array.from(sound);
// "Rows" that name their window and place, for a grid of three frames with one on either side.
let windows = 0;
const grid = new WhisperStream({ block: 3, context: 1, columns: 12, size: 2 }, bank, async () => {
  windows += 1;
  return Float32Array.from({ length: 10 }, (_, i) => (i % 2 ? i >> 1 : windows));
});
const placed = [];
for (let at = 0; at < 640 * 10; at += 900) placed.push(...await grid.push(samples.subarray(at, Math.min(640 * 10, at + 900))));
placed.push(...await grid.finish());
fs.writeFileSync(out, JSON.stringify({
  alone: await streamed(null),
  averaged: await streamed(new Ridge(arrays, "ridge.", past)),
  mel: [...logMel(samples, bank, columns)],
  placed: placed.map((row) => [...row]),
}));
