/** A position in bytes that hold unsigned LEB128 numbers: 7 bits a byte, low first, at most 64 bits in 10 bytes. */
export class Cursor {
  readonly bytes: Uint8Array;
  offset: number;

  constructor(bytes: Uint8Array, offset = 0) {
    this.bytes = bytes;
    this.offset = offset;
  }

  /**
   * Exact up to 2^53 - 1; above it rounded, never below 2^53. NaN where the bytes end inside the number, Infinity where it is
   * longer than 64 bits: values, not errors, because a hostile batch can hold a malformed number every few bytes.
   */
  uint(): number {
    let value = 0;
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = this.bytes[this.offset++];
      if (byte === undefined) return Number.NaN;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    // What is left does not fit the 32 bits of the cheap operators above.
    for (let count = 5, scale = 2 ** 28; ; count++, scale *= 128) {
      const byte = this.bytes[this.offset++];
      if (byte === undefined) return Number.NaN;
      if (count === 10 && byte > 1) return Number.POSITIVE_INFINITY;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  }

  /** The exact value where `uint` only rounds; undefined where that is NaN or Infinity. */
  bigUint(): bigint | undefined {
    const start = this.offset;
    if (!Number.isFinite(this.uint())) return undefined;
    let value = 0n;
    for (let at = this.offset - 1; at >= start; at--)
      value = (value << 7n) | BigInt((this.bytes[at] ?? 0) & 0x7f);
    return value;
  }
}
