// Gaussians to ellipses on the picture, sorted from back to front: heads/raster/kernels/projection.py.

export const STRIDE = 12;    // floats of an ellipse: centre 2, half axes 2 x 2 (px), colour 3, opacity, reach, one of padding
const NEAR = 0.01, EPS = 0.3, EXTEND = 3.33;

export class Projector {
  // `room`: floats of `sorted`, at least STRIDE a Gaussian.
  constructor(count, room = STRIDE * count) {
    this.count = count;
    this.found = new Float32Array(STRIDE * count);
    this.sorted = new Float32Array(room);
    this.depths = new Float32Array(count);
    this.bins = new Uint32Array(65537);
  }

  // Ellipses of a Head that is set; returns how many are seen, `sorted` holds them. K is [fx, fy, cx, cy] for the size.
  project(head, [fx, fy, cx, cy], width, height) {
    const { found, depths } = this, { frames, local, centres, colors, opacities } = head, { triangles } = head.arrays;
    const [r0, r1, r2, r3, r4, r5, r6, r7, r8] = head.rotation, [t0, t1, t2] = head.translation;
    const mx = 0.15 * width / fx, my = 0.15 * height / fy;
    const x0 = -cx / fx - mx, x1 = (width - cx) / fx + mx, y0 = -cy / fy - my, y1 = (height - cy) / fy + my;
    let seen = 0, at = 0;
    for (let i = 0, j = 0; i < this.count; i++, j += 3) {
      const opacity = opacities[i];
      if (opacity * 255 < 1) continue;
      const px = centres[j], py = centres[j + 1], pz = centres[j + 2];
      const z = r6 * px + r7 * py + r8 * pz + t2;
      if (!(z >= NEAR)) continue;
      const x = (r0 * px + r1 * py + r2 * pz + t0) / z, y = (r3 * px + r4 * py + r5 * pz + t1) / z;
      const u = x < x0 ? x0 : x > x1 ? x1 : x, v = y < y0 ? y0 : y > y1 ? y1 : y, jx = fx / z, jy = fy / z;
      const a0 = (r0 - u * r6) * jx, a1 = (r1 - u * r7) * jx, a2 = (r2 - u * r8) * jx;
      const b0 = (r3 - v * r6) * jy, b1 = (r4 - v * r7) * jy, b2 = (r5 - v * r8) * jy;
      const f = 13 * triangles[i], l = 9 * i;
      const p0 = a0 * frames[f] + a1 * frames[f + 3] + a2 * frames[f + 6];
      const p1 = a0 * frames[f + 1] + a1 * frames[f + 4] + a2 * frames[f + 7];
      const p2 = a0 * frames[f + 2] + a1 * frames[f + 5] + a2 * frames[f + 8];
      const q0 = b0 * frames[f] + b1 * frames[f + 3] + b2 * frames[f + 6];
      const q1 = b0 * frames[f + 1] + b1 * frames[f + 4] + b2 * frames[f + 7];
      const q2 = b0 * frames[f + 2] + b1 * frames[f + 5] + b2 * frames[f + 8];
      const s0 = p0 * local[l] + p1 * local[l + 3] + p2 * local[l + 6], s1 = p0 * local[l + 1] + p1 * local[l + 4] + p2 * local[l + 7];
      const s2 = p0 * local[l + 2] + p1 * local[l + 5] + p2 * local[l + 8], u0 = q0 * local[l] + q1 * local[l + 3] + q2 * local[l + 6];
      const u1 = q0 * local[l + 1] + q1 * local[l + 4] + q2 * local[l + 7], u2 = q0 * local[l + 2] + q1 * local[l + 5] + q2 * local[l + 8];
      const xx = s0 * s0 + s1 * s1 + s2 * s2 + EPS, xy = s0 * u0 + s1 * u1 + s2 * u2, yy = u0 * u0 + u1 * u1 + u2 * u2 + EPS;
      const det = xx * yy - xy * xy;
      if (!(det > 0 && det < 1e38)) continue;
      const reach = Math.min(EXTEND, Math.sqrt(2 * Math.log(opacity * 255)));
      const sx = x * fx + cx, sy = y * fy + cy, wide = Math.ceil(reach * Math.sqrt(xx)), high = Math.ceil(reach * Math.sqrt(yy));
      if (sx + wide <= 0 || sx - wide >= width || sy + high <= 0 || sy - high >= height) continue;
      // Half axes of one standard deviation: eigenvectors of the covariance.
      const middle = (xx + yy) / 2, root = Math.sqrt(Math.max(0, (xx - yy) * (xx - yy) / 4 + xy * xy));
      const long = Math.sqrt(middle + root), short = Math.sqrt(Math.max(middle - root, 1e-12));
      let ex = xx - yy + 2 * root, ey = 2 * xy;                       // twice the vector of the larger eigenvalue
      const norm = Math.hypot(ex, ey);
      if (norm > 1e-9) { ex /= norm; ey /= norm; } else if (xx >= yy) { ex = 1; ey = 0; } else { ex = 0; ey = 1; }
      depths[seen++] = z;
      found[at] = sx; found[at + 1] = sy;
      found[at + 2] = ex * long; found[at + 3] = ey * long; found[at + 4] = -ey * short; found[at + 5] = ex * short;
      found[at + 6] = colors[j]; found[at + 7] = colors[j + 1]; found[at + 8] = colors[j + 2];
      found[at + 9] = opacity; found[at + 10] = reach;
      at += STRIDE;
    }
    this.sort(seen);
    return seen;
  }

  // A counting sort by depth, the farthest first.
  sort(seen) {
    const { depths, bins, found, sorted } = this;
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < seen; i++) { if (depths[i] < low) low = depths[i]; if (depths[i] > high) high = depths[i]; }
    const scale = 65535 / Math.max(high - low, 1e-9);
    bins.fill(0);
    for (let i = 0; i < seen; i++) bins[1 + ((high - depths[i]) * scale | 0)]++;
    for (let b = 1; b < bins.length; b++) bins[b] += bins[b - 1];
    for (let i = 0; i < seen; i++) {
      const to = STRIDE * bins[(high - depths[i]) * scale | 0]++, from = STRIDE * i;
      for (let c = 0; c < STRIDE; c++) sorted[to + c] = found[from + c];
    }
  }
}
