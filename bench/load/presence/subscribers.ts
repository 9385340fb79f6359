import type { Socket } from "bun";

import type { Endpoint } from "../connection.ts";
import type { Transport } from "../plan.ts";
import type { Deliveries } from "./deliveries.ts";
import type { Names } from "./names.ts";
import { clientFrame, OPCODE, readFrame } from "./frames.ts";

const OPEN_BATCH = 128;
const OPEN_TIMEOUT_MS = 20_000;
const HEAD_END = "\r\n\r\n";
const EVENT_END = "\n\n";
const NOTHING = Buffer.alloc(0);

export type SubscriberOptions = {
  transport: Transport;
  endpoint: Endpoint;
  names: Names;
  deliveries: Deliveries;
};

/** A WebSocket or event stream on a raw socket. */
export class Subscriber {
  readonly user: number;
  readonly client: number;
  /** Number of the newest ping that it has received. */
  newest = -1;
  /** True for the few whose progress paces the pings at saturation. */
  watched = false;
  socket: Socket<Subscriber> | undefined;
  rest: Buffer = NOTHING;
  /** Callback for the head of the answer; undefined afterwards. */
  opened: ((problem?: string) => void) | undefined;
  isClosing = false;

  constructor(user: number, client: number) {
    this.user = user;
    this.client = client;
  }
}

/** Builds the request that a subscriber sends once connected. */
export function subscribeRequest(
  { transport, endpoint, names }: SubscriberOptions,
  { user, client }: Subscriber,
): string {
  if (transport === "sse") {
    const path = `/subscribe/${names.user(user)}/client/${names.client(client)}`;
    return `GET ${path} HTTP/1.1\r\nHost: ${endpoint.host}\r\nAccept: text/event-stream\r\n\r\n`;
  }
  return [
    "GET /presence/ws HTTP/1.1",
    `Host: ${endpoint.host}`,
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "\r\n",
  ].join("\r\n");
}

/**
 * Builds the frame that a WebSocket sends once open; an event stream names the user in its path.
 */
export function subscribeFrame(
  { transport, names }: SubscriberOptions,
  { user }: Subscriber,
): Uint8Array | undefined {
  if (transport === "sse") return undefined;
  return clientFrame(OPCODE.text, JSON.stringify({ type: "subscribe", users: [names.user(user)] }));
}

export function isOpened(transport: Transport, head: string): boolean {
  return head.startsWith(transport === "sse" ? "HTTP/1.1 200" : "HTTP/1.1 101");
}

/** All subscribers that read. They share one set of handlers, because there may be ten thousand. */
export class Subscribers {
  readonly all: Subscriber[] = [];
  readonly #options: SubscriberOptions;
  readonly #handlers = {
    open: (socket: Socket<Subscriber>) => {
      socket.data.socket = socket;
      socket.write(subscribeRequest(this.#options, socket.data));
    },
    data: (socket: Socket<Subscriber>, chunk: Buffer) => this.#read(socket.data, chunk),
    close: (socket: Socket<Subscriber>) => this.#lost(socket.data),
    error: (socket: Socket<Subscriber>) => this.#lost(socket.data),
  };

  constructor(options: SubscriberOptions) {
    this.#options = options;
  }

  /** Opens some at a time, so that they fit in the listener's backlog. */
  async open(users: number, each: number, progress: (done: number) => void): Promise<void> {
    const total = users * each;
    for (let at = 0; at < total; at += OPEN_BATCH) {
      const batch = Array.from(
        { length: Math.min(OPEN_BATCH, total - at) },
        (_, offset) => new Subscriber((at + offset) % users, this.all.length + offset),
      );
      this.all.push(...batch);
      await Promise.all(batch.map(async (subscriber) => this.#open(subscriber)));
      progress(at / total);
    }
  }

  close(): void {
    for (const subscriber of this.all) {
      subscriber.isClosing = true;
      subscriber.socket?.terminate();
    }
    this.all.length = 0;
  }

  async #open(subscriber: Subscriber): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const timer = setTimeout(
      () => reject(new Error("a subscriber was not answered in time")),
      OPEN_TIMEOUT_MS,
    );
    subscriber.opened = (problem) =>
      problem === undefined ? resolve() : reject(new Error(`a subscriber was answered ${problem}`));
    const { hostname, port } = this.#options.endpoint;
    await Bun.connect({ hostname, port, data: subscriber, socket: this.#handlers });
    await promise;
    clearTimeout(timer);
  }

  #read(subscriber: Subscriber, chunk: Buffer): void {
    const bytes = subscriber.rest.length === 0 ? chunk : Buffer.concat([subscriber.rest, chunk]);
    let at = 0;
    if (subscriber.opened !== undefined) {
      const end = bytes.indexOf(HEAD_END);
      if (end < 0) {
        subscriber.rest = bytes;
        return;
      }
      at = end + HEAD_END.length;
      this.#opened(subscriber, bytes.toString("latin1", 0, at));
    }
    const isSse = this.#options.transport === "sse";
    const rest = isSse
      ? this.#readStream(subscriber, bytes, at)
      : this.#readFrames(subscriber, bytes, at);
    subscriber.rest = rest === bytes.length ? NOTHING : bytes.subarray(rest);
  }

  #opened(subscriber: Subscriber, head: string): void {
    const isOpen = isOpened(this.#options.transport, head);
    subscriber.opened?.(isOpen ? undefined : head.slice(0, head.indexOf("\r\n")));
    subscriber.opened = undefined;
    const frame = subscribeFrame(this.#options, subscriber);
    if (isOpen && frame !== undefined) subscriber.socket?.write(frame);
  }

  /** Reads whole frames; returns the offset of the first incomplete one. */
  #readFrames(subscriber: Subscriber, bytes: Buffer, start: number): number {
    const nowMs = performance.now();
    let at = start;
    for (;;) {
      const frame = readFrame(bytes, at);
      if (frame === undefined) return at;
      if (frame.opcode === OPCODE.text)
        this.#options.deliveries.received(subscriber, bytes, frame.start, frame.end, nowMs);
      else if (frame.opcode === OPCODE.ping) subscriber.socket?.write(clientFrame(OPCODE.pong, ""));
      at = frame.end;
    }
  }

  /**
   * Reads events, which end with an empty line. Ignores the framing of chunks, each of which holds
   * whole events; returns the offset of the first incomplete event.
   */
  #readStream(subscriber: Subscriber, bytes: Buffer, start: number): number {
    const nowMs = performance.now();
    let at = start;
    for (;;) {
      const end = bytes.indexOf(EVENT_END, at);
      // Two bytes are the end of a chunk, not the start of an event.
      if (end < 0) return bytes.length - at <= 2 ? bytes.length : at;
      this.#options.deliveries.received(subscriber, bytes, at, end, nowMs);
      at = end + EVENT_END.length;
    }
  }

  #lost(subscriber: Subscriber): void {
    if (subscriber.isClosing) return;
    subscriber.isClosing = true;
    subscriber.opened?.("by closing the connection");
    this.#options.deliveries.problem("a subscriber's connection ended");
  }
}
