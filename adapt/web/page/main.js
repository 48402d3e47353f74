// The page: what is heard, what is set, and a frame whenever the clock or a setting asks for one.

import { readBlendshapes, Weights } from "./blendshapes.js";
import { Head } from "./head.js";
import { forLips } from "./level.js";
import { RATE } from "./logmel.js";
import { drawMark } from "./mark.js";
import { Motion } from "./motion.js";
import { openAvatar } from "./open.js";
import { Panel } from "./panel.js";
import { Player } from "./player.js";
import { openSound } from "./prior.js";
import { openRenderer } from "./renderer.js";
import { decode, Microphone, Playback } from "./sound.js";
import { Driver } from "./speech.js";

const AHEAD = 2;                 // seconds that are driven before a file begins to be heard
const PIECE = RATE;              // samples that are driven at a time

const element = (id) => document.getElementById(id);

export async function start(packed, begun) {
  const avatar = await openAvatar(packed), head = new Head(avatar), motion = new Motion(avatar);
  const { renderer, reason } = openRenderer(element("frame"), avatar, drawMark(), head, motion);
  const player = new Player(avatar, head, renderer, motion, begun);
  player.render();
  element("renderer").textContent = `Drawn by ${renderer.name}.${reason}`;
  const page = new Page(avatar, player);
  self.headstart = { avatar, player, page, decode };
  await page.open();
}

function say(text) { element("notice").textContent = text; }

class Page {
  constructor(avatar, player) {
    Object.assign(this, { avatar, player, panel: new Panel(avatar, player) });
    this.microphone = new Microphone((sound) => this.hear(sound));
    element("file").onchange = (event) => this.take(event.target);
    element("weights").onchange = (event) => this.take(event.target);
    element("weights-label").hidden = !avatar.arkit;
    element("microphone").onclick = () => this.toggle();
    element("stop").onclick = () => this.stop();
    this.dropping(element("frame"));
  }

  async open() {
    const sound = await openSound(this.avatar);
    this.driver = new Driver(this.avatar, sound);
    const name = sound.features ? this.driver.name : "sliders and weights alone";
    element("driver").textContent = `Moved by: ${name}.${sound.reason ? ` ${sound.reason}` : ""}`;
    say("");
    this.player.run();
  }

  take(input) {
    const [file] = input.files;
    input.value = "";
    if (file) this.play(file);
  }

  dropping(place) {
    place.ondragover = (event) => { event.preventDefault(); place.classList.add("dropping"); };
    place.ondragleave = () => place.classList.remove("dropping");
    place.ondrop = (event) => {
      event.preventDefault();
      place.classList.remove("dropping");
      if (event.dataTransfer.files[0]) this.play(event.dataTransfer.files[0]);
    };
  }

  // A file of sound or of weights.
  async play(file) {
    this.stop();
    say("");
    try {
      if (/\.(csv|json)$/i.test(file.name)) this.player.follow(new Weights(readBlendshapes(file.name, await file.text(), this.avatar)));
      else await this.speak(await decode(await file.arrayBuffer()));
    } catch (error) {
      say(`${file.name}: ${error.message}`);
    }
  }

  // Lets the head say samples at 16 kHz; what comes is driven while the beginning is heard.
  async speak(samples) {
    if (samples.length < RATE / 25) throw new Error("shorter than one frame (40 ms); give a longer sound");
    if (!samples.some((value) => Math.abs(value) > 1e-4)) throw new Error("silent from beginning to end; give a recording of speech");
    const speech = this.driver.speech(false), playback = new Playback(samples), heard = forLips(samples, this.avatar.driver.level);
    this.speaking = speech;
    let begun = false;
    for (let at = 0; at < samples.length && this.speaking === speech; at += PIECE) {
      await speech.feed(heard.subarray(at, at + PIECE));
      if (!begun && speech.end > 25 * AHEAD) begun = await this.begin(speech, playback);
      await new Promise((resolve) => setTimeout(resolve));
    }
    if (this.speaking !== speech) return;
    await speech.finish();
    if (!begun && this.speaking === speech) await this.begin(speech, playback);
  }

  async begin(speech, playback) {
    await playback.start();
    this.player.follow(speech, playback);
    return true;
  }

  async toggle() {
    if (this.microphone.on) return this.stop();
    this.stop();
    try {
      await this.microphone.start();
      this.speaking = this.driver.speech(true);
      this.player.follow(this.speaking, null, true);
      element("microphone").setAttribute("aria-pressed", "true");
    } catch (error) {
      say(`Microphone: ${error.message}`);
    }
  }

  hear(sound) { this.speaking?.feed(sound); }

  stop() {
    this.microphone.stop();
    element("microphone").setAttribute("aria-pressed", "false");
    this.speaking = undefined;
    this.player.rest();
  }
}
