// Shows frames in step with their sound: audible ones by the audio clock, silent ones as soon as they come.

import { RATE } from "./microphone.js";

const FRAME = 40;             // ms
const LEAST_LEAD = 40, MOST_LEAD = 240;  // ms of sound that is scheduled ahead
// Sound that accumulated during a stall of the machine or network is played a little faster until it has caught up.
const BEHIND = 60, FASTER = 1.05;        // ms beyond the lead; share of the usual speed
const KEPT = 40;              // frames that may wait; a hidden tab shows none
const REMEMBERED = 5000;      // measurements

export class Player {
  // shown(frame, now) is called when a frame is on the canvas.
  constructor(canvas, shown) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d", { alpha: false });
    this.shown = shown;
    this.monitor = false;
    this.patience = 10_000;   // ms for the browser to start its sound
    this.reset();
    this.offsets = [];        // ms that pictures are behind (+) or before (-) their sound
    const draw = () => { this.draw(); requestAnimationFrame(draw); };
    requestAnimationFrame(draw);
  }

  reset() {
    this.waiting = [];
    this.lastDue = 0;
    this.nextSound = 0;       // audio clock, s
    this.lead = LEAST_LEAD;
    this.late = 0;            // pieces of sound that came too late and were played at once
  }

  // Browsers let a page be heard only after a click or key. Resolves to whether it is: a busy machine may take seconds to
  // start the sound, and what would be played before is not heard.
  unlock() {
    this.audio ??= new AudioContext({ latencyHint: "interactive" });
    const started = this.audio.resume().then(() => true, () => false);
    return Promise.race([started, new Promise((resolve) => setTimeout(resolve, this.patience, false))]);
  }

  add(frame) {
    const now = performance.now();
    const audible = frame.sound.length > 0 && this.audio?.state === "running" && (this.monitor || !frame.live);
    if (audible) {
      const at = this.schedule(frame.sound);
      const latency = this.audio.outputLatency || this.audio.baseLatency || 0;
      frame.due = frame.soundAt = now + (at - this.audio.currentTime + latency) * 1000;
    } else {
      // Behind what is still being heard, and closing up to it.
      frame.due = Math.max(now, Math.min(this.lastDue + 0.75 * FRAME, now + MOST_LEAD));
    }
    this.lastDue = frame.due;
    frame.picture?.then((bitmap) => { frame.bitmap = bitmap; }, () => { frame.picture = null; });
    this.waiting.push(frame);
    while (this.waiting.length > KEPT) this.waiting.shift().bitmap?.close();
  }

  // Plays a frame's sound after the previous frame's; returns its time on the audio clock. No sound is ever left out.
  schedule(sound) {
    const buffer = this.audio.createBuffer(1, sound.length, RATE), samples = buffer.getChannelData(0);
    for (let i = 0; i < sound.length; i++) samples[i] = sound[i] / 32768;
    const now = this.audio.currentTime;
    if (this.nextSound < now) {
      const underrun = this.nextSound > now - 0.5;
      if (underrun) { this.late += 1; this.lead = Math.min(MOST_LEAD, this.lead + 20); }
      this.nextSound = now + this.lead / 1000;
    } else {
      // The lead that a stall added is reduced again, by 1 ms per second of sound.
      this.lead = Math.max(LEAST_LEAD, this.lead - sound.length / RATE);
    }
    const source = this.audio.createBufferSource(), at = this.nextSound;
    const speed = (at - now) * 1000 > this.lead + BEHIND ? FASTER : 1;
    source.buffer = buffer;
    source.playbackRate.value = speed;
    source.connect(this.audio.destination);
    source.start(at);
    this.nextSound += sound.length / RATE / speed;
    return at;
  }

  draw() {
    const now = performance.now();
    let newest = -1;
    this.waiting.forEach((frame, i) => { if (frame.due <= now + 8 && frame.bitmap) newest = i; });
    if (newest < 0) return;
    const past = this.waiting.splice(0, newest + 1), frame = past.pop();
    past.forEach((old) => old.bitmap?.close());
    this.paint(frame.bitmap);
    frame.bitmap.close();
    if (frame.soundAt !== undefined) remember(this.offsets, now - frame.soundAt);
    this.shown(frame, now);
  }

  paint(bitmap) {
    const { canvas, pen } = this;
    if (canvas.width !== 2 * bitmap.width) canvas.width = canvas.height = 2 * bitmap.width;
    pen.imageSmoothingQuality = "low";  // bilinear: "high" takes 8 ms of the page's thread a frame
    pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    label(pen, canvas.width);
  }
}

// Part of the picture itself: whoever sees the head sees that it is not a person.
function label(pen, size) {
  // Over the smaller label that is burnt into the pictures themselves.
  const high = Math.round(size * 0.092), margin = Math.round(size * 0.025), text = "AI · synthetic";
  pen.font = `700 ${Math.round(high * 0.56)}px system-ui, sans-serif`;
  const wide = pen.measureText(text).width + high, left = size - wide - margin;
  pen.fillStyle = "#000";
  pen.fillRect(left, margin, wide, high);
  pen.fillStyle = "#ffb020";
  pen.textBaseline = "middle";
  pen.fillText(text, left + high / 2, margin + high / 2 + 1);
}

export function remember(values, value) {
  values.push(value);
  if (values.length > REMEMBERED) values.splice(0, values.length - REMEMBERED);
}

export function median(values) {
  if (!values.length) return NaN;
  const sorted = Float64Array.from(values).sort();
  return sorted[sorted.length >> 1];
}
