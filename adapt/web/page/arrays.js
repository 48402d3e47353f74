// The avatar's arrays: one block of bytes, described by the document's `entries`; adapt/web/arrays.py writes it.

const READERS = {
  f32: (buffer, at, n) => new Float32Array(buffer, at, n),
  f16: (buffer, at, n) => fromHalf(new Uint16Array(buffer, at, n)),
  i8: (buffer, at, n) => new Int8Array(buffer, at, n),
  u8: (buffer, at, n) => new Uint8Array(buffer, at, n),
  u16: (buffer, at, n) => new Uint16Array(buffer, at, n),
  u32: (buffer, at, n) => new Uint32Array(buffer, at, n),
};

// {name: typed array}; quantised ones stay integers with `step` (one per row) and `low`: value = low + step * integer.
export function readArrays(entries, buffer) {
  const arrays = {};
  for (const [name, { type, shape, at, low, step }] of Object.entries(entries)) {
    const count = shape.reduce((a, b) => a * b, 1);
    const values = READERS[type](buffer, at, count);
    arrays[name] = Object.assign(values, { shape, low, step });
  }
  return arrays;
}

// A quantised array as floats.
export function floats(array) {
  if (!array.step) return array instanceof Float32Array ? array : Float32Array.from(array);
  const out = new Float32Array(array.length), row = array.length / array.step.length;
  for (let i = 0; i < out.length; i++) out[i] = array.low + array.step[Math.floor(i / row)] * array[i];
  return out;
}

let table;

function fromHalf(halves) {
  table ??= halfTable();
  const out = new Float32Array(halves.length);
  for (let i = 0; i < out.length; i++) out[i] = table[halves[i]];
  return out;
}

function halfTable() {
  const values = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent === 0) values[bits] = sign * fraction * 2 ** -24;
    else if (exponent === 31) values[bits] = fraction ? NaN : sign * Infinity;
    else values[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return values;
}
