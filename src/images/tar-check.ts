import { Writable } from "node:stream";

const BLOCK_BYTES = 512;
const ENTRIES_MAX = 1000;
// Extension headers (long names and attributes): their number at most, and the bytes of each; a
// path of 4 KiB fits several times.
const EXTENSIONS_MAX = 2 * ENTRIES_MAX;
const EXTENSION_BYTES_MAX = 16 * 1024;

// Positions of header fields: pax(1), "ustar interchange format".
const NAME = { at: 0, bytes: 100 };
const SIZE = { at: 124, bytes: 12 };
const CHECKSUM = { at: 148, bytes: 8 };
const TYPE_AT = 156;
const PAX = "x";
const EXTENSIONS = new Set([PAX, "g", "L", "K"]);
const REGULAR = new Set(["0", "\0"]);
const FOLDER = "5";
const SPARSE = "S";
const OCTAL = /^[ \0]*(?:([0-7]+)[ \0]*)?$/;
const LENGTH = /^\d+(?= )/;
const LENGTH_DIGITS_MAX = 8;
const PAX_SIZE = /^size=(\d{1,15})$/;

export class DamagedArchive extends Error {
  override readonly name = "DamagedArchive";
}

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

/** Takes the regular files of an archive, one after the other. */
export type FileSink = {
  /** Begins a file. The name is that in its header, which cuts it after 100 bytes. */
  begin: (name: string, bytes: number) => void;
  write: (piece: Buffer) => void;
  end: () => void;
};

/** Steps through a tar archive as its bytes arrive. Throws DamagedArchive. */
export class TarWalk {
  readonly #sink: FileSink | undefined;
  readonly #block = Buffer.alloc(BLOCK_BYTES);
  #have = 0;
  /** Bytes still to come of the file that the sink takes. */
  #left = 0;
  /** Bytes still to skip after them. */
  #skip = 0;
  /** PAX header being read: it may contain the size of the next entry. */
  #pax: Pax | undefined;
  #paxSize: number | undefined;
  #entries = 0;
  #extensions = 0;

  constructor(sink?: FileSink) {
    this.#sink = sink;
  }

  write(chunk: Buffer): void {
    for (let at = 0; at < chunk.length;) {
      if (this.#left > 0) {
        at += this.#fill(chunk.subarray(at, at + this.#left));
        continue;
      }
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
    if (this.#have + this.#left + this.#skip > 0 || this.#pax !== undefined)
      throw new DamagedArchive("the tar is cut short");
  }

  #readHeader(): void {
    this.#have = 0;
    const block = this.#block;
    // Zero blocks mark the end of the archive and pad it.
    if (block.every((byte) => byte === 0)) return;
    if (numberIn(block, CHECKSUM) !== checksumOf(block)) throw new DamagedArchive("no tar header");
    const type = String.fromCharCode(block[TYPE_AT] ?? 0);
    const size = numberIn(block, SIZE);
    if (type === SPARSE) throw new DamagedArchive("a sparse file");
    if (EXTENSIONS.has(type)) this.#beginExtension(type, size);
    else this.#beginEntry(type, this.#paxSize ?? size);
  }

  #beginExtension(type: string, size: number): void {
    if (++this.#extensions > EXTENSIONS_MAX || size > EXTENSION_BYTES_MAX)
      throw new DamagedArchive("too many or too large headers");
    if (type === PAX && size > 0)
      this.#pax = { bytes: Buffer.alloc(size), have: 0, padding: paddingOf(size) };
    else this.#skip = size + paddingOf(size);
  }

  #beginEntry(type: string, size: number): void {
    if (++this.#entries > ENTRIES_MAX) throw new DamagedArchive("too many entries");
    this.#paxSize = undefined;
    if (type === FOLDER) return;
    if (this.#sink === undefined || !REGULAR.has(type)) {
      this.#skip = size + paddingOf(size);
      return;
    }
    this.#skip = paddingOf(size);
    this.#left = size;
    this.#sink.begin(nameIn(this.#block), size);
    if (size === 0) this.#sink.end();
  }

  /** Returns the number of bytes consumed. */
  #fill(piece: Buffer): number {
    this.#left -= piece.length;
    this.#sink?.write(piece);
    if (this.#left === 0) this.#sink?.end();
    return piece.length;
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
      throw new DamagedArchive("a size too large");
    return value;
  }
  const found = OCTAL.exec(field.toString("latin1"));
  if (found === null) throw new DamagedArchive("no number");
  return Number.parseInt(found[1] ?? "0", 8);
}

function nameIn(block: Buffer): string {
  const [name = ""] = block.toString("latin1", NAME.at, NAME.at + NAME.bytes).split("\0");
  return name;
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
    if (length <= space - at || at + length > bytes.length)
      throw new DamagedArchive("no PAX record");
    const [, value] = PAX_SIZE.exec(bytes.toString("latin1", space + 1, at + length - 1)) ?? [];
    if (value !== undefined) size = Number(value);
    at += length;
  }
  return size;
}

function paddingOf(size: number): number {
  return (BLOCK_BYTES - (size % BLOCK_BYTES)) % BLOCK_BYTES;
}
