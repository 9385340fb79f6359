import { PartHeaders } from "./part-headers.ts";

const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;
const TAB = 0x09;
const HYPHEN = 0x2d;
const CRLF = "\r\n";
const BLANKS = /^[ \t]*/;
// All headers of a part; or the line of a boundary, which may be padded.
const LINES_BYTES_MAX = 16 * 1024;
const NOTHING = Buffer.alloc(0);

export type FormPiece =
  | { type: "headers"; headers: PartHeaders }
  | { type: "data"; bytes: Uint8Array }
  | { type: "end" };

export class FormError extends Error {
  override readonly name = "FormError";
}

/** Cuts a multipart body into its parts as its bytes arrive, at the places where Go's `mime/multipart` does. Throws FormError. */
export class FormParser {
  readonly #dashes: Buffer;
  /** what lines end in: CRLF, unless the first boundary ends in a bare LF */
  #newline = CRLF;
  /** what ends the body of a part */
  #delimiter: Buffer;
  #state: "preamble" | "headers" | "body" | "boundary" | "done" = "preamble";
  #parts = 0;
  #headers = new PartHeaders();
  /** Nothing of the body was passed on yet: a boundary then needs no line's end before it. */
  #isEmpty = true;
  /** The line's end before a boundary may still come. */
  #mayEndLine = true;
  /** The end of a body that may be the beginning of a boundary. */
  #held = NOTHING;
  /** a line whose end has not come */
  readonly #line = Buffer.allocUnsafe(LINES_BYTES_MAX);
  #lineBytes = 0;
  /** of the part's headers, or of the boundary's line */
  #linesBytes = 0;

  constructor(boundary: string) {
    this.#dashes = Buffer.from(`--${boundary}`);
    this.#delimiter = Buffer.from(`${CRLF}--${boundary}`);
  }

  /** The closing boundary was read; nothing behind it is part of the form. */
  get isDone(): boolean {
    return this.#state === "done";
  }

  /** What the chunk adds to the form; data views the chunk, if it can. */
  write(chunk: Uint8Array): FormPiece[] {
    const own = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    const bytes = this.#held.length === 0 ? own : Buffer.concat([this.#held, own]);
    this.#held = NOTHING;
    const pieces: FormPiece[] = [];
    for (let at = 0; at < bytes.length && !this.isDone;)
      at =
        this.#state === "body"
          ? this.#readBody(bytes, at, pieces)
          : this.#readLine(bytes, at, pieces);
    return pieces;
  }

  /** Throws FormError unless the form is whole. */
  end(): void {
    const isBetween = this.#state === "preamble" || this.#state === "boundary";
    // The last line needs no end.
    if (isBetween && this.#isClosing(this.#line.toString("latin1", 0, this.#lineBytes)))
      this.#state = "done";
    if (!this.isDone) throw new FormError("was cut short");
  }

  #readLine(bytes: Buffer, at: number, pieces: FormPiece[]): number {
    const found = bytes.indexOf(LF, at);
    const end = found === -1 ? bytes.length : found + 1;
    // The preamble may be millions of lines.
    if (
      this.#state === "preamble" &&
      this.#linesBytes === 0 &&
      bytes[at] !== HYPHEN &&
      found !== -1
    )
      return end;
    this.#linesBytes += end - at;
    const isLong = this.#linesBytes > LINES_BYTES_MAX;
    if (isLong && this.#state !== "preamble") throw new FormError("is malformed");
    // A line of the preamble that is so long is no boundary, so what it holds does not matter.
    if (!isLong) this.#lineBytes += bytes.copy(this.#line, this.#lineBytes, at, end);
    if (found === -1) return end;
    const line = this.#line.subarray(0, isLong ? 0 : this.#lineBytes);
    this.#lineBytes = 0;
    if (this.#state === "headers") this.#readHeader(line, pieces);
    else this.#readBoundary(line.toString("latin1"));
    return end;
  }

  #readBoundary(line: string): void {
    this.#linesBytes = 0;
    if (this.#isOpening(line)) {
      this.#parts++;
      this.#headers = new PartHeaders();
      this.#state = "headers";
    } else if (this.#isClosing(line)) this.#state = "done";
    else if (this.#state === "boundary") {
      if (!this.#mayEndLine || line !== this.#newline) throw new FormError("is malformed");
      this.#mayEndLine = false;
    }
  }

  #isOpening(line: string): boolean {
    const rest = this.#behind(line, "");
    if (this.#parts === 0 && rest === "\n") {
      this.#newline = "\n";
      this.#delimiter = this.#delimiter.subarray(1);
    }
    return rest === this.#newline;
  }

  #isClosing(line: string): boolean {
    const rest = this.#behind(line, "--");
    return rest === "" || rest === this.#newline;
  }

  /** What is behind the boundary and its padding; undefined for a line that is none. */
  #behind(line: string, dashes: string): string | undefined {
    const boundary = this.#dashes.toString("latin1") + dashes;
    return line.startsWith(boundary) ? line.slice(boundary.length).replace(BLANKS, "") : undefined;
  }

