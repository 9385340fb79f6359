import { dlopen, ptr } from "bun:ffi";

import {
  isOpened,
  subscribeFrame,
  Subscriber,
  type SubscriberOptions,
  subscribeRequest,
} from "./subscribers.ts";

// Small, so that unread bytes soon wait in the server: with default settings the kernel would
// buffer 2.5 MB of a loopback connection before the server noticed.
const RECEIVE_BUFFER_BYTES = 4096;
const SEGMENT_BYTES = 536;
const ANSWER_TIMEOUT_S = 10n;
const ANSWER_BYTES_MAX = 4096;
const BATCH = 128;

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOL_SOCKET = 1;
const SO_RCVBUF = 8;
const SO_RCVTIMEO = 20;
const IPPROTO_TCP = 6;
const TCP_MAXSEG = 2;

function openLibc() {
  return dlopen("libc.so.6", {
    socket: { args: ["i32", "i32", "i32"], returns: "i32" },
    setsockopt: { args: ["i32", "i32", "i32", "ptr", "u32"], returns: "i32" },
    connect: { args: ["i32", "ptr", "u32"], returns: "i32" },
    send: { args: ["i32", "ptr", "u64", "i32"], returns: "i64" },
    recv: { args: ["i32", "ptr", "u64", "i32"], returns: "i64" },
    close: { args: ["i32"], returns: "i32" },
  }).symbols;
}

/**
 * Subscribers to the first user that read the head of the answer and nothing more. They are plain
 * blocking sockets, because the receive buffer of Bun's sockets cannot be made smaller.
 */
export class Stalled {
  readonly #options: SubscriberOptions;
  readonly #sockets: number[] = [];
  #libc: ReturnType<typeof openLibc> | undefined;

  constructor(options: SubscriberOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#sockets.length;
  }

  async open(count: number): Promise<void> {
    if (process.platform !== "linux") throw new Error("stalled subscribers need Linux");
    this.#libc ??= openLibc();
    for (let at = 0; at < count; at += BATCH) {
      const batch = Array.from({ length: Math.min(BATCH, count - at) }, (_, offset) => {
        const socket = this.#connect();
        this.#sockets.push(socket);
        return { socket, subscriber: new Subscriber(0, 1_000_000 + at + offset) };
      });
      for (const { socket, subscriber } of batch)
        this.#send(socket, Buffer.from(subscribeRequest(this.#options, subscriber)));
      for (const { socket, subscriber } of batch) {
        this.#readHead(socket);
        const frame = subscribeFrame(this.#options, subscriber);
        if (frame !== undefined) this.#send(socket, frame);
      }
      await Bun.sleep(0); // Lets other subscribers run.
    }
  }

  close(): void {
    for (const socket of this.#sockets) this.#libc?.close(socket);
    this.#sockets.length = 0;
  }

  #connect(): number {
    const libc = this.#libc ?? openLibc();
    const socket = libc.socket(AF_INET, SOCK_STREAM, 0);
    if (socket < 0) throw new Error("no socket for a stalled subscriber");
    const set = (level: number, option: number, value: Int32Array | BigInt64Array) =>
      libc.setsockopt(socket, level, option, ptr(value), value.byteLength);
    set(SOL_SOCKET, SO_RCVBUF, Int32Array.of(RECEIVE_BUFFER_BYTES));
    set(IPPROTO_TCP, TCP_MAXSEG, Int32Array.of(SEGMENT_BYTES));
    set(SOL_SOCKET, SO_RCVTIMEO, BigInt64Array.of(ANSWER_TIMEOUT_S, 0n));
    const { hostname, port } = this.#options.endpoint;
    const address = new Uint8Array(16);
    new Uint16Array(address.buffer, 0, 1)[0] = AF_INET;
    address.set([port >> 8, port & 0xff, ...hostname.split(".").map(Number)], 2);
    if (libc.connect(socket, ptr(address), address.length) !== 0)
      throw new Error("a stalled subscriber could not connect");
    return socket;
  }

  #send(socket: number, bytes: Uint8Array): void {
    const sent = Number(this.#libc?.send(socket, ptr(bytes), bytes.length, 0));
    if (sent !== bytes.length) throw new Error("a stalled subscriber could not send");
  }

  #readHead(socket: number): void {
    const bytes = Buffer.alloc(ANSWER_BYTES_MAX);
    const length = Number(this.#libc?.recv(socket, ptr(bytes), bytes.length, 0));
    const head = bytes.toString("latin1", 0, Math.max(length, 0));
    if (!isOpened(this.#options.transport, head))
      throw new Error(`a stalled subscriber was answered ${head.split("\r\n")[0]}`);
  }
}
