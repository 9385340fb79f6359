import { type Socket } from "node:net";

import { type ResponseHead, openSocket, parseHead, requestHead } from "./raw-http.ts";

export type RawResponse = ResponseHead & { body: Buffer };

/** TCP connection for HTTP that no client library sends: cut, stalled, pipelined, any `Host`. */
export class RawConnection implements Disposable {
  readonly #socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  #ended = false;
  #wake = Promise.withResolvers<void>();

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#notify();
    });
    // A reset ends the connection, too.
    socket.on("error", () => undefined);
    socket.on("close", () => {
      this.#ended = true;
      this.#notify();
    });
  }

  static async open(url: string): Promise<RawConnection> {
    return new RawConnection(await openSocket(url));
  }

  write(...parts: (string | Uint8Array)[]): void {
    for (const part of parts) this.#socket.write(part);
  }

  /** Writes a request line, headers and the empty line; adds a missing `Host`. */
  head(line: string, headers: Record<string, string | number> = {}): void {
    this.write(requestHead(line, { host: "localhost", ...headers }));
  }

  /** Takes the next answer; `bodyless` for the answer to a HEAD. */
  async response({ bodyless = false } = {}): Promise<RawResponse> {
    const head = await this.#take((bytes) => {
      const end = bytes.indexOf("\r\n\r\n");
      return end === -1 ? undefined : end + 4;
    });
    const { status, headers } = parseHead(head.toString("latin1"));
    const empty = bodyless || status < 200 || status === 204 || status === 304;
    return { status, headers, body: empty ? Buffer.alloc(0) : await this.#body(headers) };
  }

  /**
   * Resolves when the head of a response has arrived (without consuming it), or the connection was
   * closed without one.
   */
  async answered(): Promise<void> {
    await this.#until(() => this.#received.includes("\r\n\r\n") || this.#ended || undefined);
  }

  /** Resolves when the server has closed the connection. */
  async closed(): Promise<void> {
    await this.#until(() => (this.#ended ? true : undefined));
  }

  get isClosed(): boolean {
    return this.#ended;
  }

  /** Bytes that were received but not taken as an answer. */
  get rest(): Buffer {
    return this.#received;
  }

  /** Ends the sending side of the connection. */
  end(): void {
    this.#socket.end();
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  async #body(headers: Headers): Promise<Buffer> {
    if (headers.get("transfer-encoding") !== "chunked") {
      const length = Number(headers.get("content-length") ?? 0);
      return await this.#take((bytes) => (bytes.length < length ? undefined : length));
    }
    const chunks: Buffer[] = [];
    for (;;) {
      const line = await this.#take((bytes) => {
        const end = bytes.indexOf("\r\n");
        return end === -1 ? undefined : end + 2;
      });
      const length = Number.parseInt(line.toString(), 16);
      const chunk = await this.#take((bytes) =>
        bytes.length < length + 2 ? undefined : length + 2,
      );
      if (length === 0) return Buffer.concat(chunks);
      chunks.push(chunk.subarray(0, length));
    }
  }

  /** Waits until `find` returns a number of bytes, and takes them. */
  async #take(find: (bytes: Buffer) => number | undefined): Promise<Buffer> {
    const length = await this.#until(() => {
      const found = find(this.#received);
      if (found === undefined && this.#ended)
        throw new Error(`the connection ended after ${JSON.stringify(this.#received.toString())}`);
      return found;
    });
    const taken = this.#received.subarray(0, length);
    this.#received = this.#received.subarray(length);
    return taken;
  }

  /**
   * Waits without a limit, because tests may change the clock: the runner ends a test that waits
   * too long.
   */
  async #until<T>(look: () => T | undefined): Promise<T> {
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      await this.#wake.promise;
    }
  }

  #notify(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers<void>();
  }
}
