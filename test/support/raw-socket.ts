import { type Socket } from "node:net";

import { type Target } from "./presence.ts";
import { openSocket, parseHead, requestHead } from "./raw-http.ts";

const TEXT = 1;
const CLOSE = 8;
const PING = 9;
const PONG = 10;

/** WebSocket client that can stop reading, and send frames that no library sends. */
export class RawSocket implements Disposable {
  /** status of the answer to the handshake */
  status = 0;
  headers = new Headers();
  /** text frames, parsed */
  readonly frames: unknown[] = [];
  /** code of the close frame */
  closeCode: number | undefined;
  /** Resolves when the connection has ended. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #pong = Promise.withResolvers<void>();
  readonly #head = Promise.withResolvers<void>();
  #received: Buffer = Buffer.alloc(0);

  private constructor(socket: Socket) {
    this.#socket = socket;
    const closed = Promise.withResolvers<void>();
    this.closed = closed.promise;
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("error", () => undefined);
    socket.on("close", () => {
      this.#head.resolve();
      closed.resolve();
    });
  }

  /** Resolves at the answer to the handshake, even if that is a refusal. */
  static async open(
    { url }: Target,
    { query = "", headers = {} }: { query?: string; headers?: Record<string, string> } = {},
  ): Promise<RawSocket> {
    const socket = await openSocket(url);
    const client = new RawSocket(socket);
    const lines = {
      host: new URL(url).host,
      upgrade: "websocket",
      connection: "Upgrade",
      "sec-websocket-version": "13",
      "sec-websocket-key": Buffer.alloc(16, 7).toString("base64"),
      ...headers,
    };
    socket.write(requestHead(`GET /presence/ws${query && `?${query}`}`, lines));
    await client.#head.promise;
    return client;
  }

  /**
   * Resolves when the server has read everything that was sent, or has closed the connection
   * because of it.
   */
  async isRead(): Promise<void> {
    this.write(maskedFrame(PING, Buffer.alloc(0)));
    await Promise.race([this.#pong.promise, this.closed]);
  }

  send(frame: unknown): void {
    this.sendText(JSON.stringify(frame));
  }

  sendText(text: string): void {
    this.#socket.write(maskedFrame(TEXT, Buffer.from(text)));
  }

  /** Writes bytes unchanged. */
  write(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #receive(chunk: Buffer): void {
    this.#received = Buffer.concat([this.#received, chunk]);
    if (this.status === 0) {
      const end = this.#received.indexOf("\r\n\r\n");
      if (end === -1) return;
      const { status, headers } = parseHead(this.#received.toString("latin1", 0, end));
      this.status = status;
      this.headers = headers;
      this.#received = this.#received.subarray(end + 4);
      this.#head.resolve();
    }
    if (this.status === 101) this.#readFrames();
  }

  #readFrames(): void {
    let at = 0;
    for (;;) {
      const head = frameHead(this.#received.subarray(at));
      if (head === undefined || this.#received.length < at + head.bytes + head.length) break;
      const from = at + head.bytes;
      at = from + head.length;
      const payload = this.#received.subarray(from, at);
      if (head.opcode === TEXT) this.frames.push(JSON.parse(payload.toString()));
      if (head.opcode === PONG) this.#pong.resolve();
      if (head.opcode === CLOSE && payload.length >= 2) this.closeCode = payload.readUInt16BE(0);
    }
    this.#received = this.#received.subarray(at);
  }
}

/** Encodes a frame of a client, with a mask of zeros. */
export function maskedFrame(opcode: number, payload: Uint8Array): Buffer {
  const { length } = payload;
  const extended = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const head = Buffer.alloc(2 + extended + 4);
  head[0] = 0x80 | opcode;
  head[1] = 0x80 | (extended === 0 ? length : extended === 2 ? 126 : 127);
  if (extended === 2) head.writeUInt16BE(length, 2);
  if (extended === 8) head.writeBigUInt64BE(BigInt(length), 2);
  return Buffer.concat([head, payload]);
}

/** Decodes the head of a server's frame, which has no mask. */
function frameHead(bytes: Buffer): { opcode: number; bytes: number; length: number } | undefined {
  const [first, second] = bytes;
  if (first === undefined || second === undefined) return undefined;
  const opcode = first & 0x0f;
  if (second < 126) return { opcode, bytes: 2, length: second };
  if (bytes.length < 10) return undefined;
  return second === 126
    ? { opcode, bytes: 4, length: bytes.readUInt16BE(2) }
    : { opcode, bytes: 10, length: Number(bytes.readBigUInt64BE(2)) };
}
