// Quiet speech raised to the level of the avatar's clip, for the lips alone, as adapt/talk/level.py does it. Its numbers:
// {clip, silence, below, quieter}.

import { FRAME } from "./logmel.js";

// Level of speech, dB of full scale; null if all of it is silence.
export function speechLevel(samples, { silence, below }) {
  const powers = [];
  for (let at = 0; at + FRAME <= samples.length; at += FRAME) {
    let sum = 0;
    for (let i = at; i < at + FRAME; i++) sum += samples[i] * samples[i];
    if (sum / FRAME > silence) powers.push(sum / FRAME);
  }
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  if (!powers.length) return null;
  const gate = below * mean(powers);
  return 10 * Math.log10(mean(powers.filter((power) => power > gate)));
}

// What the lips follow: the samples, or a louder copy if they are far quieter than the clip.
export function forLips(samples, numbers) {
  const level = speechLevel(samples, numbers);
  if (level === null || !(level <= numbers.clip - numbers.quieter)) return samples;
  const gain = 10 ** ((numbers.clip - level) / 20);
  return samples.map((value) => gain * value);
}
