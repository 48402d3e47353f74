// A frame by the processor alone, for browsers without WebGL2 or with a slow one; heads/raster/kernels/compositing.py.

import { floats } from "./arrays.js";
import { CoefficientNet } from "./networks.js";
import { Projector, STRIDE } from "./projection.js";

const FINISHED = 1e-4, MOST = 0.999;      // transmittance behind which nothing is drawn, largest alpha of a Gaussian

export class ProcessorRenderer {
  constructor(canvas, avatar, mark) {
    Object.assign(this, { canvas, mark, size: avatar.size, intrinsics: avatar.intrinsics, name: "the processor" });
    this.background = { mode: "model", color: avatar.plain };
    this.times = {};
    this.projector = new Projector(avatar.arrays.triangles.length);
    this.pixels = new Float32Array(4 * this.size * this.size);      // colour over black, and what still shines through
    this.bytes = new ImageData(this.size, this.size);
    this.behind = new Backdrop(avatar);
    this.pen = canvas.getContext("2d", { alpha: false });
    this.small = Object.assign(document.createElement("canvas"), { width: this.size, height: this.size });
    this.smallPen = this.small.getContext("2d", { alpha: false });
  }

  draw(head, pose) {
    const begin = performance.now();
    const seen = this.projector.project(head, this.intrinsics, this.size, this.size), projected = performance.now();
    composite(this.projector.sorted, seen, this.pixels, this.size);
    const composed = performance.now();
    this.behind.under(this.pixels, pose, this.background, this.bytes.data);
    const filled = performance.now();
    this.show();
    this.times = { project: projected - begin, splats: composed - projected, body: filled - composed, show: performance.now() - filled };
    return seen;
  }

  show() {
    const { pen, canvas: { width, height }, mark } = this, high = 0.1 * height, wide = high * mark.width / mark.height;
    this.smallPen.putImageData(this.bytes, 0, 0);
    pen.imageSmoothingQuality = "low";     // bilinear: "high" takes 8 ms of the page's thread a frame
    pen.drawImage(this.small, 0, 0, width, height);
    pen.drawImage(mark, 0.98 * width - wide, 0.02 * height, wide, high);
  }

  // The last picture without canvas and mark: bytes [size, size, 3].
  read() {
    const { data } = this.bytes, out = new Uint8Array(data.length / 4 * 3);
    for (let i = 0, to = 0; i < data.length; i++) if (i % 4 < 3) out[to++] = data[i];
    return out;
  }
}

// Ellipses, the nearest last in the list, over black: [size * size, 4] of colour and transmittance.
export function composite(ellipses, seen, pixels, size) {
  pixels.fill(0);
  for (let i = 3; i < pixels.length; i += 4) pixels[i] = 1;
  for (let e = STRIDE * (seen - 1); e >= 0; e -= STRIDE) {
    const px = ellipses[e], py = ellipses[e + 1], lx = ellipses[e + 2], ly = ellipses[e + 3], sx = ellipses[e + 4], sy = ellipses[e + 5];
    const red = ellipses[e + 6], green = ellipses[e + 7], blue = ellipses[e + 8], opacity = ellipses[e + 9];
    const xx = lx * lx + sx * sx, xy = lx * ly + sx * sy, yy = ly * ly + sy * sy, det = xx * yy - xy * xy;
    const a = yy / det, b = -xy / det, c = xx / det, limit = 2 * Math.log(opacity * 255), high = Math.sqrt(limit * yy);
    const top = Math.max(0, Math.ceil(py - high - 0.5)), bottom = Math.min(size - 1, Math.floor(py + high - 0.5));
    const bend = Math.exp(-a);
    for (let y = top; y <= bottom; y++) {
      const dy = y + 0.5 - py, middle = -b * dy / a, reach = (limit - (c - b * b / a) * dy * dy) / a;
      if (!(reach > 0)) continue;
      const half = Math.sqrt(reach);
      const first = Math.max(0, Math.ceil(px + middle - half - 0.5)), last = Math.min(size - 1, Math.floor(px + middle + half - 0.5));
      if (last < first) continue;
      // Along a row a Gaussian is a product: each value is the one before times a factor that itself shrinks evenly.
      const dx = first + 0.5 - px;
      let alpha = opacity * Math.exp(-0.5 * (a * dx * dx + 2 * b * dx * dy + c * dy * dy)), factor = Math.exp(-(a * (dx + 0.5) + b * dy));
      for (let p = 4 * (y * size + first), end = 4 * (y * size + last); p <= end; p += 4) {
        const left = pixels[p + 3];
        if (left > FINISHED) {
          const weight = left * (alpha < MOST ? alpha : MOST);
          pixels[p] += weight * red;
          pixels[p + 1] += weight * green;
          pixels[p + 2] += weight * blue;
          pixels[p + 3] = left - weight;
        }
        alpha *= factor;
        factor *= bend;
      }
    }
  }
}

