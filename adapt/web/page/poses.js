// Where the head is and how it blinks: the numbers of adapt/talk/poses.py and blinks.py. Matrices are rows of nine.

export const FPS = 25;

export function eulerToRotation(yaw, pitch, roll) {
  const cy = Math.cos(-yaw), sy = Math.sin(-yaw), cp = Math.cos(pitch), sp = Math.sin(pitch), cr = Math.cos(roll), sr = Math.sin(roll);
  return [
    cy * cr + sy * sp * sr, -cy * sr + sy * sp * cr, sy * cp,
    cp * sr, cp * cr, -sp,
    -sy * cr + cy * sp * sr, sy * sr + cy * sp * cr, cy * cp,
  ];
}

export function rotationToEuler(m) {
  return [-Math.atan2(m[2], m[8]), Math.asin(Math.min(1, Math.max(-1, -m[5]))), Math.atan2(m[3], m[4])];
}

// The rotation vector of a matrix, exact below a half turn.
export function rotationVector(m) {
  const skew = [m[7] - m[5], m[2] - m[6], m[3] - m[1]];
  const cosine = Math.min(1, Math.max(-1, (m[0] + m[4] + m[8] - 1) / 2)), sine = Math.hypot(...skew) / 2;
  const factor = sine > 1e-6 ? Math.atan2(sine, cosine) / Math.max(2 * sine, 1e-9) : 0.5;
  return skew.map((value) => value * factor);
}

export function rotationMatrix([x, y, z]) {
  const square = x * x + y * y + z * z, angle = Math.sqrt(square + 1e-12);
  const a = Math.sin(angle) / angle, b = square < 1e-6 ? 0.5 - square / 24 : (1 - Math.cos(angle)) / (square + 1e-12);
  return [
    1 - b * (y * y + z * z), b * x * y - a * z, b * x * z + a * y,
    b * x * y + a * z, 1 - b * (x * x + z * z), b * y * z - a * x,
    b * x * z - a * y, b * y * z + a * x, 1 - b * (x * x + y * y),
  ];
}

export function product(p, q) {
  const out = new Array(9);
  for (let i = 0; i < 3; i++) for (let j = 0; j < 3; j++) out[3 * i + j] = p[3 * i] * q[j] + p[3 * i + 1] * q[3 + j] + p[3 * i + 2] * q[6 + j];
  return out;
}

export function applied(m, v) {
  return [0, 3, 6].map((i) => m[i] * v[0] + m[i + 1] * v[1] + m[i + 2] * v[2]);
}

// Poses by frame number: {rotation, translation, source}; `source` is the clip frame whose gaze goes with it.
export class Poses {
  constructor(poses, arrays) {
    this.still = poses.still;
    this.generatedBy = poses.generated;
    this.pivot = poses.pivot;
    this.rotation = arrays["track.rotation"];
    this.translation = arrays["track.translation"];
    this.frames = this.translation.length / 3;
    this.mode = "clip";
    this.turn = [0, 0, 0];              // radians asked for: yaw, pitch, roll
  }

  get modes() { return ["clip", "generated", "still"]; }

  at(number) {
    const pose = this[`at_${this.mode}`](number);
    if (!this.turn.some(Boolean)) return pose;
    const angles = rotationToEuler(pose.rotation);
    const turned = eulerToRotation(...angles.map((angle, i) => angle + this.turn[i]));
    const before = applied(pose.rotation, this.pivot), after = applied(turned, this.pivot);
    return { ...pose, rotation: turned, translation: pose.translation.map((value, i) => value + before[i] - after[i]) };
  }

  at_clip(number) {
    let source = 0;
    if (this.frames > 1) {
      const turns = 2 * (this.frames - 1), phase = ((number % turns) + turns) % turns;
      source = Math.min(phase, turns - phase);
    }
    const rotation = Array.from(this.rotation.subarray(9 * source, 9 * source + 9));
    return { rotation, translation: Array.from(this.translation.subarray(3 * source, 3 * source + 3)), source };
  }

  at_still() { return { ...this.still }; }

  at_generated(number) {
    const { hertz, phase, weight, centre, spread, source } = this.generatedBy, seconds = number / FPS;
    const value = centre.map((middle, i) => {
      let wave = 0;
      for (let w = 0; w < hertz.length; w++) wave += Math.sin(2 * Math.PI * hertz[w][i] * seconds + phase[w][i]) * weight[w][i];
      return middle + spread[i] * wave;
    });
    return { rotation: eulerToRotation(value[0], value[1], value[2]), translation: value.slice(3), source };
  }
}

// Eyelid closure by frame number: one blink somewhere in every window.
export class Blinks {
  constructor({ window, shape, starts }) {
    Object.assign(this, { window, shape, starts });
    this.mode = "natural";              // or "none", or a closure from 0 to 1
  }

  at(number) {
    if (this.mode === "none") return 0;
    if (this.mode !== "natural") return Number(this.mode);
    const index = Math.floor(number / this.window);
    const phase = number - index * this.window - this.starts[index % this.starts.length];
    return this.shape[phase] ?? 0;
  }
}
