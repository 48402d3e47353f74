// A pretrained prior in the page, by onnxruntime-web: adapt/drivers/prior.py and pretrain/audio_expression/windows.py.

import { closed } from "./drivers.js";
import { LogMelStream } from "./logmel.js";
import { WhisperStream } from "./whisper.js";

const RUNTIME = "./ort.wasm.bundle.min.mjs";
const ONLY_HTTP = "The prior that was exported with it runs where the page is served (python -m http.server), not from disk.";

// {prior, features, reason}: what moves the head beside its regression, a maker of feature streams, why something is missing.
export async function openSound({ driver, arrays }) {
  const { prior: exported, encoder } = driver;
  if (!exported && !encoder) return { features: () => new LogMelStream() };
  if (location.protocol === "file:") return { features: encoder ? null : () => new LogMelStream(), reason: ONLY_HTTP };
  const ort = await import(RUNTIME);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", location.href).href };
  const open = (name) => ort.InferenceSession.create(name, { executionProviders: ["wasm"] });
  const run = (session, output) => async (inputs) => {
    const tensors = Object.entries(inputs).map(([name, [values, shape]]) => [name, new ort.Tensor("float32", values, shape)]);
    return (await session.run(Object.fromEntries(tensors)))[output].data;
  };
  const encode = encoder && run(await open(encoder.file), "rows");
  const features = () => (encoder ? new WhisperStream(encoder, arrays["encoder.filters"], encode) : new LogMelStream());
  const prior = exported && new Prior(exported, arrays, run(await open(exported.file), "targets"));
  return { prior, features };
}

export class Prior {
  constructor(exported, arrays, run) {
    Object.assign(this, exported, { run, calibration: arrays.calibration });
  }

  // Expressions of a stream of feature rows, averaged with a regression where there is one.
  stream(regression) { return new PriorStream(this, regression); }

  // Expression of a window of rows, and as a last column what the prior says of shut lips, where it does.
  async targets(rows, statistics) {
    const size = rows[0].length, features = new Float32Array(rows.length * size);
    rows.forEach((row, i) => features.set(row, i * size));
    const shape = this.scale ? [1, 2, size] : [1, size];
    const flat = await this.run({ features: [features, [1, rows.length, size]], statistics: [statistics, shape] });
    const columns = flat.length / rows.length;
    return rows.map((_, t) => {
      const row = flat.subarray(t * columns, (t + 1) * columns);
      const expression = row.slice(this.expression_at, this.expression_at + this.expression);
      return this.closure_at == null ? expression : Float32Array.of(...expression, row[this.closure_at]);
    });
  }

  calibrated(expression) {
    const { calibration } = this, k = expression.length;
    if (!calibration) return expression;
    return expression.map((value, i) => calibration[2 * k + i] + calibration[i] * (value - calibration[k + i]));
  }
}

class PriorStream {
  constructor(prior, regression) {
    this.prior = prior;
    this.rows = [];
    this.recent = null;             // rows of the last seconds, whose mean is the microphone's and the room's
    this.tail = null;
    this.regression = regression && { stream: regression.stream(), rest: regression.bias };
    this.sampled = [];
    this.regressed = [];
  }

  async push(rows) {
    const { window, overlap } = this.prior;
    this.rows.push(...rows);
    // One row more than a window: the last window is left for finish, which may find it shorter.
    while (this.rows.length > window) {
      const out = this.joined(await this.run(this.rows.slice(0, window)));
      this.sampled.push(...out.slice(0, window - overlap));
      this.tail = out.slice(window - overlap);
      this.rows.splice(0, window - overlap);
    }
    if (this.regression) this.regressed.push(...this.regression.stream.push(rows));
    return this.both();
  }

  async finish() {
    if (this.rows.length) this.sampled.push(...this.joined(await this.run(this.rows)));
    if (this.regression) this.regressed.push(...this.regression.stream.finish());
    return this.both();
  }

  run(rows) {
    const { memory, overlap } = this.prior;
    this.recent = this.recent ? [...this.recent, ...rows.slice(overlap)].slice(-memory) : rows;
    return this.prior.targets(rows, this.statistics());
  }

  statistics() {
    const { recent, prior: { scale, least_spread } } = this, size = recent[0].length, mean = new Float64Array(size);
    for (const row of recent) for (let c = 0; c < size; c++) mean[c] += row[c] / recent.length;
    if (!scale) return Float32Array.from(mean);
    const variance = new Float64Array(size);
    for (const row of recent) for (let c = 0; c < size; c++) variance[c] += (row[c] - mean[c]) ** 2 / recent.length;
    return Float32Array.from({ length: 2 * size }, (_, i) => (i < size ? mean[i] : Math.sqrt(variance[i - size]) + least_spread));
  }

  // A raised-cosine fade from the window before.
  joined(out) {
    const { tail, prior: { overlap } } = this;
    if (!tail) return out;
    return out.map((row, t) => {
      if (t >= overlap) return row;
      const weight = 0.5 - 0.5 * Math.cos(Math.PI * (t + 0.5) / overlap);
      return row.map((value, i) => tail[t][i] * (1 - weight) + value * weight);
    });
  }

  both() {
    const { prior, regression, sampled, regressed } = this;
    const count = regression ? Math.min(sampled.length, regressed.length) : sampled.length;
    const told = regression && regressed.splice(0, count);
    return sampled.splice(0, count).map((row, t) => {
      const expression = prior.calibrated(row.subarray(0, prior.expression)), closure = row[prior.expression];
      if (!regression) return { expression: closed(expression, prior.closing, closure) };
      const { rest } = regression, { share, emphasis } = prior;
      const mean = (value, i) => (1 - share) * value + share * told[t].expression[i];
      const emphasised = expression.map((value, i) => rest[i] + emphasis * (mean(value, i) - rest[i]));
      return { expression: closed(emphasised, prior.closing, closure) };
    });
  }
}
