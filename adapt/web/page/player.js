// Which frame is shown: by the clock of the sound, by the newest of the microphone, or at rest by the time.

import { poseVector } from "./motion.js";
import { FPS } from "./poses.js";

const KEPT = 250;                // times of frames that are remembered

export class Player {
  constructor(avatar, head, renderer, motion, begun) {
    Object.assign(this, { avatar, head, renderer, motion, begun });
    this.number = 0;
    this.shown = -1;
    this.dirty = true;
    this.times = {};
    this.moments = [];
    this.since = performance.now();
  }

  // Follow a Speech or weights: by a playback's clock, live, or from now on.
  follow(said, playback = null, live = false) {
    this.rest();
    this.motion.speech = said;
    Object.assign(this, { playback, live, since: performance.now(), dirty: true });
  }

  // Back to rest, which goes on from the frame that is shown.
  rest() {
    this.playback?.stop();
    this.motion.speech = this.playback = null;
    this.live = false;
    this.since = performance.now() - this.number * 1000 / FPS;
    this.dirty = true;
  }

  // The frame that is due.
  due(now) {
    const { motion: { speech }, playback, live } = this;
    if (live) return speech.end - 1;
    const number = Math.floor((playback ? playback.heard : (now - this.since) / 1000) * FPS);
    if (speech?.finished && number >= speech.end) {
      this.rest();
      return this.number;
    }
    return Math.max(0, number);
  }

  run() {
    const step = (now) => {
      const number = this.due(now);
      if (number >= 0 && (number !== this.number || this.dirty)) {
        this.number = number;
        this.render();
      }
      this.show(now);
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  // Draws the frame `number`.
  render() {
    const begin = performance.now(), { row, vector } = this.motion.at(this.number), moved = performance.now();
    this.head.set(row, vector);
    const bound = performance.now();
    this.seen = this.renderer.draw(this.head, poseVector(vector));
    const end = performance.now();
    this.dirty = false;
    this.remember({ motion: moved - begin, head: bound - moved, ...this.renderer.times, total: end - begin });
    this.moments.push(end);
    this.first ??= end - this.begun;
    if (this.live) this.motion.speech.forget(this.number - 50);
  }

  // Bytes [size, size, 3] of a frame, without the canvas and its mark.
  picture(number) {
    this.number = number;
    this.render();
    return this.renderer.read();
  }

  remember(times) {
    for (const [name, value] of Object.entries(times)) {
      const kept = this.times[name] ??= [];
      kept.push(value);
      if (kept.length > KEPT) kept.shift();
    }
  }

  show(now) {
    if (now - (this.told ?? 0) < 500) return;
    this.told = now;
    while (this.moments.length && this.moments[0] < now - 2000) this.moments.shift();
    const last = this.times.total?.slice(-25) ?? [];
    document.getElementById("fps").textContent = (this.moments.length / 2).toFixed(0);
    document.getElementById("cost").textContent = last.length ? `${(last.reduce((a, b) => a + b) / last.length).toFixed(1)} ms` : "–";
    document.getElementById("clock").textContent = this.motion.speech ? `${(this.number / FPS).toFixed(1)} s` : "at rest";
  }
}
