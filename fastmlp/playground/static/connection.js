// The WebSocket to the session: texts are JSON, frames are a header and arrays (fastmlp/playground/frames.py).

const TYPES = { uint8: Uint8Array, float32: Float32Array };

export function unpacked(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let at = padded(4 + length);
  for (const { name, dtype, shape } of header.arrays) {
    const n = shape.reduce((product, size) => product * size, 1);
    header[name] = new TYPES[dtype](buffer, at, n);
    at = padded(at + n * TYPES[dtype].BYTES_PER_ELEMENT);
  }
  return header;
}

const padded = (n) => n + (-n & 7);

export class Connection {
  // `on` has a function for each type of message, and `open` and `closed`.
  constructor(on) {
    this.socket = new WebSocket(`ws://${location.host}/session`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => on.open();
    this.socket.onclose = (event) => on.closed(event.code);
    this.socket.onmessage = ({ data }) => {
      const message = typeof data === "string" ? JSON.parse(data) : unpacked(data);
      on[message.type](message);
    };
  }

  send(type, more = {}) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type, ...more }));
  }
}
