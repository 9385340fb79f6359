/** Reads and writes the part of WebSocket framing (RFC 6455) that subscribers need. */

export const OPCODE = { text: 1, close: 8, ping: 9, pong: 10 } as const;

const MASKED = 0x80;
const FINAL = 0x80;
const LENGTH_16 = 126;
const LENGTH_64 = 127;

export type Frame = { opcode: number; start: number; end: number };

// One object for all frames saves allocations: callers use it before they read the next frame.
const frame: Frame = { opcode: 0, start: 0, end: 0 };

/**
 * Reads the frame of a server, which has no mask, at `at`. Returns undefined while it is
 * incomplete; the result is valid until the next call.
 */
export function readFrame(bytes: Buffer, at: number): Frame | undefined {
  if (bytes.length - at < 2) return undefined;
  let start = at + 2;
  let length = (bytes[at + 1] ?? 0) & 0x7f;
  if (length === LENGTH_16) {
    if (bytes.length - at < 4) return undefined;
    length = bytes.readUInt16BE(at + 2);
    start += 2;
  } else if (length === LENGTH_64) {
    if (bytes.length - at < 10) return undefined;
    length = Number(bytes.readBigUInt64BE(at + 2));
    start += 8;
  }
  if (start + length > bytes.length) return undefined;
  frame.opcode = (bytes[at] ?? 0) & 0x0f;
  frame.start = start;
  frame.end = start + length;
  return frame;
}

/** Builds a client's frame, which must be masked: a mask of zeros leaves the text unchanged. */
export function clientFrame(opcode: number, text: string): Uint8Array {
  const payload = new TextEncoder().encode(text);
  const extended = payload.length >= LENGTH_16;
  const head = extended
    ? [FINAL | opcode, MASKED | LENGTH_16, payload.length >> 8, payload.length & 0xff]
    : [FINAL | opcode, MASKED | payload.length];
  return Uint8Array.from([...head, 0, 0, 0, 0, ...payload]);
}
