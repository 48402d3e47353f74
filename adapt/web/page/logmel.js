// Sound to log-mel rows: the numbers of shards/features/logmel.py.

export const RATE = 16000, FRAME = 640;
const MELS = 40, HOPS = 4, WINDOW = 400, SIZE = 512, HOP = 160, REACH = (WINDOW - HOP) / 2, FLOOR = 1e-6;
const BINS = SIZE / 2 + 1;
export const ROW = MELS * HOPS;

const hann = Float32Array.from({ length: WINDOW }, (_, i) => 0.5 - 0.5 * Math.cos(2 * Math.PI * (i + 0.5) / WINDOW));

// Triangles on the HTK mel scale, each of unit sum: [first bin, weights] of every band.
const filters = (() => {
  const mel = (hertz) => 2595 * Math.log10(1 + hertz / 700);
  const low = mel(50), step = (mel(7600) - low) / (MELS + 1);
  const edges = Array.from({ length: MELS + 2 }, (_, i) => 700 * (10 ** ((low + i * step) / 2595) - 1));
  return Array.from({ length: MELS }, (_, m) => {
    const weights = Array.from({ length: BINS }, (_, k) => {
      const hertz = k * RATE / SIZE;
      const rise = (hertz - edges[m]) / (edges[m + 1] - edges[m]), fall = (edges[m + 2] - hertz) / (edges[m + 2] - edges[m + 1]);
      return Math.max(0, Math.min(rise, fall));
    });
    const sum = Math.max(weights.reduce((a, b) => a + b, 0), 1e-9);
    const first = Math.max(0, weights.findIndex((w) => w > 0));
    let end = BINS;
    while (end > first && !weights[end - 1]) end--;
    return [first, Float64Array.from(weights.slice(first, end), (w) => w / sum)];
  });
})();

// In-place complex FFT of a power of two.
export class FFT {
  constructor(size) {
    this.size = size;
    this.cos = Float64Array.from({ length: size / 2 }, (_, i) => Math.cos(2 * Math.PI * i / size));
    this.sin = Float64Array.from({ length: size / 2 }, (_, i) => -Math.sin(2 * Math.PI * i / size));
    const bits = Math.log2(size);
    this.reversed = Uint32Array.from({ length: size }, (_, i) => {
      let out = 0;
      for (let b = 0; b < bits; b++) out |= ((i >> b) & 1) << (bits - 1 - b);
      return out;
    });
  }

  run(re, im) {
    const { size, cos, sin, reversed } = this;
    for (let i = 0; i < size; i++) {
      const j = reversed[i];
      if (j > i) { [re[i], re[j]] = [re[j], re[i]]; [im[i], im[j]] = [im[j], im[i]]; }
    }
    for (let half = 1; half < size; half *= 2) {
      const step = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let k = 0, at = 0; k < half; k++, at += step) {
          const a = start + k, b = a + half;
          const x = re[b] * cos[at] - im[b] * sin[at], y = re[b] * sin[at] + im[b] * cos[at];
          re[b] = re[a] - x; im[b] = im[a] - y;
          re[a] += x; im[a] += y;
        }
      }
    }
  }
}

const fft = new FFT(SIZE), re = new Float64Array(SIZE), im = new Float64Array(SIZE), power = new Float64Array(BINS);

// One step of 10 ms: 40 bands of the samples from `at` on.
function bands(samples, at, out, to) {
  re.fill(0);
  im.fill(0);
  for (let i = 0; i < WINDOW; i++) re[i] = Math.fround(samples[at + i] * hann[i]);
  fft.run(re, im);
  for (let k = 0; k < BINS; k++) power[k] = (re[k] * re[k] + im[k] * im[k]) / WINDOW;
  for (let m = 0; m < MELS; m++) {
    const [first, weights] = filters[m];
    let energy = 0;
    for (let k = 0; k < weights.length; k++) energy += power[first + k] * weights[k];
    out[to + m] = (Math.log10(energy + FLOOR) + 3) / 2.5;
  }
}

// A stream: push sound, get the rows [Float32Array(160)] that are final; those of silence lie before and behind.
export class LogMelStream {
  constructor() { this.held = new Float32Array(REACH); }

  push(sound) {
    this.held = joined(this.held, sound);
    const ready = Math.max(0, Math.floor((this.held.length - 2 * REACH) / FRAME));
    const rows = this.rows(ready);
    this.held = this.held.slice(ready * FRAME);
    return rows;
  }

  finish() {
    const frames = Math.floor((this.held.length - REACH) / FRAME);
    this.held = joined(this.held, new Float32Array(REACH));
    return this.rows(frames);
  }

  rows(count) {
    return Array.from({ length: count }, (_, t) => {
      const row = new Float32Array(ROW);
      for (let hop = 0; hop < HOPS; hop++) bands(this.held, t * FRAME + hop * HOP, row, hop * MELS);
      return row;
    });
  }
}

export function joined(a, b) {
  const out = new Float32Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}
