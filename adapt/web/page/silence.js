// Which frames hold speech, and a face at rest where none do: the numbers of adapt/talk/silence.py.

import { FRAME, RATE } from "./logmel.js";

const INAUDIBLE = -65, FLOOR_FRAMES = 75, HIGHEST_FLOOR = -40;         // dB, frames, dB
const VOICED_ABOVE = 6, UNVOICED_ABOVE = 20, PERIODIC = 0.45, PITCH = [70, 400];
const PAUSE_FRAMES = 8, CLOSING = 1 / 5, OPENING = 1 / 2;

export class SpeechActivity {
  constructor() {
    this.before = new Float32Array(FRAME);
    this.levels = new Array(FLOOR_FRAMES).fill(HIGHEST_FLOOR);
  }

  // Whether a frame [640] holds speech; frames come in order.
  frame(samples) {
    let energy = 0;
    for (const value of samples) energy += value * value;
    const level = 10 * Math.log10(energy / samples.length + 1e-10);
    const window = new Float64Array(2 * FRAME);
    window.set(this.before);
    window.set(samples, FRAME);
    this.before = samples.slice();
    this.levels.shift();
    this.levels.push(level);
    const above = level - Math.min(...this.levels, HIGHEST_FLOOR);
    if (level < INAUDIBLE || above < VOICED_ABOVE) return false;
    return above > UNVOICED_ABOVE || periodicity(window) > PERIODIC;
  }
}

// Largest normalised autocorrelation at the lags of a voice's pitch; a lag leaves fewer samples to correlate.
export function periodicity(window) {
  const count = window.length, mean = window.reduce((a, b) => a + b, 0) / count;
  for (let i = 0; i < count; i++) window[i] -= mean;
  let power = 0, best = -Infinity;
  for (let i = 0; i < count; i++) power += window[i] * window[i];
  const first = Math.floor(RATE / PITCH[1]), end = Math.floor(RATE / PITCH[0]);
  for (let lag = first; lag < end; lag++) {
    let sum = 0;
    for (let i = 0; i + lag < count; i++) sum += window[i] * window[i + lag];
    best = Math.max(best, sum * count / (count - lag));
  }
  return best / Math.max(power, 1e-9);
}

// Carries expressions to the resting face through pauses, and back before speech.
export class Resting {
  constructor(rest) {
    this.rest = rest;
    this.share = 1;
    this.silent = PAUSE_FRAMES;
  }

  frame(expression, active) {
    this.silent = active ? 0 : this.silent + 1;
    const step = this.silent >= PAUSE_FRAMES ? CLOSING : -OPENING;
    this.share = Math.min(1, Math.max(0, this.share + step));
    return expression.map((value, k) => value + this.share * (this.rest[k] - value));
  }
}
