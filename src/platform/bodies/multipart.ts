import { setImmediate } from "node:timers/promises";

import { bodyChunks } from "./body.ts";
import { contentChunks } from "./content.ts";
import { AppError } from "../errors.ts";
import { release } from "../gc.ts";
import { type Chunks } from "./inflate.ts";
import { FormError, FormParser, type FormPiece } from "./form-parser.ts";
import { type MediaType, parseMediaType } from "./media-type.ts";
import { type PartHeaders } from "./part-headers.ts";

// Bytes parsed at a time: a form may consist of headers or line breaks only, and other requests
// must get their turn in between.
const PIECE_BYTES = 128 * 1024;
const TURN_MS = 5;
const PARTS_MAX = 1000;
const FIELD_BYTES_MAX = 4096;
// Longest boundary accepted; RFC 2046 allows 70 characters.
const BOUNDARY_LENGTH_MAX = 1000;
const NAME_BYTES_MAX = 255;
// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const UNSAFE_NAME = /[/\\\u0000-\u001f\u007f-\u009f\ufffd]|\.\.|^\.$/;
const EXTENDED_NAME = /;[ \t]*filename\*/i;
const FILE_TYPE = "application/octet-stream";
const NO_TYPE: MediaType = { type: "", parameters: new Map() };
const UTF8 = new TextDecoder();

export type FormEvent =
  | { type: "field"; name: string; value: string }
  | { type: "file"; name: string; filename: string; contentType: string }
  | { type: "data"; bytes: Uint8Array }
  | { type: "end" };

/**
 * Events that arrived together. `spent` is a chunk to which no later event refers: it may be
 * released once the data of these and earlier events is no longer needed.
 */
export type FormBatch = { events: FormEvent[]; spent: Uint8Array | undefined };

export type FormLimits = {
  /** Inflated size limit of a form with content codings. */
  inflatedBytesMax: number;
  fieldBytesMax?: number;
};

/**
 * Yields the parts of a multipart form as they arrive in `chunks`; `data` is a view of a chunk.
 * Throws 415 if the request is not a multipart form, 400 if the form is malformed, cut short or has
 * over 1,000 parts.
 */
export async function* formEvents(
  request: Request,
  { inflatedBytesMax, fieldBytesMax = FIELD_BYTES_MAX }: FormLimits,
  chunks: Chunks = bodyChunks(request.body),
): AsyncGenerator<FormBatch> {
  const parser = new FormParser(boundaryOf(request));
  const form = new FormReader(fieldBytesMax);
  let turnMs = performance.now();
  for await (const chunk of await contentChunks(request, inflatedBytesMax, chunks)) {
    if (parser.isDone) release(chunk);
    for (let at = 0; at < chunk.length && !parser.isDone; at += PIECE_BYTES) {
      const piece = chunk.subarray(at, at + PIECE_BYTES);
      const events = form.take(parse(() => parser.write(piece)));
      const isLast = parser.isDone || at + PIECE_BYTES >= chunk.length;
      yield { events, spent: isLast ? chunk : undefined };
      if (performance.now() - turnMs < TURN_MS) continue;
      // Yield: chunks that are already buffered would all be parsed in one turn of the event loop.
      await setImmediate();
      turnMs = performance.now();
    }
  }
  parse(() => parser.end());
}

/** Returns the boundary. Throws 415 if the request is not a multipart form. */
function boundaryOf({ headers }: Request): string {
  const mediaType = parseMediaType(headers.get("content-type") ?? "");
  if (mediaType?.type !== "multipart/form-data")
    throw new AppError("unsupported_media", "the body must be multipart/form-data");
  const boundary = mediaType.parameters.get("boundary") ?? "";
  if (boundary === "" || boundary.length > BOUNDARY_LENGTH_MAX)
    throw new AppError("unsupported_media", "the form has no valid boundary");
  return boundary;
}

function parse<T>(step: () => T): T {
  try {
    return step();
  } catch (cause) {
    if (!(cause instanceof FormError)) throw cause;
    throw new AppError("invalid", `the form ${cause.message}`, { cause });
  }
}

type Field = { name: string; chunks: Uint8Array[] };

/** Converts parser output to events; buffers fields until they are complete. */
class FormReader {
  readonly #fieldBytesMax: number;
  #parts = 0;
  #field: Field | undefined;
  #fieldBytes = 0;

  constructor(fieldBytesMax: number) {
    this.#fieldBytesMax = fieldBytesMax;
  }

  take(pieces: FormPiece[]): FormEvent[] {
    return pieces.flatMap((piece) => {
      if (piece.type === "headers") return this.#begin(piece.headers);
      if (this.#field === undefined) return piece;
      if (piece.type === "end") return this.#endField(this.#field);
      this.#fieldBytes += piece.bytes.length;
      this.#checkLimits();
      this.#field.chunks.push(Uint8Array.from(piece.bytes));
      return [];
    });
  }

  #begin(headers: PartHeaders): FormEvent[] {
    this.#parts++;
    this.#checkLimits();
    const { name, filename } = dispositionOf(headers);
    if (filename !== undefined) {
      const contentType = parseMediaType(headers.get("content-type") ?? "")?.type ?? FILE_TYPE;
      return [{ type: "file", name, filename, contentType }];
    }
    this.#field = { name, chunks: [] };
    this.#fieldBytes = 0;
    return [];
  }

  #endField({ name, chunks }: Field): FormEvent[] {
    this.#field = undefined;
    return [{ type: "field", name, value: UTF8.decode(Buffer.concat(chunks)) }];
  }

  #checkLimits(): void {
    if (this.#parts > PARTS_MAX || this.#fieldBytes > this.#fieldBytesMax)
      throw new AppError(
        "invalid",
        `the form has over ${PARTS_MAX} parts or a field over ${this.#fieldBytesMax} bytes`,
      );
  }
}

/**
 * Returns the names in a part's Content-Disposition; without a file name the part is a field.
 * Throws 400 if it is missing or invalid: a file would be lost.
 */
function dispositionOf(headers: PartHeaders): { name: string; filename: string | undefined } {
  const header = headers.get("content-disposition") ?? "";
  const { type, parameters } = parseMediaType(header) ?? NO_TYPE;
  const name = parameters.get("name");
  const filename = parameters.get("filename");
  const isUnreadable = filename === undefined && EXTENDED_NAME.test(header);
  if (type !== "form-data" || name === undefined || isUnreadable)
    throw new AppError("invalid", "the form is malformed");
  return { name, filename };
}

/** Throws 400 if a file name could escape its folder or be misread. */
export function checkFileName(name: string): void {
  const isPlain = name !== "" && !UNSAFE_NAME.test(name) && name.isWellFormed();
  if (!isPlain || Buffer.byteLength(name) > NAME_BYTES_MAX)
    throw new AppError(
      "invalid",
      `the file name must be a plain name of up to ${NAME_BYTES_MAX} bytes`,
    );
}
