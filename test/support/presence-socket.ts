import { pack, unpack } from "msgpackr";

import { Inbox } from "./inbox.ts";
import { ErrorFrame, PresenceFrame, type Target, checked } from "./presence.ts";

export type SocketOptions = {
  /** the URL's query, without its question mark */
  query?: string;
  headers?: Record<string, string>;
  msgpack?: boolean;
};

/** Client of /presence/ws. */
export class PresenceSocket implements Disposable {
  readonly socket: WebSocket;
  /** Resolves when the connection has ended. */
  readonly closed: Promise<{ code: number; reason: string }>;
  /** number of messages of the kind, text or binary, that was not negotiated; must stay 0 */
  foreign = 0;
  readonly #inbox = new Inbox<unknown>("frame");
  readonly #msgpack: boolean;

  private constructor(socket: WebSocket, msgpack: boolean) {
    this.socket = socket;
    this.#msgpack = msgpack;
    socket.binaryType = "arraybuffer";
    socket.addEventListener("message", ({ data }: { data: unknown }) => this.#receive(data));
    const closed = Promise.withResolvers<{ code: number; reason: string }>();
    socket.addEventListener("close", ({ code, reason }) => {
      this.#inbox.close(`closed with ${code}`);
      closed.resolve({ code, reason });
    });
    this.closed = closed.promise;
  }

  static async open(
    { url }: Target,
    { query = "", headers = {}, msgpack = false }: SocketOptions = {},
  ): Promise<PresenceSocket> {
    const address = `${url.replace("http", "ws")}/presence/ws${query && `?${query}`}`;
    const socket = new WebSocket(address, {
      headers,
      ...(msgpack && { protocols: ["floodgate.msgpack"] }),
    });
    const opened = Promise.withResolvers<void>();
    socket.addEventListener("open", () => opened.resolve());
    socket.addEventListener("close", () => opened.reject(new Error("the handshake failed")));
    const client = new PresenceSocket(socket, msgpack);
    await opened.promise;
    return client;
  }

  send(frame: unknown): void {
    this.socket.send(this.#msgpack ? pack(frame) : JSON.stringify(frame));
  }

  /** Subscribes and waits until the server has received it. */
  async subscribe(...users: string[]): Promise<void> {
    this.send({ type: "subscribe", users });
    await this.settled();
  }

  /**
   * Resolves when the server has received everything that was sent, because it answers control
   * frames in order. Handling some frames may take longer.
   */
  async settled(): Promise<void> {
    const answered = Promise.withResolvers<void>();
    this.socket.addEventListener("pong", () => answered.resolve(), { once: true });
    void this.closed.then(() => answered.resolve());
    this.socket.ping();
    await answered.promise;
  }

  /** Takes the next frame of any kind. */
  async frame(): Promise<unknown> {
    return await this.#inbox.take();
  }

  async presence(): Promise<PresenceFrame> {
    return checked(PresenceFrame, await this.frame());
  }

  /** Takes the next frame, which must be an error, and returns its code. */
  async error(): Promise<string> {
    return checked(ErrorFrame, await this.frame()).code;
  }

  /** Number of frames that were not taken yet. */
  get waiting(): number {
    return this.#inbox.size;
  }

  [Symbol.dispose](): void {
    this.socket.terminate();
  }

  #receive(data: unknown): void {
    if (typeof data === "string") {
      if (this.#msgpack) this.foreign++;
      this.#inbox.put(JSON.parse(data));
    } else if (data instanceof ArrayBuffer) {
      if (!this.#msgpack) this.foreign++;
      this.#inbox.put(unpack(new Uint8Array(data)));
    }
  }
}
