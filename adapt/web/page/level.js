// Quiet speech raised to the level of the avatar's clip, for the lips alone: the numbers of adapt/talk/level.py.

import { FRAME } from "./logmel.js";

const SILENCE = 1e-7, BELOW = 0.1, QUIETER = 10;          // mean square, share of the mean, dB

// Level of speech, dB of full scale; null if all of it is silence.
export function speechLevel(samples) {
  const powers = [];
  for (let at = 0; at + FRAME <= samples.length; at += FRAME) {
    let sum = 0;
    for (let i = at; i < at + FRAME; i++) sum += samples[i] * samples[i];
    if (sum / FRAME > SILENCE) powers.push(sum / FRAME);
  }
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  if (!powers.length) return null;
  const gate = BELOW * mean(powers);
  return 10 * Math.log10(mean(powers.filter((power) => power > gate)));
}

// What the lips follow: the samples, or a louder copy if they are far quieter than the clip.
export function forLips(samples, clip) {
  const level = speechLevel(samples);
  if (level === null || !(level <= clip - QUIETER)) return samples;
  const gain = 10 ** ((clip - level) / 20);
  return samples.map((value) => gain * value);
}
