// What is being said: sound to expressions, ahead of the frames that need them; adapt/talk/talker.py.

import { Bounds, ClosingStream, Loudness, Ridge } from "./drivers.js";
import { FRAME } from "./logmel.js";
import { Resting, SpeechActivity } from "./silence.js";

// The avatar's driver: makes streams of features and of expressions, by what openSound found.
export class Driver {
  constructor(avatar, { prior, features }) {
    const { arrays, driver } = avatar;
    this.name = prior ? driver.name : driver.regression;
    this.prior = prior;
    this.features = features;
    this.bounds = new Bounds({
      low: arrays["bounds.low"], high: arrays["bounds.high"], mean: arrays["bounds.mean"], scale: arrays["bounds.scale"],
      farthest: driver.farthest,
    });
    this.rest = arrays.rest;
    this.closing = driver.closing;
    this.voice = arrays;
    if (arrays["ridge.weight"]) {
      this.long = new Ridge(arrays, "ridge.", driver.past);
      this.quick = new Ridge(arrays, "ridge.quick.", driver.past);
      this.averaged = this.long;          // with a prior, where there is one
    } else {
      this.long = this.quick = new Loudness(arrays["loudness.rest"], arrays["loudness.jaw"]);
    }
  }

  // Expressions by the regression alone, its lips pressed as the prior's are.
  regressed(live) { return new ClosingStream((live ? this.quick : this.long).stream(), this.closing); }

  // `live`: answer after 80 ms of look-ahead, by the regression alone.
  speech(live) {
    if (!this.features) throw new Error("it is moved by sound only where the page is served (python -m http.server)");
    return new Speech(this, live);
  }
}

// One utterance. `frames` grows as sound is fed: [{expression, eyelids?, gaze?}], the first of them number `dropped`.
export class Speech {
  constructor(driver, live) {
    this.driver = driver;
    this.features = driver.features();
    this.stream = !live && driver.prior ? driver.prior.stream(driver.averaged) : driver.regressed(live);
    this.activity = new SpeechActivity(driver.voice);
    this.resting = new Resting(driver.rest);
    this.active = [];
    this.held = new Float32Array(0);
    this.frames = [];
    this.dropped = 0;
    this.finished = false;
  }

  get end() { return this.dropped + this.frames.length; }

  async feed(sound) {
    this.hear(sound);
    await this.drive(await this.features.push(sound), false);
  }

  async finish() {
    await this.drive(await this.features.finish(), true);
    this.finished = true;
  }

  hear(sound) {
    const whole = new Float32Array(this.held.length + sound.length);
    whole.set(this.held);
    whole.set(sound, this.held.length);
    let at = 0;
    for (; at + FRAME <= whole.length; at += FRAME) this.active.push(this.activity.frame(whole.slice(at, at + FRAME)));
    this.held = whole.slice(at);
  }

  async drive(rows, last) {
    const parts = [await this.stream.push(rows)];
    if (last) parts.push(await this.stream.finish());
    for (const frame of parts.flat()) {
      const rested = this.resting.frame(this.driver.bounds.apply(frame.expression), this.active.shift() ?? false);
      this.frames.push({ expression: rested });
    }
  }

  // The frame with this number, the nearest known one beyond the ends.
  at(number) {
    const index = Math.min(Math.max(number - this.dropped, 0), this.frames.length - 1);
    return this.frames[index];
  }

  // Frames before this number will not be asked for again.
  forget(number) {
    const count = Math.min(Math.max(0, number - this.dropped), this.frames.length - 1);
    if (count < 500) return;
    this.frames.splice(0, count);
    this.dropped += count;
  }
}
