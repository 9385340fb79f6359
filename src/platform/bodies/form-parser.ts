import { PartHeaders } from "./part-headers.ts";

const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;
const TAB = 0x09;
const HYPHEN = 0x2d;
const CRLF = "\r\n";
const BLANKS = /^[ \t]*/;
// Size of a part's headers, or of a boundary line, which may be padded.
const LINES_BYTES_MAX = 16 * 1024;
const NOTHING = Buffer.alloc(0);

export type FormPiece =
  | { type: "headers"; headers: PartHeaders }
  | { type: "data"; bytes: Uint8Array }
  | { type: "end" };

export class FormError extends Error {
  override readonly name = "FormError";
}

/**
 * Streaming parser that splits a multipart body at the same places as Go's `mime/multipart`. Throws
 * FormError.
 */
export class FormParser {
  readonly #dashes: Buffer;
  /** The dashes and the boundary, one character for each byte. */
  readonly #boundary: string;
  /** Line ending: CRLF, unless the first boundary ends with a bare LF. */
  #newline = CRLF;
  /** Delimiter that ends the body of a part. */
  #delimiter: Buffer;
  #state: "preamble" | "headers" | "body" | "boundary" | "done" = "preamble";
  #parts = 0;
  #headers = new PartHeaders();
  /**
   * True until data of the part's body is emitted: a boundary may then follow without a line break.
   */
  #isEmpty = true;
  /** True while the line break before a boundary may still come. */
  #mayEndLine = true;
  /** End of the last chunk that may be the beginning of a boundary. */
  #held = NOTHING;
  /** Beginning of a line whose end has not arrived yet. */
  #line = NOTHING;
  /** Bytes of the part's headers, or of the boundary line. */
  #linesBytes = 0;

  constructor(boundary: string) {
    this.#dashes = Buffer.from(`--${boundary}`);
    this.#boundary = this.#dashes.toString("latin1");
    this.#delimiter = Buffer.from(`${CRLF}--${boundary}`);
  }

  /** True once the closing boundary was read; anything behind it is ignored. */
  get isDone(): boolean {
    return this.#state === "done";
  }

  /** Parses the next chunk; the returned data references the chunk where possible. */
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

  /** Throws FormError if the form is incomplete. */
  end(): void {
    const isBetween = this.#state === "preamble" || this.#state === "boundary";
    // The last line may end without a line break.
    if (isBetween && this.#isClosing(this.#line.toString("latin1"))) this.#state = "done";
    if (!this.isDone) throw new FormError("was cut short");
  }

  #readLine(bytes: Buffer, at: number, pieces: FormPiece[]): number {
    const found = bytes.indexOf(LF, at);
    const end = found === -1 ? bytes.length : found + 1;
    // Skips the preamble fast: it may have millions of lines.
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
    // A preamble line that is too long cannot be a boundary: ignore its content.
    const part = isLong ? NOTHING : bytes.subarray(at, end);
    const line = this.#line.length === 0 || isLong ? part : Buffer.concat([this.#line, part]);
    // Copied: the caller may reuse the chunk after `write`.
    this.#line = found === -1 ? Buffer.from(line) : NOTHING;
    if (found === -1) return end;
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

  /**
   * Returns the text behind the boundary and its padding, or undefined if the line is not a
   * boundary.
   */
  #behind(line: string, dashes: string): string | undefined {
    const boundary = this.#boundary + dashes;
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

  /**
   * Returns whether a boundary (without a preceding line break) begins here, or undefined if more
   * bytes are needed.
   */
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
    if (from === bytes.length) return from;
    // Copied: the caller may reuse the chunk after `write`.
    this.#held = Buffer.from(bytes.subarray(from));
    return bytes.length;
  }

  /** Returns where at the end of the bytes a delimiter may begin, or their length if none can. */
  #beginningOfDelimiter(bytes: Buffer, from: number): number {
    const start = Math.max(from, bytes.length - this.#delimiter.length + 1);
    const at = start + bytes.subarray(start).lastIndexOf(this.#delimiter[0] ?? LF);
    const end = bytes.subarray(at);
    return at >= start && end.equals(this.#delimiter.subarray(0, end.length)) ? at : bytes.length;
  }
}

/**
 * Returns whether the bytes behind a boundary's text complete the boundary, or undefined if more
 * bytes are needed.
 */
function endsBoundary(bytes: Buffer, at: number): boolean | undefined {
  const next = bytes[at];
  if (next === undefined) return undefined;
  if (next !== HYPHEN) return next === SPACE || next === TAB || next === CR || next === LF;
  return at + 1 < bytes.length ? bytes[at + 1] === HYPHEN : undefined;
}
