import type { Socket } from "bun";

import { type Answer, ResponseReader } from "./response.ts";
import { within } from "./within.ts";

const CONNECT_TIMEOUT_MS = 10_000;
const RECONNECT_DELAY_MS = 50;
const RECONNECT_ATTEMPTS_MAX = 40;
const CONNECT_BATCH = 128;

export type Endpoint = {
  hostname: string;
  port: number;
  /** Value of the Host header. */
  host: string;
  /** Path before that of every request, such as `/ingest`. */
  base: string;
  /** Absent for plain HTTP; `ca` is the certificate of a server that no authority has signed. */
  tls?: { ca?: string };
};

export function endpointOf(url: string, ca?: string): Endpoint {
  const { hostname, port, host, protocol, pathname } = new URL(url);
  const isSecure = protocol === "https:";
  return {
    hostname,
    port: port === "" ? (isSecure ? 443 : 80) : Number(port),
    host,
    base: pathname.replace(/\/+$/, ""),
    ...(isSecure && { tls: ca === undefined ? {} : { ca } }),
  };
}

export type ConnectionEvents = {
  /**
   * Called with the answer to the current request; the connection is free again, or reconnecting.
   */
  answered(connection: Connection, answer: Answer): void;
  /** Called when the connection ended before the answer to its request. */
  broken(connection: Connection): void;
  /** Called when the connection is ready again after a reconnect. */
  reconnected(connection: Connection): void;
};

/** A keep-alive connection with at most one request at a time. */
export class Connection {
  readonly index: number;
  // Set by the caller: events, head of the requests, times at which the current one was due and
  // sent.
  events: ConnectionEvents;
  head: Uint8Array = new Uint8Array(0);
  intendedAtMs = 0;
  sentAtMs = 0;
  readonly #endpoint: Endpoint;
  readonly #reader = new ResponseReader();
  #socket: Socket | undefined;
  #rest: Uint8Array | undefined;
  #busy = false;
  #closed = false;

  constructor(index: number, endpoint: Endpoint, events: ConnectionEvents) {
    this.index = index;
    this.#endpoint = endpoint;
    this.events = events;
  }

  get ready(): boolean {
    return this.#socket !== undefined && !this.#busy;
  }

  get busy(): boolean {
    return this.#busy;
  }

  async open(): Promise<void> {
    const { hostname, port, tls } = this.#endpoint;
    const opened = Promise.withResolvers<void>();
    const ready = (socket: Socket) => {
      if (this.#closed) socket.terminate();
      else this.#socket = socket;
      opened.resolve();
    };
    const connected = Bun.connect({
      hostname,
      port,
      ...(tls !== undefined && { tls: { ...tls, serverName: hostname } }),
      socket: {
        open: (socket) => {
          if (tls === undefined) ready(socket);
        },
        handshake: (socket, isDone, error) => {
          if (isDone) ready(socket);
          else opened.reject(error ?? new Error("the TLS handshake failed"));
        },
        data: (_socket, chunk) => this.#read(chunk),
        drain: () => this.#flush(),
        close: (socket) => {
          opened.reject(new Error("the server closed the connection"));
          this.#lost(socket);
        },
        error: (socket) => this.#lost(socket),
      },
    });
    await within(CONNECT_TIMEOUT_MS, "connecting", Promise.all([connected, opened.promise]));
  }

  /**
   * Sends a request. `bytes` may be reused at once: the part that the kernel did not take is
   * copied.
   */
  send(bytes: Uint8Array): void {
    const socket = this.#socket;
    if (socket === undefined || this.#busy) throw new Error("the connection is not free");
    this.#busy = true;
    const written = Math.max(socket.write(bytes), 0);
    if (written < bytes.length) this.#rest = bytes.slice(written);
  }

  /** Gives up on the current request, if there is one, without an event. */
  abandon(): void {
    if (!this.#busy) return;
    this.#busy = false;
    this.#drop();
  }

  close(): void {
    this.#closed = true;
    this.#socket?.terminate();
  }

  #read(chunk: Buffer): void {
    let answer: Answer | undefined;
    try {
      answer = this.#reader.push(chunk);
    } catch {
      this.#drop(); // Not HTTP: counted as a broken connection.
      return;
    }
    if (answer === undefined) return;
    if (!this.#busy) {
      this.#drop(); // An answer without a request, such as a 408 before the close.
      return;
    }
    this.#busy = false;
    // A refusal before the whole body was sent leaves the connection unusable: reconnect.
    if (answer.close || this.#rest !== undefined) this.#drop();
    this.events.answered(this, answer);
  }

  #flush(): void {
    if (this.#rest === undefined || this.#socket === undefined) return;
    const written = Math.max(this.#socket.write(this.#rest), 0);
    this.#rest = written < this.#rest.length ? this.#rest.subarray(written) : undefined;
  }

  #drop(): void {
    const socket = this.#socket;
    if (socket === undefined) return;
    this.#lost(socket);
    socket.terminate();
  }

  #lost(socket: Socket): void {
    if (this.#socket !== socket) return; // The close event of a socket that was dropped here.
    this.#socket = undefined;
    this.#rest = undefined;
    this.#reader.reset();
    if (this.#closed) return;
    if (this.#busy) {
      this.#busy = false;
      this.events.broken(this);
    }
    void this.#reconnect();
  }

  async #reconnect(): Promise<void> {
    for (let attempt = 0; attempt < RECONNECT_ATTEMPTS_MAX && !this.#closed; attempt++) {
      if (attempt > 0) await Bun.sleep(RECONNECT_DELAY_MS);
      try {
        await this.open();
        this.events.reconnected(this);
        return;
      } catch {
        // Refused: the server restarts or its backlog is full. If no attempt succeeds, requests
        // count as unsent.
      }
    }
  }
}

/** Opens `count` connections, some at a time, so that they fit in the listener's backlog. */
export async function openConnections(
  count: number,
  endpoint: Endpoint,
  events: ConnectionEvents,
): Promise<Connection[]> {
  const connections = Array.from(
    { length: count },
    (_, index) => new Connection(index, endpoint, events),
  );
  for (let at = 0; at < count; at += CONNECT_BATCH)
    await Promise.all(connections.slice(at, at + CONNECT_BATCH).map(async (each) => each.open()));
  return connections;
}
