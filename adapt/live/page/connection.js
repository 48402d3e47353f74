// The socket to the server: messages as adapt/live/protocol.py defines them, and reconnecting after a loss.

export const LIVE = 1, QUEUED = 2;
const BUSY = 1013, BUSY_WAIT = 2000;  // close code; ms until the next try
const HEADER_BYTES = 28, SPEAKING = 1, FROM_MICROPHONE = 2;

export class Connection {
  // handlers: { frame(frame), message(object), state(text) }
  constructor(handlers) {
    this.handlers = handlers;
    this.tries = 0;
    this.open();
  }

  open() {
    const address = new URL("ws", location.href);
    address.protocol = "ws:";
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => { this.tries = 0; this.handlers.state("connected"); };
    this.socket.onmessage = (event) => {
      if (event.data instanceof ArrayBuffer) this.handlers.frame(parseFrame(event.data));
      else this.handlers.message(JSON.parse(event.data));
    };
    this.socket.onclose = (event) => this.lost(event);
  }

  lost(event) {
    if (event.code === BUSY) {  // the server has said so
      setTimeout(() => this.open(), BUSY_WAIT);
      return;
    }
    this.handlers.state("the connection is lost; trying again");
    const wait = Math.min(5000, 250 * 2 ** this.tries++);
    setTimeout(() => this.open(), wait);
  }

  get ready() { return this.socket.readyState === WebSocket.OPEN; }

  send(type, fields = {}) {
    if (this.ready) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  // kind: LIVE or QUEUED; samples: Int16Array at 16 kHz. Returns false, and sends nothing, while more than 1 MiB waits.
  sendSound(kind, samples) {
    if (!this.ready || this.socket.bufferedAmount > 1 << 20) return false;
    const message = new Uint8Array(1 + samples.byteLength);
    message[0] = kind;
    message.set(new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength), 1);
    this.socket.send(message);
    return true;
  }
}

function parseFrame(data) {
  const view = new DataView(data);
  const flags = view.getUint8(22), soundBytes = view.getUint32(24, true);
  const picture = data.byteLength > HEADER_BYTES + soundBytes
    ? createImageBitmap(new Blob([new Uint8Array(data, HEADER_BYTES + soundBytes)], { type: "image/jpeg" })) : null;
  return {
    number: view.getUint32(0, true),
    heard: Number(view.getBigUint64(4, true)),
    engineDelay: view.getUint16(20, true),
    speaking: Boolean(flags & SPEAKING),
    live: Boolean(flags & FROM_MICROPHONE),
    sound: new Int16Array(data.slice(HEADER_BYTES, HEADER_BYTES + soundBytes)),
    picture,
    arrived: performance.now(),
  };
}
