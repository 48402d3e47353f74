// Sound to rows of Whisper's encoder, in windows on a grid that begins with the stream: shards/features/whisper.py and speech.py.

import { FRAME, joined } from "./logmel.js";

const WINDOW = 400, HOP = 160, BINS = WINDOW / 2 + 1, BEFORE = HOP + WINDOW / 2, QUIET = 1e-10, RANGE = 8;
const hann = Float32Array.from({ length: WINDOW }, (_, i) => 0.5 - 0.5 * Math.cos(2 * Math.PI * i / WINDOW));
const cosine = Float64Array.from({ length: WINDOW }, (_, i) => Math.cos(2 * Math.PI * i / WINDOW));
const sine = Float64Array.from({ length: WINDOW }, (_, i) => Math.sin(2 * Math.PI * i / WINDOW));

export class WhisperStream {
  // encode({mel}) gives rows [frames, size] of a window.
  constructor({ block, context, columns, size }, filters, encode) {
    Object.assign(this, { block, context, columns, size, filters, encode, held: new Float32Array(0), lead: 0 });
  }

  push(sound) {
    this.held = joined(this.held, sound);
    return this.emit(this.block + this.context);
  }

  finish() { return this.emit(1); }

  // Blocks while `needed` frames lie behind the context.
  async emit(needed) {
    const rows = [];
    for (;;) {
      const ahead = Math.floor(this.held.length / FRAME) - this.lead;
      if (ahead < needed) return rows;
      const block = Math.min(this.block, ahead), seen = this.lead + Math.min(this.block + this.context, ahead);
      const mel = logMel(this.held.subarray(0, seen * FRAME), this.filters, this.columns);
      const flat = await this.encode({ mel: [mel, [1, mel.length / this.columns, this.columns]] });
      for (let t = this.lead; t < this.lead + block; t++) rows.push(flat.slice(t * this.size, (t + 1) * this.size));
      const used = Math.max(0, this.lead + block - this.context);
      this.held = this.held.slice(used * FRAME);
      this.lead += block - used;
    }
  }
}

// Whisper's spectrogram [bands, columns] of a window, silence before and behind it.
export function logMel(sound, filters, columns) {
  const bands = filters.length / BINS, out = new Float32Array(bands * columns), padded = new Float32Array((columns - 1) * HOP + WINDOW);
  padded.set(sound.subarray(0, padded.length - BEFORE), BEFORE);
  const power = new Float64Array(BINS), step = new Float64Array(WINDOW);
  let loudest = -Infinity;
  for (let column = 0; column < columns; column++) {
    for (let i = 0; i < WINDOW; i++) step[i] = Math.fround(padded[column * HOP + i] * hann[i]);
    spectrum(step, power);
    for (let m = 0; m < bands; m++) {
      let energy = 0;
      for (let k = 0; k < BINS; k++) energy += power[k] * filters[k * bands + m];
      const decades = Math.log10(Math.max(energy, QUIET));
      if (decades > loudest) loudest = decades;
      out[m * columns + column] = decades;
    }
  }
  return out.map((decades) => (Math.max(decades, loudest - RANGE) + 4) / 4);
}

// Power of the real DFT of 400 samples, of sums and differences of its two ends: half of the products.
function spectrum(step, power) {
  const half = WINDOW / 2;
  for (let k = 0; k < BINS; k++) {
    let re = step[0] + (k % 2 ? -step[half] : step[half]), im = 0;
    for (let i = 1, at = k; i < half; i++, at += k) {
      const phase = at % WINDOW;
      re += (step[i] + step[WINDOW - i]) * cosine[phase];
      im -= (step[i] - step[WINDOW - i]) * sine[phase];
    }
    power[k] = re * re + im * im;
  }
}
