/** Encodes a whole number up to 2^53 - 1 as unsigned LEB128. */
export function encodeUint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80);
  return Uint8Array.from([...bytes, rest]);
}

/** Reads unsigned LEB128 numbers: 7 bits per byte, low ones first, at most 64 bits in 10 bytes. */
export class Cursor {
  readonly bytes: Uint8Array;
  offset: number;

  constructor(bytes: Uint8Array, offset = 0) {
    this.bytes = bytes;
    this.offset = offset;
  }

  /**
   * Reads a number: exact up to 2^53 - 1, above it rounded, but never below 2^53. Returns NaN if
   * the bytes end inside the number and Infinity if it is longer than 64 bits. These are values,
   * not errors, because a hostile batch can hold a malformed number every few bytes.
   */
  uint(): number {
    let value = 0;
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = this.bytes[this.offset++];
      if (byte === undefined) return Number.NaN;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    // The remaining bits do not fit into 32, which the cheap operators above are limited to.
    for (let count = 5, scale = 2 ** 28; ; count++, scale *= 128) {
      const byte = this.bytes[this.offset++];
      if (byte === undefined) return Number.NaN;
      if (count === 10 && byte > 1) return Number.POSITIVE_INFINITY;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  }

  /** Reads a number exactly, where `uint` rounds; undefined where that is NaN or Infinity. */
  bigUint(): bigint | undefined {
    const start = this.offset;
    if (!Number.isFinite(this.uint())) return undefined;
    let value = 0n;
    for (let at = this.offset - 1; at >= start; at--)
      value = (value << 7n) | BigInt((this.bytes[at] ?? 0) & 0x7f);
    return value;
  }
}
