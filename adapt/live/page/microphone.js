// The microphone as pieces of 16-kHz sound, and sound files in pieces that keep a few seconds ahead of the speech.

export const RATE = 16000;

export class Microphone {
  // give(Int16Array): whether the piece was taken.
  constructor(give) {
    this.give = give;
    this.given = 0;       // samples that the server has been given since the connection was opened
    this.times = [];      // [samples given, when]: newest last
  }

  async start() {
    const wanted = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
    this.context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    await this.context.audioWorklet.addModule("microphone-worklet.js");
    const source = this.context.createMediaStreamSource(this.stream);
    this.node = new AudioWorkletNode(this.context, "gatherer", { numberOfOutputs: 0 });
    this.node.port.onmessage = (event) => this.piece(new Int16Array(event.data));
    source.connect(this.node);
    this.stream.getAudioTracks()[0].onended = () => this.stop();
  }

  piece(samples) {
    if (!this.give(samples)) return;
    this.given += samples.length;
    this.times.push([this.given, performance.now()]);
    if (this.times.length > 500) this.times.splice(0, 250);
  }

  // When the sample with this number was at the microphone, ms; NaN if that is no longer known.
  timeOf(sample) {
    const later = this.times.find(([given]) => given >= sample);
    return later ? later[1] - (later[0] - sample) / RATE * 1000 : NaN;
  }

  forget() {
    this.given = 0;
    this.times = [];
  }

  get on() { return Boolean(this.stream); }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.context?.close();
    this.stream = this.context = this.node = undefined;
  }
}

// A sound file, decoded here, so that the file itself never leaves the page.
export async function decodeFile(file) {
  const context = new AudioContext({ sampleRate: RATE });
  try {
    const sound = await context.decodeAudioData(await file.arrayBuffer());
    const samples = new Int16Array(sound.length), share = 1 / sound.numberOfChannels;
    const channels = Array.from({ length: sound.numberOfChannels }, (_, i) => sound.getChannelData(i));
    for (let i = 0; i < sound.length; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      samples[i] = Math.max(-1, Math.min(1, sum * share)) * 32767;
    }
    return samples;
  } finally {
    context.close();
  }
}

// Gives the samples in pieces of half a second, about three seconds ahead of what has been spoken.
export class Feeder {
  constructor(give) { this.give = give; }

  start(samples) {
    this.stop();
    const piece = RATE / 2, ahead = 3 * RATE, begin = performance.now();
    let at = 0;
    this.timer = setInterval(() => {
      const due = (performance.now() - begin) / 1000 * RATE + ahead;
      while (at < samples.length && at < due) {
        if (!this.give(samples.subarray(at, at + piece))) return;
        at += piece;
      }
      if (at >= samples.length) this.stop();
    }, 100);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = undefined;
  }
}