  #readHeader(line: Buffer, pieces: FormPiece[]): void {
    const end = line.length - (line.at(-2) === CR ? 2 : 1);
    if (end > 0) {
      if (!this.#headers.add(line.toString("utf8", 0, end))) throw new FormError("is malformed");
      return;
    }
    if (!this.#headers.areValid) throw new FormError("is malformed");
    pieces.push({ type: "headers", headers: this.#headers });
    this.#linesBytes = 0;
    this.#isEmpty = true;
    this.#state = "body";
  }

  #readBody(bytes: Buffer, from: number, pieces: FormPiece[]): number {
    if (this.#isEmpty) {
      const isBoundary = this.#isAt(bytes, from);
      if (isBoundary === true) return this.#endBody(from, pieces);
      if (isBoundary === undefined) return this.#hold(bytes, from);
      this.#isEmpty = false;
    }
    let found = bytes.indexOf(this.#delimiter, from);
    for (; found !== -1; found = bytes.indexOf(this.#delimiter, found + this.#delimiter.length)) {
      const isBoundary = endsBoundary(bytes, found + this.#delimiter.length);
      if (isBoundary === false) continue;
      if (found > from) pieces.push({ type: "data", bytes: bytes.subarray(from, found) });
      return isBoundary === true ? this.#endBody(found, pieces) : this.#hold(bytes, found);
    }
    const end = this.#beginningOfDelimiter(bytes, from);
    if (end > from) pieces.push({ type: "data", bytes: bytes.subarray(from, end) });
    return this.#hold(bytes, end);
  }

  /** Whether a boundary without a line's end begins there; undefined where more bytes must tell. */
  #isAt(bytes: Buffer, at: number): boolean | undefined {
    const start = bytes.subarray(at, at + this.#dashes.length);
    if (!start.equals(this.#dashes.subarray(0, start.length))) return false;
    if (start.length < this.#dashes.length) return undefined;
    return endsBoundary(bytes, at + start.length);
  }

  #endBody(at: number, pieces: FormPiece[]): number {
    pieces.push({ type: "end" });
    this.#mayEndLine = true;
    this.#state = "boundary";
    return at;
  }

  #hold(bytes: Buffer, from: number): number {
    // A copy: the chunk is its sender's again when it was written.
    this.#held = Buffer.from(bytes.subarray(from));
    return bytes.length;
  }

  /** Where at the end of the bytes a delimiter may begin; their length if it cannot. */
  #beginningOfDelimiter(bytes: Buffer, from: number): number {
    const start = Math.max(from, bytes.length - this.#delimiter.length + 1);
    const at = start + bytes.subarray(start).lastIndexOf(this.#delimiter[0] ?? LF);
    const end = bytes.subarray(at);
    return at >= start && end.equals(this.#delimiter.subarray(0, end.length)) ? at : bytes.length;
  }
}

/** Whether the bytes at that place, behind the text of a boundary, make it one; undefined where more of them must tell. */
function endsBoundary(bytes: Buffer, at: number): boolean | undefined {
  const next = bytes[at];
  if (next === undefined) return undefined;
  if (next !== HYPHEN) return next === SPACE || next === TAB || next === CR || next === LF;
  return at + 1 < bytes.length ? bytes[at + 1] === HYPHEN : undefined;
}
