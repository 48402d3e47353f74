// A frame by WebGL2: background and body, Gaussians over them, then the picture with its mark on the canvas.

import { floats } from "./arrays.js";
import { CoefficientNet } from "./networks.js";
import { Projector, STRIDE } from "./projection.js";

// Six vertices per ellipse, read from a texture: software renderers draw instances one by one, twenty times slower.
const WIDTH = 1536;          // texels of a row of that texture, a multiple of an ellipse's three
const SPLAT = `#version 300 es
#define WIDTH ${WIDTH}
precision highp sampler2D;
uniform sampler2D ellipses;
uniform vec2 size;
out vec2 at; flat out vec4 look; flat out float limit;
const vec2 CORNERS[6] = vec2[](vec2(-1, -1), vec2(1, -1), vec2(-1, 1), vec2(-1, 1), vec2(1, -1), vec2(1, 1));
void main() {
  int texel = gl_VertexID / 6 * 3;
  ivec2 place = ivec2(texel % WIDTH, texel / WIDTH);
  vec4 a = texelFetch(ellipses, place, 0), b = texelFetch(ellipses, place + ivec2(1, 0), 0), c = texelFetch(ellipses, place + ivec2(2, 0), 0);
  at = CORNERS[gl_VertexID % 6] * c.z;
  look = vec4(b.zw, c.xy);
  limit = log(c.y * 255.0);
  vec2 pixel = a.xy + a.zw * at.x + b.xy * at.y;
  gl_Position = vec4(pixel / size * 2.0 - 1.0, 0.0, 1.0);
}`;
const SPLAT_PIXEL = `#version 300 es
precision highp float; precision highp sampler2D;
in vec2 at; flat in vec4 look; flat in float limit;
out vec4 result;
void main() {
  float s = 0.5 * dot(at, at);
  if (s > limit) discard;
  float alpha = min(look.a * exp(-s), 0.999);
  result = vec4(look.rgb * alpha, alpha);
}`;
const SCREEN = `#version 300 es
in vec2 corner; out vec2 at; uniform vec4 place;
void main() { at = corner * 0.5 + 0.5; gl_Position = vec4(place.xy + place.zw * at, 0.0, 1.0); }`;
// The control grid's displacement, bilinear with its corners on the picture's corners.
const BACKDROP_PIXEL = `#version 300 es
precision highp float; precision highp sampler2D;
in vec2 at; out vec4 result;
uniform sampler2D background, body, flow;
uniform vec4 plain; uniform vec2 show;
vec2 moved(vec2 uv) {
  ivec2 count = textureSize(flow, 0);
  vec2 size = vec2(textureSize(background, 0));
  vec2 cell = (uv * size - 0.5) / (size - 1.0) * vec2(count - 1);
  ivec2 low = clamp(ivec2(floor(cell)), ivec2(0), count - 2);
  vec2 part = cell - vec2(low);
  vec2 a = texelFetch(flow, low, 0).xy, b = texelFetch(flow, low + ivec2(1, 0), 0).xy;
  vec2 c = texelFetch(flow, low + ivec2(0, 1), 0).xy, d = texelFetch(flow, low + ivec2(1, 1), 0).xy;
  return mix(mix(a, b, part.x), mix(c, d, part.x), part.y);
}
void main() {
  vec4 behind = show.x > 0.5 ? texture(background, at) : plain;
  // The body reaches beyond the frame by a margin on every side.
  vec2 framed = vec2(textureSize(background, 0)) / vec2(textureSize(body, 0));
  vec4 front = texture(body, (at + moved(at) - 0.5) * framed + 0.5);
  float alpha = front.a * show.y;
  result = vec4(front.rgb * alpha + behind.rgb * (1.0 - alpha), 1.0);
}`;
const PICTURE_PIXEL = `#version 300 es
precision highp float; precision highp sampler2D;
in vec2 at; out vec4 result; uniform sampler2D picture; uniform float flip;
void main() { result = texture(picture, vec2(at.x, flip > 0.5 ? 1.0 - at.y : at.y)); }`;

