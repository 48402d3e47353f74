// What drives a frame to Gaussians in camera space: rig, residuals, triangles; heads/person/talking_head.py.

import { floats } from "./arrays.js";
import { addCombination, CoefficientNet, matrixVector } from "./networks.js";
import { applied, product, rotationMatrix, rotationVector } from "./poses.js";

export const POSE = 6;
const SPANS = [[1, 1], [2, 4]];           // frames before and after whose means stand beside a frame's vector
const DEGENERATE = 1e-12;
const REACH = 3;                          // of the residuals' inputs, standard deviations

// A frame as one vector; `row` is {rotation [9], translation [3], expression [K], eyelids [2], gaze [4]}.
export function frameVector(row) {
  return [...rotationVector(row.rotation), ...row.translation, ...row.expression, ...row.eyelids, ...row.gaze];
}

// The vector of frame `number` beside the means of its neighbours; vectorAt(k) gives those of frame number + k.
export function neighbourhood(vectorAt) {
  const here = vectorAt(0), size = here.length, out = new Float32Array(size * (1 + SPANS.length));
  out.set(here);
  SPANS.forEach(([near, far], block) => {
    const count = 2 * (far - near + 1), at = (block + 1) * size;
    for (let k = near; k <= far; k++) {
      for (const vector of [vectorAt(-k), vectorAt(k)]) for (let i = 0; i < size; i++) out[at + i] += vector[i] / count;
    }
  });
  return out;
}

export class Head {
  constructor(avatar) {
    const { arrays, head } = avatar;
    this.arrays = arrays;
    this.expressionSize = head.expression;
    this.vertexCount = arrays.vertices.length / 3;
    this.count = arrays.triangles.length;
    for (const name of ["color", "offset", "correction"]) {
      this[name] = arrays[`${name}.basis`] && new CoefficientNet(arrays, name, REACH);
    }
    if (arrays["appearance.basis"]) this.appearance = new Appearance(arrays, head);
    this.vertices = new Float32Array(arrays.vertices.length);
    this.frames = new Float32Array(13 * arrays.faces.length / 3);   // of triangles: axes times unit (9), unit, corner (3)
    this.colors = new Float32Array(3 * this.count);
    this.centres = new Float32Array(3 * this.count);
    this.base = floats(arrays.colors);
    this.offsets = floats(arrays.offsets);
    this.local = localShapes(floats(arrays.quats), floats(arrays.log_scales));
    this.opacities = Float32Array.from(floats(arrays.opacities), (logit) => 1 / (1 + Math.exp(-logit)));
    this.eyeballs = [1, 2].map((eye) => Array.from(arrays.eyeball_vertices.keys()).filter((v) => arrays.eyeball_vertices[v] === eye));
  }

  // Sets pose, vertices, triangle frames, colours and centres for a row and its vector.
  set(row, vector) {
    const moved = this.corrected(row, vector);
    this.rotation = moved.rotation;
    this.translation = moved.translation;
    this.setVertices(moved, vector);
    this.setFrames();
    this.colors.set(this.base);
    if (this.color) addCombination(this.colors, this.color.coefficients(vector), this.arrays["color.basis"]);
    this.appearance?.set(vector, this.colors);
    this.setCentres();
  }

  corrected(row, vector) {
    if (!this.correction) return row;
    const change = new Float32Array(POSE + this.expressionSize + 6), k = POSE + this.expressionSize;
    addCombination(change, this.correction.coefficients(vector), this.arrays["correction.basis"]);
    return {
      rotation: product(row.rotation, rotationMatrix(change)),
      translation: row.translation.map((value, i) => value + change[3 + i]),
      expression: row.expression.map((value, i) => value + change[POSE + i]),
      eyelids: row.eyelids.map((value, i) => value + change[k + i]),
      gaze: row.gaze.map((value, i) => value + change[k + 2 + i]),
    };
  }

  setVertices({ expression, eyelids, gaze }, vector) {
    const { vertices, arrays } = this;
    vertices.set(arrays.vertices);
    addCombination(vertices, expression, arrays.expression);
    addCombination(vertices, eyelids, arrays.eyelids);
    for (const eye of [0, 1]) this.turnEye(eye, gaze[2 * eye], gaze[2 * eye + 1]);
    if (this.offset) addCombination(vertices, this.offset.coefficients(vector), arrays["offset.basis"]);
  }

  turnEye(eye, yaw, pitch) {
    const { vertices } = this, centre = this.arrays.eyeball_centres.subarray(3 * eye, 3 * eye + 3);
    const sy = Math.sin(yaw), cy = Math.cos(yaw), sp = Math.sin(pitch), cp = Math.cos(pitch);
    const turn = [cy, -sy * sp, -sy * cp, 0, cp, -sp, sy, cy * sp, cy * cp];
    for (const v of this.eyeballs[eye]) {
      const local = [0, 1, 2].map((c) => vertices[3 * v + c] - centre[c]);
      applied(turn, local).forEach((value, c) => { vertices[3 * v + c] = value + centre[c]; });
    }
  }

