// Sound of files and of the microphone, 16 kHz mono; nothing of it leaves the page.

import { RATE } from "./logmel.js";

const WORKLET = `registerProcessor("gatherer", class extends AudioWorkletProcessor {
  process(inputs) {
    if (inputs[0][0]) this.port.postMessage(inputs[0][0].slice());
    return true;
  }
});`;

// Samples of a file: WAV at 16 kHz exactly, everything else as the browser decodes and resamples it.
export async function decode(bytes) {
  const exact = wav(bytes);
  if (exact) return exact;
  const context = new AudioContext({ sampleRate: RATE });
  try {
    const sound = await context.decodeAudioData(bytes.slice(0));
    const samples = new Float32Array(sound.length), share = 1 / sound.numberOfChannels;
    for (let c = 0; c < sound.numberOfChannels; c++) sound.getChannelData(c).forEach((value, i) => { samples[i] += share * value; });
    return samples;
  } catch {
    throw new Error("this file holds no sound that the browser can decode; give a WAV, MP3, FLAC or MP4 file");
  } finally {
    context.close();
  }
}

// A mono WAV of 16-bit or float samples at 16 kHz; null for any other.
export function wav(bytes) {
  const view = new DataView(bytes), tag = (at) => String.fromCharCode(...new Uint8Array(bytes, at, 4));
  if (bytes.byteLength < 44 || tag(0) !== "RIFF" || tag(8) !== "WAVE") return null;
  let kind, bits;
  for (let at = 12; at + 8 <= bytes.byteLength;) {
    const size = view.getUint32(at + 4, true), body = at + 8;
    if (tag(at) === "fmt ") {
      kind = view.getUint16(body, true);
      bits = view.getUint16(body + 14, true);
      if (view.getUint16(body + 2, true) !== 1 || view.getUint32(body + 4, true) !== RATE) return null;
    }
    if (tag(at) === "data") {
      const length = Math.min(size, bytes.byteLength - body);
      if (kind === 1 && bits === 16) return Float32Array.from({ length: length >> 1 }, (_, i) => view.getInt16(body + 2 * i, true) / 32768);
      if (kind === 3 && bits === 32) return Float32Array.from({ length: length >> 2 }, (_, i) => view.getFloat32(body + 4 * i, true));
      return null;
    }
    at = body + size + size % 2;
  }
  return null;
}

// Plays samples and says how far they have been heard.
export class Playback {
  constructor(samples) {
    this.context = new AudioContext({ latencyHint: "interactive" });
    const buffer = this.context.createBuffer(1, Math.max(1, samples.length), RATE);
    buffer.copyToChannel(samples, 0);
    this.source = this.context.createBufferSource();
    this.source.buffer = buffer;
    this.source.connect(this.context.destination);
    this.length = samples.length / RATE;
  }

  async start() {
    await this.context.resume();
    this.begun = this.context.currentTime + 0.05;
    this.source.start(this.begun);
  }

  // Seconds of sound that have reached the listener.
  get heard() {
    const latency = this.context.outputLatency || this.context.baseLatency || 0;
    return this.context.currentTime - this.begun - latency;
  }

  stop() {
    this.source.onended = null;
    this.context.close();
  }
}

export class Microphone {
  // give(Float32Array) gets its sound at 16 kHz.
  constructor(give) { this.give = give; }

  async start() {
    if (!navigator.mediaDevices) throw new Error("the browser gives no microphone to this address; use https, localhost or a file");
    const wanted = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
    this.context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    const source = this.context.createMediaStreamSource(this.stream);
    await this.context.audioWorklet.addModule(URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" })));
    this.node = new AudioWorkletNode(this.context, "gatherer", { numberOfOutputs: 0 });
    this.node.port.onmessage = (event) => this.give(event.data);
    source.connect(this.node);
    this.stream.getAudioTracks()[0].onended = () => this.stop();
  }

  get on() { return Boolean(this.stream); }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.context?.close();
    this.stream = this.context = this.node = undefined;
  }
}
