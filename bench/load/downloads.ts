import type { Socket } from "bun";

import { endpointOf } from "./connection.ts";
import type { Meter } from "./meter.ts";
import type { DownloadsPlan, TransferResult } from "./plan.ts";
import { requestHead } from "./requests.ts";

const TIMEOUT_MS = 120_000;
const HEAD_END = "\r\n\r\n";

/** Fetches one file over all connections at once and discards it. */
export async function runDownloads(
  plan: DownloadsPlan,
  meter: Meter,
  progress: (done: number, detail: string) => void,
): Promise<TransferResult> {
  meter.restartPeak();
  const opened = await meter.open();
  const startedAtMs = performance.now();
  const downloads = Array.from({ length: plan.connections }, () => new Download());
  const received = () => downloads.reduce((sum, { bytes }) => sum + bytes, 0);
  const reporter = setInterval(() => {
    const done = downloads.reduce((sum, each) => sum + each.bytes / each.length, 0);
    progress(done / downloads.length, `${Math.round(received() / 2 ** 20)} MiB received`);
  }, 250);
  try {
    await Promise.all(downloads.map(async (download) => download.open(plan)));
    const ends = Promise.all(downloads.map(async (download) => download.ended));
    await Promise.race([ends, Bun.sleep(TIMEOUT_MS)]);
  } finally {
    clearInterval(reporter);
  }
  const seconds = (performance.now() - startedAtMs) / 1000;
  const usage = await meter.close(opened);
  for (const download of downloads) download.close();
  const statuses: Record<string, number> = {};
  for (const { status, isWhole } of downloads)
    if (isWhole) statuses[status] = (statuses[status] ?? 0) + 1;
  const broken = downloads.filter(({ isWhole }) => !isWhole).length;
  return { connections: plan.connections, bytes: received(), seconds, statuses, broken, usage };
}

/** A GET whose body is counted as it arrives. */
class Download {
  readonly ended: Promise<void>;
  status = 0;
  bytes = 0;
  /** Content length; infinite until the head of the answer has arrived. */
  length = Number.POSITIVE_INFINITY;
  readonly #end: () => void;
  #head = "";
  #socket: Socket | undefined;

  constructor() {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.ended = promise;
    this.#end = resolve;
  }

  get isWhole(): boolean {
    return this.bytes === this.length;
  }

  async open({ url, path }: DownloadsPlan): Promise<void> {
    const { hostname, port, host } = endpointOf(url);
    this.#socket = await Bun.connect({
      hostname,
      port,
      socket: {
        open: (socket) => void socket.write(requestHead({ method: "GET", path, host })),
        data: (_socket, chunk) => this.#read(chunk),
        close: () => this.#end(),
        error: () => this.#end(),
      },
    });
  }

  close(): void {
    this.#socket?.terminate();
  }

  #read(chunk: Buffer): void {
    this.bytes += this.status === 0 ? this.#readHead(chunk) : chunk.length;
    if (this.bytes >= this.length) this.#end();
  }

  /** Returns how many bytes of the body arrived with the end of the head. */
  #readHead(chunk: Buffer): number {
    this.#head += chunk.toString("latin1");
    const end = this.#head.indexOf(HEAD_END);
    if (end < 0) return 0;
    this.status = Number(this.#head.slice(9, 12));
    const [, length] = /\r\ncontent-length: *(\d+)/i.exec(this.#head.slice(0, end)) ?? [];
    // Without a length the download never counts as whole.
    if (length !== undefined) this.length = Number(length);
    return this.#head.length - end - HEAD_END.length;
  }
}
