// A frame's vector to a few coefficients, and what they do to many numbers: heads/person/residual.py and appearance.py.

import { floats } from "./arrays.js";

// Linear part beside a small MLP; inputs are held within `reach` of their usual range.
export class CoefficientNet {
  constructor(arrays, name, reach) {
    const part = (key) => arrays[`${name}.${key}`] && floats(arrays[`${name}.${key}`]);
    this.center = part("center");
    this.scale = part("scale");
    this.linear = part("linear");
    this.hidden = part("hidden.weight") && [part("hidden.weight"), part("hidden.bias"), part("out.weight"), part("out.bias")];
    this.reach = reach;
    this.x = new Float64Array(this.center.length);
  }

  normalised(vector) {
    const { center, scale, reach, x } = this;
    for (let i = 0; i < x.length; i++) {
      const value = (vector[i] - center[i]) / scale[i];
      x[i] = Number.isNaN(value) ? 0 : Math.min(reach, Math.max(-reach, value));
    }
    return x;
  }

  coefficients(vector) {
    const x = this.normalised(vector), out = matrixVector(this.linear, x);
    if (!this.hidden) return out;
    const [w1, b1, w2, b2] = this.hidden;
    const inner = matrixVector(w1, x).map((value, i) => gelu(value + b1[i]));
    const beside = matrixVector(w2, inner);
    return out.map((value, i) => value + beside[i] + b2[i]);
  }
}

export function matrixVector(matrix, vector) {
  const rows = matrix.length / vector.length, out = new Float64Array(rows);
  for (let r = 0, at = 0; r < rows; r++) {
    let sum = 0;
    for (let c = 0; c < vector.length; c++, at++) sum += matrix[at] * vector[c];
    out[r] = sum;
  }
  return out;
}

// out += sum over rows of coefficients[r] * basis[r], for a basis of floats or of integers with a step per row.
export function addCombination(out, coefficients, basis) {
  const length = out.length, { step } = basis;
  for (let r = 0; r < coefficients.length; r++) {
    const c = coefficients[r] * (step ? step[r] : 1);
    if (!c) continue;
    for (let i = 0, at = r * length; i < length; i++, at++) out[i] += c * basis[at];
  }
}

function gelu(x) { return 0.5 * x * (1 + erf(x / Math.SQRT2)); }

// Error function to 1.2e-7 (Numerical Recipes, section 6.2).
export function erf(x) {
  const z = Math.abs(x), t = 1 / (1 + 0.5 * z);
  const series = [-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277];
  let sum = 0;
  for (let i = series.length - 1; i >= 0; i--) sum = sum * t + series[i];
  const tail = t * Math.exp(-z * z + sum);
  return x >= 0 ? 1 - tail : tail - 1;
}
