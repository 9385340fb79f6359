// Frame format of RFC 8878, 3.1. Checked here because Bun's decoder accepts a truncated frame.
const MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50;
const MAGIC_BYTES = 4;
const CHECKSUM_BYTES = 4;
const BLOCK_HEADER_BYTES = 3;
const DICTIONARY_BYTES = [0, 1, 2, 4];
const CONTENT_SIZE_BYTES = [0, 2, 4, 8];
// Largest window that RFC 9659 requires for zstd over HTTP; a frame may ask for up to 2^41 bytes.
const WINDOW_BYTES_MAX = 8 * 2 ** 20;
const RLE = 1;
const HEAD_BYTES_MAX = 14;

/** Follows the structure of Zstandard frames over chunks, without inflating them. */
export class ZstdFrames {
  readonly #head = Buffer.alloc(HEAD_BYTES_MAX);
  #have = 0;
  #need = MAGIC_BYTES;
  #skip = 0;
  #step: () => void = () => this.#begin();
  #hasChecksum = false;
  #frames = 0;
  /** True once the frames have ended and something else follows. */
  #isOver = false;

  /**
   * Returns how many of the bytes belong to frames; everything after those is outside. Throws
   * RangeError for invalid frames.
   */
  take(bytes: Uint8Array): number {
    for (let at = 0; ;) {
      if (this.#isOver) return at;
      const skipped = Math.min(this.#skip, bytes.length - at);
      this.#skip -= skipped;
      at += skipped;
      if (this.#skip > 0) return at;
      // Zero padding: no frame begins with a zero byte.
      if (this.isComplete && bytes[at] === 0) this.#isOver = true;
      else {
        const piece = bytes.subarray(at, at + this.#need - this.#have);
        this.#head.set(piece, this.#have);
        this.#have += piece.length;
        at += piece.length;
        if (this.#have < this.#need) return at;
        this.#step();
      }
    }
  }

  /** True if the bytes so far are complete frames, at least one. */
  get isComplete(): boolean {
    return this.#frames > 0 && this.#have === 0 && this.#skip === 0 && this.#need === MAGIC_BYTES;
  }

  #expect(need: number, step: () => void): void {
    this.#have = 0;
    this.#need = need;
    this.#step = step;
  }

  #begin(): void {
    const magic = this.#head.readUInt32LE();
    if (magic === MAGIC) this.#expect(1, () => this.#descriptor());
    else if ((magic & ~0xf) >>> 0 === SKIPPABLE_MAGIC)
      this.#expect(4, () => this.#end(this.#head.readUInt32LE()));
    else throw new RangeError("not a zstd frame");
  }

  #descriptor(): void {
    const descriptor = this.#head.readUInt8();
    const isSingle = (descriptor & 0x20) !== 0;
    const sizeBytes =
      isSingle && descriptor >> 6 === 0 ? 1 : (CONTENT_SIZE_BYTES[descriptor >> 6] ?? 0);
    const before = (isSingle ? 0 : 1) + (DICTIONARY_BYTES[descriptor & 3] ?? 0);
    this.#hasChecksum = (descriptor & 0x04) !== 0;
    this.#expect(before + sizeBytes, () => {
      const window = isSingle ? this.#contentSize(before, sizeBytes) : this.#window();
      if (window > WINDOW_BYTES_MAX) throw new RangeError("the zstd window is too large");
      this.#expect(BLOCK_HEADER_BYTES, () => this.#block());
    });
  }

  #window(): number {
    const descriptor = this.#head.readUInt8();
    const base = 2 ** (10 + (descriptor >> 3));
    return base + (base / 8) * (descriptor & 7);
  }

  #contentSize(at: number, bytes: number): number {
    if (bytes === 8) return Number(this.#head.readBigUInt64LE(at));
    return this.#head.readUIntLE(at, bytes) + (bytes === 2 ? 256 : 0);
  }

  #block(): void {
    const header = this.#head.readUIntLE(0, BLOCK_HEADER_BYTES);
    const type = (header >> 1) & 3;
    const bytes = type === RLE ? 1 : header >> 3;
    if ((header & 1) === 1) this.#end(bytes + (this.#hasChecksum ? CHECKSUM_BYTES : 0));
    else {
      this.#expect(BLOCK_HEADER_BYTES, () => this.#block());
      this.#skip = bytes;
    }
  }

  #end(skip: number): void {
    this.#frames++;
    this.#expect(MAGIC_BYTES, () => this.#begin());
    this.#skip = skip;
  }
}