  // Axes (columns: first edge, in-plane normal to it, outward normal) times the unit, the unit, and the first corner.
  setFrames() {
    const { vertices: v, frames: f } = this, { faces } = this.arrays;
    for (let t = 0, at = 0; t < faces.length; t += 3, at += 13) {
      const a = 3 * faces[t], b = 3 * faces[t + 1], c = 3 * faces[t + 2];
      const ex = v[b] - v[a], ey = v[b + 1] - v[a + 1], ez = v[b + 2] - v[a + 2];
      const gx = v[c] - v[a], gy = v[c + 1] - v[a + 1], gz = v[c + 2] - v[a + 2];
      let nx = ey * gz - ez * gy, ny = ez * gx - ex * gz, nz = ex * gy - ey * gx;
      const ee = ex * ex + ey * ey + ez * ez, gg = gx * gx + gy * gy + gz * gz, eg = ex * gx + ey * gy + ez * gz;
      const nn = nx * nx + ny * ny + nz * nz, k = Math.sqrt(Math.max(0, (ee + gg - eg) * 2 / 3));
      let x0 = 1, x1 = 0, x2 = 0;
      if (nn > DEGENERATE * ee * Math.max(ee, gg)) {
        const e = 1 / Math.sqrt(ee), n = 1 / Math.sqrt(nn);
        x0 = ex * e; x1 = ey * e; x2 = ez * e;
        nx *= n; ny *= n; nz *= n;
      } else { nx = 0; ny = 0; nz = 1; }
      const y0 = ny * x2 - nz * x1, y1 = nz * x0 - nx * x2, y2 = nx * x1 - ny * x0;
      f[at] = k * x0; f[at + 1] = k * y0; f[at + 2] = k * nx;
      f[at + 3] = k * x1; f[at + 4] = k * y1; f[at + 5] = k * ny;
      f[at + 6] = k * x2; f[at + 7] = k * y2; f[at + 8] = k * nz;
      f[at + 9] = k;
    }
  }

  setCentres() {
    const { vertices: v, frames: f, offsets, centres } = this, { faces, triangles, weights } = this.arrays;
    const shift = this.appearance?.shift;
    for (let i = 0, j = 0; i < this.count; i++, j += 3) {
      const t = triangles[i], at = 13 * t, w1 = weights[2 * i], w2 = weights[2 * i + 1], w0 = 1 - w1 - w2;
      const a = 3 * faces[3 * t], b = 3 * faces[3 * t + 1], c = 3 * faces[3 * t + 2];
      let x = offsets[j], y = offsets[j + 1], z = offsets[j + 2];
      if (shift) { x += shift[j]; y += shift[j + 1]; z += shift[j + 2]; }
      centres[j] = w0 * v[a] + w1 * v[b] + w2 * v[c] + f[at] * x + f[at + 1] * y + f[at + 2] * z;
      centres[j + 1] = w0 * v[a + 1] + w1 * v[b + 1] + w2 * v[c + 1] + f[at + 3] * x + f[at + 4] * y + f[at + 5] * z;
      centres[j + 2] = w0 * v[a + 2] + w1 * v[b + 2] + w2 * v[c + 2] + f[at + 6] * x + f[at + 7] * y + f[at + 8] * z;
    }
  }
}

// The prior's appearance basis: how the map depends on pose and expression.
class Appearance {
  constructor(arrays, head) {
    this.net = new CoefficientNet(arrays, "appearance", REACH);
    this.code = arrays["appearance.code"];
    this.zero = arrays["appearance.zero"];
    this.basis = arrays["appearance.basis"];
    this.row = arrays["appearance.row"];
    this.scale = head.appearance_step;
    this.held = new Float32Array(this.basis.shape[1] + 6);          // the last six stay zero: texels that do not follow
    this.part = this.held.subarray(0, this.basis.shape[1]);
    this.shift = new Float32Array(3 * this.row.length);
  }

  set(vector, colors) {
    const { net, code, zero, row, held, shift } = this;
    const own = vector.subarray(0, net.center.length);
    const beside = matrixVector(code, net.normalised(own));
    const coefficients = net.coefficients(own).map((value, r) => (value + beside[r] - zero[r]) * this.scale);
    this.part.fill(0);
    addCombination(this.part, coefficients, this.basis);
    for (let i = 0, j = 0; i < row.length; i++, j += 3) {
      const at = 6 * row[i];
      for (let c = 0; c < 3; c++) { shift[j + c] = held[at + c]; colors[j + c] += held[at + 3 + c]; }
    }
  }
}

// Rotation times standard deviations [N, 9] of every Gaussian in its triangle.
function localShapes(quats, logScales) {
  const count = quats.length / 4, out = new Float32Array(9 * count);
  for (let i = 0; i < count; i++) {
    let [w, x, y, z] = quats.subarray(4 * i, 4 * i + 4);
    const norm = Math.hypot(w, x, y, z);
    [w, x, y, z] = norm > 1e-12 ? [w / norm, x / norm, y / norm, z / norm] : [1, 0, 0, 0];
    const rows = [
      1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
      2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
      2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ];
    for (let c = 0; c < 9; c++) out[9 * i + c] = rows[c] * Math.exp(logScales[3 * i + c % 3]);
  }
  return out;
}
