import type { Socket } from "bun";

import { endpointOf } from "./connection.ts";
import { fillImage, FORM_CONTENT_TYPE, frameForm } from "./image-form.ts";
import type { Meter } from "./meter.ts";
import type { UploadsPlan, UploadsResult } from "./plan.ts";
import { requestHead } from "./requests.ts";
import { type Answer, ResponseReader } from "./response.ts";

const PIECE_BYTES = 256 * 1024;
/** Paced uploads are spread over this many ticks, so that hundreds of them do not write in the same millisecond. */
const PHASES = 20;
const PHASE_MS = 10;
const ANSWER_TIMEOUT_MS = 60_000;

/** Sends whole images, one per connection, and waits for every answer. */
export async function runUploads(
  plan: UploadsPlan,
  tokens: string[],
  meter: Meter,
  progress: (done: number, detail: string) => void,
): Promise<UploadsResult> {
  const piece = fillImage(Math.min(PIECE_BYTES, plan.bytes));
  meter.restartPeak();
  const opened = await meter.open();
  const startedAtMs = performance.now();
  const uploads = Array.from(
    { length: plan.connections },
    (_, index) => new Upload(plan, tokens[index] ?? "", piece),
  );
  await Promise.all(uploads.map(async (upload) => upload.open()));
  const expectedMs = plan.bytesPerSecond ? (plan.bytes / plan.bytesPerSecond) * 1000 : 0;
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
  for (const { status, imageBytes } of uploads) {
    if (status === undefined) broken++;
    else statuses[status] = (statuses[status] ?? 0) + 1;
    if (status === 200) bytes += imageBytes;
  }
  return { connections: uploads.length, bytes, statuses, broken };
}

/** One multipart request whose body is sent as it is allowed to go and as the socket takes it. */
class Upload {
  readonly answer: Promise<void>;
  readonly imageBytes: number;
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

  constructor(plan: UploadsPlan, token: string, piece: Uint8Array) {
    const { host } = endpointOf(plan.url);
    const form = frameForm(plan.projectID, crypto.randomUUID().replaceAll("-", ""));
    const bodyBytes = form.before.length + plan.bytes + form.after.length;
    const contentType = FORM_CONTENT_TYPE;
    const head = requestHead({
      method: "POST",
      path: "/v1/ios/images",
      host,
      token,
      contentType,
      bodyBytes,
    });
    this.#url = plan.url;
    this.#head = Buffer.concat([new TextEncoder().encode(head), form.before]);
    this.#piece = piece;
    this.#tail = form.after;
    this.imageBytes = plan.bytes;
    this.#total = this.#head.length + plan.bytes + form.after.length;
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

  /** Lets the image go up to its first `bytes`; the head goes at once, the end with the last of them. */
  allow(bytes: number): void {
    this.#allowed = bytes >= this.imageBytes ? this.#total : this.#head.length + Math.floor(bytes);
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
      if (written < bytes.length) return; // drain() goes on.
    }
  }

  /** What follows the bytes already sent, as far as it is allowed and lies in one buffer. */
  #next(): Uint8Array {
    const room = this.#allowed - this.#sent;
    if (this.#sent < this.#head.length) return this.#head.subarray(this.#sent, this.#sent + room);
    const inImage = this.#sent - this.#head.length;
    const left = this.imageBytes - inImage;
    if (left > 0) {
      const offset = inImage % this.#piece.length;
      return this.#piece.subarray(offset, offset + Math.min(left, room));
    }
    const inTail = inImage - this.imageBytes;
    return this.#tail.subarray(inTail, inTail + room);
  }
}
