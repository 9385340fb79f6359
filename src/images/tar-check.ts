import { Writable } from "node:stream";

const BLOCK_BYTES = 512;
const ENTRIES_MAX = 1000;
// Extension headers (long names and attributes): their number at most, and the bytes of each; a
// path of 4 KiB fits several times.
const EXTENSIONS_MAX = 2 * ENTRIES_MAX;
const EXTENSION_BYTES_MAX = 16 * 1024;

// Positions of header fields: pax(1), "ustar interchange format".
const SIZE = { at: 124, bytes: 12 };
const CHECKSUM = { at: 148, bytes: 8 };
const TYPE_AT = 156;
const PAX = "x";
const EXTENSIONS = new Set([PAX, "g", "L", "K"]);
const FOLDER = "5";
const SPARSE = "S";
const OCTAL = /^[ \0]*(?:([0-7]+)[ \0]*)?$/;
const LENGTH = /^\d+(?= )/;
const LENGTH_DIGITS_MAX = 8;
const PAX_SIZE = /^size=(\d{1,15})$/;

/**
 * Checks a tar archive header by header, without buffering the files. Fails if it is not a tar
 * archive, or has too many or too large headers.
 */
export function tarEntries(): Writable {
  const walk = new TarWalk();
  return new Writable({
    write(chunk: Buffer, _encoding, done) {
      done(failureOf(() => walk.write(chunk)));
    },
    final: (done) => done(failureOf(() => walk.end())),
  });
}

function failureOf(step: () => void): Error | undefined {
  try {
    step();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

type Pax = { bytes: Buffer; have: number; padding: number };

class TarWalk {
  readonly #block = Buffer.alloc(BLOCK_BYTES);
  #have = 0;
  /** Bytes of the current entry still to skip. */
  #skip = 0;
  /** PAX header being read: it may contain the size of the next entry. */
  #pax: Pax | undefined;
  #paxSize: number | undefined;
  #entries = 0;
  #extensions = 0;

  write(chunk: Buffer): void {
    for (let at = 0; at < chunk.length;) {
      const skipped = Math.min(this.#skip, chunk.length - at);
      this.#skip -= skipped;
      at += skipped;
      if (this.#pax !== undefined) at += this.#readPax(this.#pax, chunk.subarray(at));
      else {
        const copied = chunk.copy(this.#block, this.#have, at, at + BLOCK_BYTES - this.#have);
        this.#have += copied;
        at += copied;
        if (this.#have === BLOCK_BYTES) this.#readHeader();
      }
    }
  }

  end(): void {
    if (this.#have > 0 || this.#skip > 0 || this.#pax !== undefined)
      throw new Error("the tar is cut short");
  }

  #readHeader(): void {
    this.#have = 0;
    const block = this.#block;
    // Zero blocks mark the end of the archive and pad it.
    if (block.every((byte) => byte === 0)) return;
    if (numberIn(block, CHECKSUM) !== checksumOf(block)) throw new Error("no tar header");
    const type = String.fromCharCode(block[TYPE_AT] ?? 0);
    const size = numberIn(block, SIZE);
    if (type === SPARSE) throw new Error("a sparse file");
    if (EXTENSIONS.has(type)) this.#beginExtension(type, size);
    else this.#beginEntry(type, this.#paxSize ?? size);
  }

  #beginExtension(type: string, size: number): void {
    if (++this.#extensions > EXTENSIONS_MAX || size > EXTENSION_BYTES_MAX)
      throw new Error("too many or too large headers");
    if (type === PAX && size > 0)
      this.#pax = { bytes: Buffer.alloc(size), have: 0, padding: paddingOf(size) };
    else this.#skip = size + paddingOf(size);
  }

  #beginEntry(type: string, size: number): void {
    if (++this.#entries > ENTRIES_MAX) throw new Error("too many entries");
    this.#paxSize = undefined;
    this.#skip = type === FOLDER ? 0 : size + paddingOf(size);
  }

  /** Returns the number of bytes consumed. */
  #readPax(pax: Pax, chunk: Buffer): number {
    const copied = chunk.copy(pax.bytes, pax.have);
    pax.have += copied;
    if (pax.have === pax.bytes.length) {
      this.#paxSize = paxSizeOf(pax.bytes);
      this.#skip = pax.padding;
      this.#pax = undefined;
    }
    return copied;
  }
}

/**
 * Reads octal digits or GNU's binary format, which has the first bit set. Throws if the field is
 * neither, or too large for a file.
 */
function numberIn(block: Buffer, { at, bytes }: { at: number; bytes: number }): number {
  const field = block.subarray(at, at + bytes);
  if (field[0] === 0x80) {
    const value = field.readUIntBE(bytes - 6, 6);
    if (field.subarray(1, bytes - 6).some((byte) => byte !== 0))
      throw new Error("a size too large");
    return value;
  }
  const found = OCTAL.exec(field.toString("latin1"));
  if (found === null) throw new Error("no number");
  return Number.parseInt(found[1] ?? "0", 8);
}

/** Sums all bytes, with the checksum field itself taken as spaces. */
function checksumOf(block: Buffer): number {
  const end = CHECKSUM.at + CHECKSUM.bytes;
  let sum = CHECKSUM.bytes * 0x20;
  for (const byte of block.subarray(0, CHECKSUM.at)) sum += byte;
  for (const byte of block.subarray(end)) sum += byte;
  return sum;
}

/** Reads the size from PAX records like `18 size=1234567\n`; undefined if there is none. */
function paxSizeOf(bytes: Buffer): number | undefined {
  let size: number | undefined;
  for (let at = 0; at < bytes.length;) {
    const space = bytes.indexOf(0x20, at);
    const [digits] = LENGTH.exec(bytes.toString("latin1", at, at + LENGTH_DIGITS_MAX)) ?? [];
    const length = Number(digits ?? 0);
    if (length <= space - at || at + length > bytes.length) throw new Error("no PAX record");
    const [, value] = PAX_SIZE.exec(bytes.toString("latin1", space + 1, at + length - 1)) ?? [];
    if (value !== undefined) size = Number(value);
    at += length;
  }
  return size;
}

function paddingOf(size: number): number {
  return (BLOCK_BYTES - (size % BLOCK_BYTES)) % BLOCK_BYTES;
}
