// Feature rows to expressions, frame by frame: the numbers of adapt/drivers.

// Applies a function of windows of rows; the first and last rows are repeated past the ends.
export class WindowStream {
  constructor(past, ahead, apply) {
    this.past = past;
    this.ahead = ahead;
    this.apply = apply;
    this.rows = [];
    this.begun = false;
  }

  push(rows) {
    if (!this.begun && rows.length) {
      this.rows = new Array(this.past).fill(rows[0]);
      this.begun = true;
    }
    this.rows.push(...rows);
    return this.ready();
  }

  finish() {
    if (!this.rows.length) return [];
    this.rows.push(...new Array(this.ahead).fill(this.rows.at(-1)));
    return this.ready();
  }

  ready() {
    const done = [], size = this.past + 1 + this.ahead;
    let at = 0;
    for (; at + size <= this.rows.length; at++) done.push({ expression: this.apply(this.rows, at, size) });
    this.rows.splice(0, at);
    return done;
  }
}

// Ridge regression on the person's own clip: PAST rows before a frame and as many after it as the weights say.
export class Ridge {
  constructor(arrays, prefix, past) {
    for (const name of ["mean", "spread", "weight", "bias"]) this[name] = arrays[`${prefix}${name}`];
    this.past = past;
    this.ahead = this.weight.length / this.bias.length / this.mean.length - past - 1;
    this.inputs = new Float64Array((past + 1 + this.ahead) * this.mean.length);
  }

  stream() { return new WindowStream(this.past, this.ahead, (rows, at, size) => this.apply(rows, at, size)); }

  apply(rows, at, size) {
    const { mean, spread, weight, bias, inputs } = this, columns = mean.length, count = bias.length;
    for (let r = 0, to = 0; r < size; r++) {
      const row = rows[at + r];
      for (let c = 0; c < columns; c++, to++) inputs[to] = (row[c] - mean[c]) / spread[c];
    }
    const out = new Float64Array(count);
    for (let i = 0, w = 0; i < inputs.length; i++) {
      const value = inputs[i];
      for (let k = 0; k < count; k++, w++) out[k] += value * weight[w];
    }
    return Float32Array.from(out, (value, k) => value + bias[k]);
  }
}

// Lips are pressed where they nearly meet, or by `closure`, what a prior says of shut lips: adapt/drivers/closing.py. Without
// `closing` the expression stays as it is.
export function closed(expression, closing, closure) {
  if (!closing) return expression;
  const { rest, slope, direction } = closing;
  const gap = expression.reduce((sum, value, i) => sum + (value - rest[i]) * slope[i], closing.gap);
  const change = (closure === undefined ? pressed(gap, closing) : pressedWhere(closure, gap, closing)) - gap;
  return expression.map((value, i) => value + change * direction[i]);
}

function pressedWhere(closure, gap, { mean, shut, pressed: least, doubtful, sure, narrow }) {
  const likely = closure + narrow * (1 - gap / mean);
  const share = Math.min(Math.max((likely - doubtful) / (sure - doubtful), 0), 1);
  return gap + share * Math.min(Math.min(least, shut * mean / 2) - gap, 0);
}

function pressed(gap, { mean, shut, free, pressed: least }) {
  const low = shut * mean, high = free * mean, floor = Math.min(least, low / 2);
  if (gap < low) return floor;
  return gap < high ? floor + (gap - low) / Math.max(high - low, 1e-9) * (high - floor) : gap;
}

// A stream of a regression whose lips are pressed.
export class ClosingStream {
  constructor(stream, closing) {
    this.stream = stream;
    this.closing = closing;
  }

  push(rows) { return this.closed(this.stream.push(rows)); }

  finish() { return this.closed(this.stream.finish()); }

  closed(frames) { return frames.map((frame) => ({ ...frame, expression: closed(frame.expression, this.closing) })); }
}

// Loudness opens the jaw: the driver of a clip without sound.
export class Loudness {
  constructor(rest, jaw) {
    this.rest = rest;
    this.jaw = jaw;
  }

  stream() {
    return new WindowStream(1, 1, (rows, at, size) => {
      let sum = 0;
      for (let r = 0; r < size; r++) for (const value of rows[at + r]) sum += value;
      const amount = 0.5 * Math.min(1, Math.max(0, (sum / (size * rows[at].length) + 0.7) / 1.2));
      return Float32Array.from(this.rest, (value, k) => value + amount * this.jaw[k]);
    });
  }
}

// Keeps driven expressions near those that the person's clip showed.
export class Bounds {
  constructor({ low, high, mean, scale, farthest }) { Object.assign(this, { low, high, mean, scale, farthest }); }

  apply(expression) {
    const { low, high, mean, scale } = this;
    let distance = 0;
    const kept = Array.from(expression, (value, k) => {
      const held = Math.min(high[k], Math.max(low[k], Number.isFinite(value) ? value : mean[k]));
      distance += ((held - mean[k]) / scale[k]) ** 2;
      return held;
    });
    const shrink = Math.min(1, this.farthest / Math.max(Math.sqrt(distance), 1e-9));
    return Float32Array.from(kept, (value, k) => mean[k] + (value - mean[k]) * shrink);
  }
}