// Body and background: heads/person/backdrop.py.
class Backdrop {
  constructor({ arrays, head, size }) {
    this.size = size;
    this.net = new CoefficientNet(arrays, "backdrop", head.backdrop_reach);
    [this.rows, this.columns] = head.backdrop_grid;
    this.bend = floats(arrays["backdrop.bend"]);
    const plane = size * size, background = floats(arrays["backdrop.background"]), body = floats(arrays["backdrop.body"]);
    const alpha = floats(arrays["backdrop.alpha"]), layer = alpha.length;
    // The body reaches beyond the frame by a margin on every side.
    [this.high, this.wide] = arrays["backdrop.alpha"].shape;
    this.background = Float32Array.from({ length: 3 * plane }, (_, i) => background[(i % 3) * plane + Math.floor(i / 3)]);
    this.body = Float32Array.from({ length: 4 * layer }, (_, i) => (i % 4 < 3 ? body[(i % 4) * layer + (i >> 2)] : alpha[i >> 2]));
  }

  // Displacements (x, y) of the control points, px.
  flow(pose) {
    const x = this.net.normalised(pose), count = this.rows * this.columns;
    return Float32Array.from({ length: 2 * count }, (_, i) => {
      const row = (i % 2 ? count : 0) + (i >> 1);
      let sum = 0;
      for (let c = 0; c < x.length; c++) sum += this.bend[row * x.length + c] * x[c];
      return sum * this.size;
    });
  }

  // Bytes of the pixels with what stands behind them.
  under(pixels, pose, { mode, color }, out) {
    const { size, rows, columns, background, body, wide, high } = this, flow = this.flow(pose), most = size - 1;
    const left = (wide - size) / 2, top = (high - size) / 2, right = wide - 1, bottom = high - 1;
    for (let y = 0, p = 0; y < size; y++) {
      const gy = y / most * (rows - 1), row = Math.min(rows - 2, Math.floor(gy)), v = gy - row;
      for (let x = 0; x < size; x++, p += 4) {
        const through = pixels[p + 3], at = 3 * (p >> 2);
        let red, green, blue;
        if (mode === "model") { red = background[at]; green = background[at + 1]; blue = background[at + 2]; }
        else [red, green, blue] = color;
        if (mode !== "plain" && through > FINISHED) {
          const gx = x / most * (columns - 1), column = Math.min(columns - 2, Math.floor(gx)), u = gx - column;
          const f = 2 * (row * columns + column), g = f + 2 * columns;
          const fx = (flow[f] * (1 - u) + flow[f + 2] * u) * (1 - v) + (flow[g] * (1 - u) + flow[g + 2] * u) * v;
          const fy = (flow[f + 1] * (1 - u) + flow[f + 3] * u) * (1 - v) + (flow[g + 1] * (1 - u) + flow[g + 3] * u) * v;
          const bx = Math.min(right, Math.max(0, x + fx + left)), by = Math.min(bottom, Math.max(0, y + fy + top));
          const x0 = Math.floor(bx), y0 = Math.floor(by), s = bx - x0, t = by - y0, x1 = x0 < right ? 4 : 0, y1 = y0 < bottom ? 4 * wide : 0;
          const k = 4 * (y0 * wide + x0), w0 = (1 - s) * (1 - t), w1 = s * (1 - t), w2 = (1 - s) * t, w3 = s * t;
          const alpha = w0 * body[k + 3] + w1 * body[k + x1 + 3] + w2 * body[k + y1 + 3] + w3 * body[k + x1 + y1 + 3];
          red += alpha * (w0 * body[k] + w1 * body[k + x1] + w2 * body[k + y1] + w3 * body[k + x1 + y1] - red);
          green += alpha * (w0 * body[k + 1] + w1 * body[k + x1 + 1] + w2 * body[k + y1 + 1] + w3 * body[k + x1 + y1 + 1] - green);
          blue += alpha * (w0 * body[k + 2] + w1 * body[k + x1 + 2] + w2 * body[k + y1 + 2] + w3 * body[k + x1 + y1 + 2] - blue);
        }
        // ImageData rounds and clips.
        out[p] = 255 * (pixels[p] + through * red);
        out[p + 1] = 255 * (pixels[p + 1] + through * green);
        out[p + 2] = 255 * (pixels[p + 2] + through * blue);
        out[p + 3] = 255;
      }
    }
  }
}
