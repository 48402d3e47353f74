// ARKit weights over time: CSV of Live Link Face, JSON of Audio2Face and LAM, as adapt/drivers/blendshapes.py reads them.

const FPS = 25, LOWEST = -1, HIGHEST = 2;
const RATES = [24, 25, 30, 48, 50, 60];
const TIMECODE = /^(\d+):(\d+):(\d+)[:;](\d+(?:\.\d+)?)$/;
const OTHERS = new Set(["timecode", "blendshapecount", "_neutral", "neutral"]);
for (const part of ["head", "lefteye", "righteye"]) for (const angle of ["yaw", "pitch", "roll"]) OTHERS.add(part + angle);

// Frames [{expression, eyelids, gaze}] at 25 a second from the text of a file.
export function readBlendshapes(name, text, avatar) {
  const { arkit } = avatar;
  if (!arkit) throw new Error("this avatar's rig has no map from ARKit weights");
  const { names, rows, times } = name.toLowerCase().endsWith(".json") ? fromJson(text) : fromCsv(text, arkit);
  return atRate(sorted(names, rows, arkit.names), times).map((weights) => face(weights, avatar));
}

function fromCsv(text, arkit) {
  const lines = text.replace(/^\ufeff/, "").split(/\r?\n/).filter((line) => line.trim());
  if (lines.length < 2) throw new Error(`${lines.length} lines; expected a header and a line per frame`);
  const cells = lines.map((line) => line.split(",").map((cell) => cell.trim())), names = cells[0];
  const stamped = names[0].toLowerCase() === "timecode";
  const rows = cells.slice(1).map((row, i) => {
    if (row.length !== names.length) throw new Error(`line ${i + 2}: ${row.length} cells, the header has ${names.length}`);
    return row.map((cell, c) => {
      if (stamped && c === 0) return 0;
      if (cell === "" || Number.isNaN(Number(cell))) throw new Error(`line ${i + 2}, column ${names[c]}: '${cell.slice(0, 20)}' is not a number`);
      return Number(cell);
    });
  });
  const times = stamped ? stamps(cells.slice(1).map((row) => row[0])) : rows.map((_, i) => (i + 0.5) / arkit.csv_fps);
  return { names, rows, times };
}

function stamps(codes) {
  const parts = codes.map((code, i) => {
    const match = TIMECODE.exec(code);
    if (!match) throw new Error(`line ${i + 2}: timecode '${code.slice(0, 20)}'; expected HH:MM:SS:FF`);
    return match.slice(1).map(Number);
  });
  const whole = parts.map(([h, m, s]) => h * 3600 + m * 60 + s), most = Math.max(...parts.map((part) => part[3]));
  const rate = whole.at(-1) - whole[0] < 2 ? 60 : RATES.find((each) => Math.floor(most) < each) ?? Math.floor(most) + 1;
  const times = parts.map((part, i) => whole[i] + part[3] / rate);
  times.forEach((time, i) => { if (i && time <= times[i - 1]) throw new Error(`line ${i + 2}: its timecode is not later than that of the line before`); });
  return times.map((time) => time - times[0] + 0.5 / rate);
}

function fromJson(text) {
  let file;
  try { file = JSON.parse(text); } catch (error) { throw new Error(`no JSON (${error.message})`); }
  let names, rows, fps;
  if (file?.facsNames && file?.weightMat) [names, rows, fps] = [file.facsNames, file.weightMat, file.exportFps ?? 30];
  else if (file?.metadata && file?.frames) {
    names = file.metadata.blendshape_names ?? file.names ?? [];
    [rows, fps] = [file.frames.map((frame) => frame?.weights), file.metadata.fps ?? 30];
  } else throw new Error("expected the keys facsNames and weightMat (Audio2Face) or metadata and frames (LAM)");
  if (!rows.length || !rows.every((row) => Array.isArray(row) && row.length === names.length && row.every(Number.isFinite))) {
    throw new Error(`expected rows of ${names.length} weights`);
  }
  if (!(fps >= 1 && fps <= 1000)) throw new Error(`${fps} frames a second; expected 1 to 1000`);
  return { names, rows, times: rows.map((_, i) => (i + 0.5) / fps) };
}

// Rows in the order of ARKit's 52 names, each a weight in [0, 1].
function sorted(names, rows, known) {
  const place = new Map(known.map((name, i) => [name.toLowerCase(), i])), seen = new Set();
  const weights = rows.map(() => new Float32Array(known.length));
  names.forEach((name, column) => {
    const key = String(name).toLowerCase();
    if (OTHERS.has(key)) return;
    if (!place.has(key)) throw new Error(`'${name}' is none of the 52 ARKit names`);
    if (seen.has(key)) throw new Error(`the name '${name}' stands there twice`);
    seen.add(key);
    rows.forEach((row, i) => {
      const value = row[column];
      if (!(value >= LOWEST && value <= HIGHEST)) throw new Error(`${name} is ${value} in frame ${i}; expected weights from 0 to 1`);
      weights[i][place.get(key)] = Math.min(1, Math.max(0, value));
    });
  });
  if (!seen.size) throw new Error(`none of the 52 ARKit names, such as ${known[17]}`);
  return weights;
}

// Weights at the middles of frames, linear in time; the ends are held.
function atRate(weights, times) {
  const gaps = times.slice(1).map((time, i) => time - times[i]).sort((a, b) => a - b), half = gaps.length >> 1;
  const step = !gaps.length ? 1 / FPS : gaps.length % 2 ? gaps[half] : (gaps[half - 1] + gaps[half]) / 2;
  // Python's round: halves go to the even number.
  const exact = (times.at(-1) + step / 2) * FPS, floor = Math.floor(exact);
  const count = Math.max(1, exact - floor === 0.5 ? floor + floor % 2 : Math.round(exact));
  let j = 0;
  return Array.from({ length: count }, (_, t) => {
    const moment = (t + 0.5) / FPS;
    while (j < times.length - 2 && times[j + 1] < moment) j++;
    const share = times.length < 2 ? 0 : Math.min(1, Math.max(0, (moment - times[j]) / (times[j + 1] - times[j])));
    const next = weights[Math.min(j + 1, times.length - 1)];
    return weights[j].map((value, i) => value + share * (next[i] - value));
  });
}

function face(weights, { arkit, arrays }) {
  const of = (name) => weights[arkit.names.indexOf(name)], map = arrays["arkit.expression"], size = map.length / weights.length;
  const expression = Array.from({ length: size }, (_, k) => weights.reduce((sum, w, i) => sum + w * map[i * size + k], 0));
  const eyelids = ["Left", "Right"].map((side) => of(`eyeBlink${side}`) - arkit.wide * of(`eyeWide${side}`));
  const gaze = [["Left", 1], ["Right", -1]].flatMap(([side, outwards]) => [
    arkit.gaze * outwards * (of(`eyeLookOut${side}`) - of(`eyeLookIn${side}`)),
    arkit.gaze * (of(`eyeLookDown${side}`) - of(`eyeLookUp${side}`)),
  ]);
  return { expression, eyelids, gaze };
}

// Weights in the place of a Speech: a finished one with a frame for every row.
export class Weights {
  constructor(frames) { Object.assign(this, { frames, finished: true }); }

  get end() { return this.frames.length; }

  at(number) { return this.frames[Math.min(Math.max(number, 0), this.frames.length - 1)]; }
}
