// Gathers the microphone's sound into pieces of 20 ms and passes them on as int16.

const PIECE = 320;

class Gatherer extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Int16Array(PIECE);
    this.filled = 0;
  }

  process(inputs) {
    for (const value of inputs[0][0] ?? []) {
      this.piece[this.filled++] = Math.max(-1, Math.min(1, value)) * 32767;
      if (this.filled === PIECE) {
        this.port.postMessage(this.piece.buffer, [this.piece.buffer]);
        this.piece = new Int16Array(PIECE);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("gatherer", Gatherer);
