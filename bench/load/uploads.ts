import type { Socket } from "bun";

import { endpointOf } from "./connection.ts";
import { BUILDS_PATH, frameBuild } from "./build-form.ts";
import { fillImage, FORM_CONTENT_TYPE, frameForm } from "./image-form.ts";
import type { Meter } from "./meter.ts";
import type { UploadsPlan, TransferResult } from "./plan.ts";
import { requestHead } from "./requests.ts";
import { type Answer, ResponseReader } from "./response.ts";

const PIECE_BYTES = 256 * 1024;
/** Paced uploads are spread over this many ticks, so that not all write in the same millisecond. */
const PHASES = 20;
const PHASE_MS = 10;
const ANSWER_TIMEOUT_MS = 60_000;
const SLOWEST_BYTES_PER_SECOND = 25_000_000;

/** Sends whole files, one per connection, and waits for every answer. */
export async function runUploads(
  plan: UploadsPlan,
  tokens: string[],
  meter: Meter,
  progress: (done: number, detail: string) => void,
): Promise<TransferResult> {
  const piece = fillImage(Math.min(PIECE_BYTES, plan.bytes));
  meter.restartPeak();
  const opened = await meter.open();
  const startedAtMs = performance.now();
  const uploads = Array.from(
    { length: plan.connections },
    (_, index) => new Upload(plan, describe(plan, index, tokens[index]), piece),
  );
  await Promise.all(uploads.map(async (upload) => upload.open()));
  const expectedMs = (plan.bytes / (plan.bytesPerSecond ?? SLOWEST_BYTES_PER_SECOND)) * 1000;
  const deadline = AbortSignal.timeout(expectedMs + ANSWER_TIMEOUT_MS);
  const answers = Promise.all(uploads.map(async (upload) => upload.answer));
  const reporter = setInterval(() => {
    const sent = uploads.reduce((sum, upload) => sum + upload.sent, 0);
    progress(sent / (plan.bytes * plan.connections), `${Math.round(sent / 2 ** 20)} MiB sent`);
  }, 250);
  try {
    await pace(uploads, plan.bytesPerSecond, startedAtMs, deadline);
    await Promise.race([answers, aborted(deadline)]);
  } finally {
    clearInterval(reporter);
  }
  const usage = await meter.close(opened);
  for (const upload of uploads) upload.close();
  return { ...count(uploads), seconds: (performance.now() - startedAtMs) / 1000, usage };
}

async function pace(
  uploads: Upload[],
  bytesPerSecond: number | undefined,
  startedAtMs: number,
  deadline: AbortSignal,
): Promise<void> {
  if (bytesPerSecond === undefined) {
    for (const upload of uploads) upload.allow(Number.POSITIVE_INFINITY);
    return;
  }
  for (let tick = 0; !deadline.aborted; tick++) {
    const allowed = ((performance.now() - startedAtMs) / 1000) * bytesPerSecond;
    for (let index = tick % PHASES; index < uploads.length; index += PHASES)
      uploads[index]?.allow(allowed);
    if (uploads.every((upload) => upload.finished)) return;
    await Bun.sleep(PHASE_MS);
  }
}

async function aborted(signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  signal.addEventListener("abort", () => resolve(), { once: true });
  return promise;
}

function count(uploads: Upload[]) {
  const statuses: Record<string, number> = {};
  let broken = 0;
  let bytes = 0;
  for (const { status, fileBytes } of uploads) {
    if (status === undefined) broken++;
    else statuses[status] = (statuses[status] ?? 0) + 1;
    if (status === 200) bytes += fileBytes;
  }
  return { connections: uploads.length, bytes, statuses, broken };
}

/** Returns the path and headers of the request, and the bytes around the file. */
function describe(plan: UploadsPlan, index: number, token: string | undefined) {
  const { form } = plan;
  if (form.kind === "image")
    return {
      ...frameForm(form.projectID, crypto.randomUUID().replaceAll("-", "")),
      path: "/v1/ios/images",
      ...(token !== undefined && { token }),
    };
  const { signature } = form;
  return { ...frameBuild(`${form.version + index}_01`), path: BUILDS_PATH, signature };
}

/** A multipart request whose body is sent at the allowed pace, as the socket takes it. */
class Upload {
  readonly answer: Promise<void>;
  readonly fileBytes: number;
  status: number | undefined;
  readonly #url: string;
  readonly #head: Uint8Array;
  readonly #piece: Uint8Array;
  readonly #tail: Uint8Array;
  readonly #total: number;
  readonly #reader = new ResponseReader();
  #sent = 0;
  #allowed = 0;
  #socket: Socket | undefined;
  #settle: () => void;

  constructor(
    { url, bytes }: UploadsPlan,
    { before, after, ...about }: ReturnType<typeof describe>,
    piece: Uint8Array,
  ) {
    const head = requestHead({
      method: "POST",
      host: endpointOf(url).host,
      contentType: FORM_CONTENT_TYPE,
      bodyBytes: before.length + bytes + after.length,
      ...about,
    });
    this.#url = url;
    this.#head = Buffer.concat([new TextEncoder().encode(head), before]);
    this.#piece = piece;
    this.#tail = after;
    this.fileBytes = bytes;
    this.#total = this.#head.length + bytes + after.length;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.answer = promise;
    this.#settle = resolve;
  }

  get sent(): number {
    return this.#sent;
  }

  get finished(): boolean {
    return this.#sent === this.#total || this.#socket === undefined;
  }

  async open(): Promise<void> {
    const { hostname, port } = endpointOf(this.#url);
    this.#socket = await Bun.connect({
      hostname,
      port,
      socket: {
        data: (_socket, chunk) => this.#read(chunk),
        drain: () => this.#write(),
        close: () => this.close(),
        error: () => this.close(),
      },
    });
  }

  /** Allows the first `bytes` of the file to be sent; the form's end follows the last of them. */
  allow(bytes: number): void {
    this.#allowed = bytes >= this.fileBytes ? this.#total : this.#head.length + Math.floor(bytes);
    this.#write();
  }

  close(): void {
    this.#socket?.terminate();
    this.#socket = undefined;
    this.#settle();
  }

  #read(chunk: Buffer): void {
    let answer: Answer | undefined;
    try {
      answer = this.#reader.push(chunk);
    } catch {
      this.close();
      return;
    }
    if (answer === undefined) return;
    this.status = answer.status;
    this.close();
  }

  #write(): void {
    while (this.#socket !== undefined && this.#sent < this.#allowed) {
      const bytes = this.#next();
      const written = Math.max(this.#socket.write(bytes), 0);
      this.#sent += written;
      if (written < bytes.length) return; // The drain event continues.
    }
  }

  /** Returns the next bytes to send, as far as they are allowed and in one buffer. */
  #next(): Uint8Array {
    const room = this.#allowed - this.#sent;
    if (this.#sent < this.#head.length) return this.#head.subarray(this.#sent, this.#sent + room);
    const inFile = this.#sent - this.#head.length;
    const left = this.fileBytes - inFile;
    if (left > 0) {
      const offset = inFile % this.#piece.length;
      return this.#piece.subarray(offset, offset + Math.min(left, room));
    }
    const inTail = inFile - this.fileBytes;
    return this.#tail.subarray(inTail, inTail + room);
  }
}