export class WebGLRenderer {
  // `deep`: 16-bit floats where the browser can blend them; null where WebGL2 is missing or fails.
  static open(canvas, avatar, mark, deep = true) {
    const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false, preserveDrawingBuffer: true });
    return gl && new WebGLRenderer(gl, avatar, mark, deep);
  }

  constructor(gl, avatar, mark, deep) {
    this.gl = gl;
    Object.assign(this, { canvas: gl.canvas, name: "WebGL2" });
    this.size = avatar.size;
    this.intrinsics = avatar.intrinsics;
    this.background = { mode: "model", color: avatar.plain };
    this.times = {};
    this.programs(gl);
    this.target(gl, deep);
    this.backdrop = avatar.arrays["backdrop.bend"] && this.layers(gl, avatar);
    this.splats(gl, avatar.arrays.triangles.length);
    this.mark = texture(gl, gl.LINEAR);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, mark);
    this.markShape = mark.width / mark.height;
  }

  programs(gl) {
    this.splat = program(gl, SPLAT, SPLAT_PIXEL);
    this.behind = program(gl, SCREEN, BACKDROP_PIXEL);
    this.show = program(gl, SCREEN, PICTURE_PIXEL);
    this.corners = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, this.corners);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
    this.screen = gl.createVertexArray();
    gl.bindVertexArray(this.screen);
    gl.bindAttribLocation(this.behind, 0, "corner");
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
  }

  target(gl, deep) {
    this.deep = Boolean(deep && (gl.getExtension("EXT_color_buffer_float") || gl.getExtension("EXT_color_buffer_half_float")));
    this.picture = texture(gl, gl.LINEAR);
    gl.texStorage2D(gl.TEXTURE_2D, 1, this.deep ? gl.RGBA16F : gl.RGBA8, this.size, this.size);
    this.frame = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.frame);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.picture, 0);
    if (this.deep && gl.checkFramebufferStatus(gl.FRAMEBUFFER) !== gl.FRAMEBUFFER_COMPLETE) this.target(gl, false);
  }

  layers(gl, { arrays, head }) {
    const net = new CoefficientNet(arrays, "backdrop", head.backdrop_reach), [rows, columns] = head.backdrop_grid;
    const background = picture(gl, arrays["backdrop.background"]), body = picture(gl, arrays["backdrop.body"], arrays["backdrop.alpha"]);
    return { net, rows, columns, background, body, flow: texture(gl, gl.NEAREST), bend: floats(arrays["backdrop.bend"]) };
  }

  splats(gl, count) {
    this.rows = Math.ceil(STRIDE / 4 * count / WIDTH);
    this.projector = new Projector(count, 4 * WIDTH * this.rows);
    this.ellipses = texture(gl, gl.NEAREST);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA32F, WIDTH, this.rows);
    this.empty = gl.createVertexArray();
  }

  // Draws a Head that is set, before the backdrop of pose vector [18]; then the canvas, with the mark.
  draw(head, pose) {
    const begin = performance.now();
    const seen = this.projector.project(head, this.intrinsics, this.size, this.size);
    const projected = performance.now();
    this.drawPicture(seen, pose);
    this.drawCanvas();
    this.times = { project: projected - begin, submit: performance.now() - projected };
    return seen;
  }

  drawPicture(seen, pose) {
    const { gl } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.frame);
    gl.viewport(0, 0, this.size, this.size);
    this.drawBackdrop(pose);
    const rows = Math.ceil(STRIDE / 4 * seen / WIDTH);
    gl.useProgram(this.splat);
    gl.bindVertexArray(this.empty);
    this.textures(this.splat, { ellipses: this.ellipses });
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, WIDTH, rows, gl.RGBA, gl.FLOAT, this.projector.sorted);
    gl.uniform2f(gl.getUniformLocation(this.splat, "size"), this.size, this.size);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.drawArrays(gl.TRIANGLES, 0, 6 * seen);
    gl.disable(gl.BLEND);
  }

  drawBackdrop(pose) {
    const { gl, background: { mode, color }, backdrop } = this;
    if (!backdrop || mode === "plain") {
      gl.clearColor(...color, 1);
      gl.clear(gl.COLOR_BUFFER_BIT);
      return;
    }
    const { flow, bend, net, rows, columns } = backdrop, x = net.normalised(pose), grid = new Float32Array(2 * rows * columns);
    for (let i = 0; i < grid.length; i++) {
      let sum = 0;
      for (let c = 0; c < x.length; c++) sum += bend[i * x.length + c] * x[c];
      grid[2 * (i % (rows * columns)) + (i < rows * columns ? 0 : 1)] = sum;
    }
    gl.activeTexture(gl.TEXTURE2);
    gl.bindTexture(gl.TEXTURE_2D, flow);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RG32F, columns, rows, 0, gl.RG, gl.FLOAT, grid);
    this.quad(this.behind, [-1, -1, 2, 2], { background: backdrop.background, body: backdrop.body, flow });
    gl.uniform4f(gl.getUniformLocation(this.behind, "plain"), ...color, 1);
    gl.uniform2f(gl.getUniformLocation(this.behind, "show"), mode === "model" ? 1 : 0, 1);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }

  // Rows of the picture go down as textures' rows do; the canvas turns them over.
  drawCanvas() {
    const { gl } = this, { width, height } = gl.canvas, high = 0.2, wide = high * this.markShape * height / width;
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, width, height);
    this.quad(this.show, [-1, -1, 2, 2], { picture: this.picture });
    gl.uniform1f(gl.getUniformLocation(this.show, "flip"), 1);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    this.quad(this.show, [0.96 - wide, 0.96 - high, wide, high], { picture: this.mark });
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }

  quad(used, place, textures) {
    const { gl } = this;
    gl.useProgram(used);
    gl.bindVertexArray(this.screen);
    gl.uniform4f(gl.getUniformLocation(used, "place"), ...place);
    this.textures(used, textures);
  }

  textures(used, images) {
    const { gl } = this;
    Object.entries(images).forEach(([name, image], unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, image);
      gl.uniform1i(gl.getUniformLocation(used, name), unit);
    });
  }

  // Waits until the last picture is drawn; takes a pixel of it, because finish() may return before.
  wait() {
    const { gl } = this;
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  }

  // The last picture without canvas and mark: bytes [size, size, 3], the first row on top. Waits for the GPU.
  read() {
    const { gl, size } = this, out = new Uint8Array(3 * size * size);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.frame);
    const from = this.deep ? new Float32Array(4 * size * size) : new Uint8Array(4 * size * size);
    gl.readPixels(0, 0, size, size, gl.RGBA, this.deep ? gl.FLOAT : gl.UNSIGNED_BYTE, from);
    for (let i = 0; i < size * size; i++) for (let c = 0; c < 3; c++) {
      out[3 * i + c] = this.deep ? Math.min(255, Math.max(0, 255 * from[4 * i + c] + 0.5)) : from[4 * i + c];
    }
    return out;
  }
}

// Bytes [3, H, W] (and alpha [H, W]) as a texture of half floats.
function picture(gl, colors, alpha) {
  const [, height, width] = colors.shape, count = width * height, rgb = floats(colors), a = alpha && floats(alpha);
  const pixels = new Float32Array(4 * count);
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) pixels[4 * i + c] = rgb[c * count + i];
    pixels[4 * i + 3] = a ? a[i] : 1;
  }
  const made = texture(gl, gl.LINEAR);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA16F, width, height, 0, gl.RGBA, gl.FLOAT, pixels);
  return made;
}

function texture(gl, filter) {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, side, filter);
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
  return made;
}

function program(gl, vertex, fragment) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(`WebGL2: ${gl.getShaderInfoLog(shader)}`);
    gl.attachShader(made, shader);
  }
  gl.bindAttribLocation(made, 0, "corner");
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(`WebGL2: ${gl.getProgramInfoLog(made)}`);
  return made;
}
