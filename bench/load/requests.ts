import { buildBatch, MARK_BYTES } from "./batch.ts";
import type { Endpoint } from "./connection.ts";
import { gzipBatch } from "./gzip-batch.ts";
import { buildImageForm } from "./image-form.ts";
import type { WebType, Work } from "./plan.ts";
import { buildWebBatch } from "./web-batch.ts";

// The head is written right before the body, because the length of tokens varies slightly.
const HEAD_BYTES_MAX = 1024;
const RUN_DIGITS = 6;
const METHODS = { batch: "POST", image: "POST", put: "PUT", get: "GET" };
const USER_AGENT = "ORTracker/1.0.14 CFNetwork/1410.0.3 Darwin/22.6.0";
const ORIGIN = "https://shop.example.com";

/**
 * Builds every request of a run in one buffer: only the connection's head and a mark in the body
 * change, so a request costs a copy of some 300 bytes. All connections can share the buffer,
 * because sockets copy the bytes on write.
 */
export class Requests {
  readonly bodyBytes: number;
  readonly #buffer: Uint8Array;
  readonly #markOffsets: number[];
  readonly #headOf: (token: string) => string;
  readonly #seal: Described["seal"];
  readonly #views = new Map<number, Uint8Array>();
  #counter = 0;

  constructor(work: Work, { host, base }: Endpoint) {
    const { body, markOffsets, path, seal, ...about } = describe(work);
    this.bodyBytes = body.length;
    this.#seal = seal;
    this.#markOffsets = markOffsets.map((offset) => HEAD_BYTES_MAX + offset);
    this.#buffer = new Uint8Array(HEAD_BYTES_MAX + body.length);
    this.#buffer.set(body, HEAD_BYTES_MAX);
    // A mark of the run, because names of images are unique per project, not per session.
    const run = Math.floor(Math.random() * 16 ** RUN_DIGITS);
    for (const offset of this.#markOffsets) writeHex(this.#buffer, offset, RUN_DIGITS, run);
    const method = METHODS[work.kind];
    this.#headOf = (token) =>
      requestHead({ method, path: base + path, host, token, ...about, bodyBytes: body.length });
  }

  head(token: string): Uint8Array {
    const head = new TextEncoder().encode(this.#headOf(token));
    if (head.length > HEAD_BYTES_MAX) throw new Error("the request head is too long");
    return head;
  }

  /** Returns the next request, which is never the same twice; valid until the next call. */
  next(head: Uint8Array): Uint8Array {
    const counter = this.#counter++;
    for (const offset of this.#markOffsets)
      writeHex(this.#buffer, offset + RUN_DIGITS, MARK_BYTES - RUN_DIGITS, counter);
    this.#seal?.(this.#buffer, HEAD_BYTES_MAX);
    const start = HEAD_BYTES_MAX - head.length;
    this.#buffer.set(head, start);
    let view = this.#views.get(start);
    if (view === undefined) {
      view = this.#buffer.subarray(start);
      this.#views.set(start, view);
    }
    return view;
  }
}

type Head = {
  method: string;
  path: string;
  host: string;
  token?: string;
  /** Signature of the role `service`, which may publish builds. */
  signature?: string;
  /** Absent if there is no body. */
  contentType?: string | undefined;
  contentEncoding?: string | undefined;
  /** Type of a batch of the web tracker, which runs on a page. */
  dataType?: WebType;
  bodyBytes?: number;
};

export function requestHead(head: Head): string {
  const { method, path, host, token = "", signature, bodyBytes = 0 } = head;
  const { contentType, contentEncoding, dataType } = head;
  return [
    `${method} ${path} HTTP/1.1`,
    `Host: ${host}`,
    `User-Agent: ${USER_AGENT}`,
    ...(token === "" ? [] : [`Authorization: Bearer ${token}`]),
    ...(signature === undefined ? [] : [`Signature: ${signature}`]),
    ...(contentType === undefined
      ? []
      : [`Content-Type: ${contentType}`, `Content-Length: ${bodyBytes}`]),
    ...(contentEncoding === undefined ? [] : [`Content-Encoding: ${contentEncoding}`]),
    ...(dataType === undefined ? [] : [`Origin: ${ORIGIN}`, `DataType: ${dataType}`]),
    "\r\n",
  ].join("\r\n");
}

type Described = {
  body: Uint8Array;
  /** Places of the mark in the body. */
  markOffsets: number[];
  path: string;
  contentType?: string;
  contentEncoding?: string;
  dataType?: WebType;
  /** Called for each request, with the buffer and where the body begins, after it was marked. */
  seal?: (buffer: Uint8Array, start: number) => void;
};

function describe(work: Work): Described {
  if (work.kind === "get") return { body: new Uint8Array(0), markOffsets: [], path: work.path };
  if (work.kind === "image") {
    const form = buildImageForm(work.projectID, work.bytes);
    return { ...form, path: "/v1/ios/images" };
  }
  const contentType = "application/octet-stream";
  const { batch, ...about } =
    work.kind === "batch" && work.web !== undefined
      ? describeWeb(work.web, work.bytes)
      : {
          batch: buildBatch(work.bytes, Date.now()),
          path: work.kind === "batch" ? "/v1/ios/append" : work.path,
        };
  if (work.kind === "batch" && work.gzip === true)
    return { ...about, contentType, contentEncoding: "gzip", ...gzipBatch(batch) };
  return { ...about, contentType, body: batch.bytes, markOffsets: batch.markOffsets };
}

function describeWeb(dataType: WebType, bytes: number) {
  const { split, ...batch } = buildWebBatch(dataType, bytes);
  const path = `/v1/web/i?batch=0_1_${bytes}_kyes${split === undefined ? "" : `&split=${split}`}`;
  return { batch, path, dataType };
}

/**
 * Writes the low digits of `value` by arithmetic: strings would be the generator's highest cost.
 */
function writeHex(bytes: Uint8Array, offset: number, digits: number, value: number): void {
  let rest = value;
  for (let at = offset + digits - 1; at >= offset; at--) {
    const digit = rest % 16;
    bytes[at] = digit < 10 ? 48 + digit : 87 + digit;
    rest = (rest - digit) / 16;
  }
}
