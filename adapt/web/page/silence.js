// Which frames hold speech, and a face at rest where none do: the numbers of adapt/talk/activity.py and silence.py.
// The network is that of Silero VAD 6.2 (Silero Team, MIT licence).

import { FRAME } from "./logmel.js";

const INAUDIBLE = -65, FLOOR_FRAMES = 75, HIGHEST_FLOOR = -40, ABOVE = 6;         // dB, frames, dB, dB
const CHUNK = 512, CONTEXT = 64, REFLECTED = 64, HOP = 128, BINS = 129, UNITS = 128;
const STRIDES = [1, 2, 2, 1], ENTER = 0.5, LEAVE = 0.35;
const PAUSE_FRAMES = 8, CLOSING = 1 / 5, OPENING = 1 / 2;

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

// [channels out, columns out] of a convolution of width 3 with a border of zeros, and its rectifier.
function convolved(input, columns, weight, bias, stride) {
  const inner = input.length / columns, outer = bias.length, count = Math.floor((columns - 1) / stride) + 1;
  const out = new Float32Array(outer * count);
  for (let o = 0; o < outer; o++) {
    for (let c = 0; c < count; c++) {
      let sum = bias[o];
      for (let tap = 0; tap < 3; tap++) {
        const at = c * stride + tap - 1;
        if (at < 0 || at >= columns) continue;
        for (let i = 0; i < inner; i++) sum += weight[(o * inner + i) * 3 + tap] * input[i * columns + at];
      }
      out[o * count + c] = Math.max(0, sum);
    }
  }
  return [out, count];
}

// Probability that each piece of 512 samples at 16 kHz holds a voice; a stream.
export class VoiceProbability {
  constructor(arrays) {
    this.weights = (name) => arrays[`voice.${name}`];
    this.before = new Float32Array(CONTEXT);
    this.state = new Float32Array(UNITS);
    this.cell = new Float32Array(UNITS);
  }

  of(chunk) {
    const sound = new Float32Array(CONTEXT + CHUNK + REFLECTED), end = CONTEXT + CHUNK;
    sound.set(this.before);
    sound.set(chunk, CONTEXT);
    for (let i = 0; i < REFLECTED; i++) sound[end + i] = sound[end - 2 - i];
    this.before = sound.slice(end - CONTEXT, end);
    let [rows, columns] = this.spectrum(sound);
    STRIDES.forEach((stride, k) => {
      [rows, columns] = convolved(rows, columns, this.weights(`conv${k + 1}.weight`), this.weights(`conv${k + 1}.bias`), stride);
    });
    this.step(rows);
    const last = this.weights("final_conv.weight");
    return sigmoid(this.state.reduce((sum, value, i) => sum + last[i] * Math.max(0, value), this.weights("final_conv.bias")[0]));
  }

  // Amplitudes [129, columns].
  spectrum(sound) {
    const filters = this.weights("stft_conv.weight"), width = filters.length / (2 * BINS);
    const columns = Math.floor((sound.length - width) / HOP) + 1, out = new Float32Array(BINS * columns);
    for (let bin = 0; bin < BINS; bin++) {
      for (let c = 0; c < columns; c++) {
        let real = 0, imaginary = 0;
        for (let i = 0; i < width; i++) {
          real += filters[bin * width + i] * sound[c * HOP + i];
          imaginary += filters[(bin + BINS) * width + i] * sound[c * HOP + i];
        }
        out[bin * columns + c] = Math.hypot(real, imaginary);
      }
    }
    return [out, columns];
  }

  // A step of a long short-term memory; gates in the order input, forget, cell, output.
  step(rows) {
    const [wi, wh, bi, bh] = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map((name) => this.weights(`lstm_cell.${name}`));
    const gates = new Float32Array(4 * UNITS);
    for (let g = 0; g < gates.length; g++) {
      let sum = bi[g] + bh[g];
      for (let i = 0; i < UNITS; i++) sum += wi[g * UNITS + i] * rows[i] + wh[g * UNITS + i] * this.state[i];
      gates[g] = sum;
    }
    const state = new Float32Array(UNITS);
    for (let i = 0; i < UNITS; i++) {
      this.cell[i] = sigmoid(gates[UNITS + i]) * this.cell[i] + sigmoid(gates[i]) * Math.tanh(gates[2 * UNITS + i]);
      state[i] = sigmoid(gates[3 * UNITS + i]) * Math.tanh(this.cell[i]);
    }
    this.state = state;
  }
}

export class SpeechActivity {
  constructor(arrays) {
    this.probability = new VoiceProbability(arrays);
    this.rest = new Float32Array(0);
    this.active = false;
    this.levels = new Array(FLOOR_FRAMES).fill(HIGHEST_FLOOR);
  }

  // Whether a frame [640] holds speech; frames come in order.
  frame(samples) {
    const held = new Float32Array(this.rest.length + FRAME);
    held.set(this.rest);
    held.set(samples, this.rest.length);
    let voiced = false, at = 0;
    for (; at + CHUNK <= held.length; at += CHUNK) {
      this.active = this.probability.of(held.subarray(at, at + CHUNK)) > (this.active ? LEAVE : ENTER);
      voiced ||= this.active;
    }
    this.rest = held.slice(at);
    const loud = this.loud(samples);
    return voiced && loud;
  }

  loud(samples) {
    let energy = 0;
    for (const value of samples) energy += value * value;
    const level = 10 * Math.log10(energy / samples.length + 1e-10);
    this.levels.shift();
    this.levels.push(level);
    return level > Math.max(INAUDIBLE, Math.min(HIGHEST_FLOOR, ...this.levels) + ABOVE);
  }
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
