import { type Server, type Socket, connect, createServer } from "node:net";
import { once } from "node:events";

/** A request to the store, and ways to handle it. */
export type S3Exchange = {
  method: string;
  path: string;
  /** Resolves with the whole body. */
  body: () => Promise<Buffer>;
  /** Forwards the request, and resolves with the whole answer without sending it to the client. */
  forward: (change?: (body: Buffer) => Buffer) => Promise<Buffer>;
  /** Sends that many bytes of the body to the store, then breaks both connections. */
  cutRequest: (bytes: number) => Promise<void>;
  answer: (response: Buffer | string) => void;
  /** Sends these bytes and leaves the connection open. */
  answerInPart: (response: Buffer) => void;
  /** Resets the client's connection. */
  reset: () => void;
};
export type S3Script = (exchange: S3Exchange) => Promise<void>;

export const passes: S3Script = async ({ forward, answer }) => answer(await forward());

/** Answers with an S3 error without asking the store. */
export const refuses =
  (status: number, code: string): S3Script =>
  async ({ body, answer }) => {
    await body();
    answer(response(status, `<Error><Code>${code}</Code><Message>scripted</Message></Error>`));
  };

/** Changes a byte of the body, which the store must notice. */
export const damages: S3Script = async ({ forward, answer }) =>
  answer(
    await forward((body) => {
      const changed = Buffer.from(body);
      changed[body.length - 1]! ^= 1;
      return changed;
    }),
  );

export function response(status: number, body: string, headers: string[] = []): string {
  const head = [`HTTP/1.1 ${status} Scripted`, "Content-Type: application/xml", ...headers];
  return `${head.join("\r\n")}\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`;
}

const HEAD_END = Buffer.from("\r\n\r\n");

/**
 * HTTP proxy before a real S3 server: requests that `selects` picks run the scripts of `next` in
 * order, then `otherwise`.
 */
export class S3Proxy implements AsyncDisposable {
  selects: (exchange: Pick<S3Exchange, "method" | "path">) => boolean = ({ method }) =>
    method === "PUT";
  readonly next: S3Script[] = [];
  otherwise: S3Script = passes;
  /** All requests, with the store's status, or 0 if it was not asked. */
  readonly seen: { method: string; path: string; status: number }[] = [];
  readonly #upstream: { host: string; port: number };
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;

  private constructor(upstream: { host: string; port: number }) {
    this.#upstream = upstream;
    this.#server = createServer((client) => {
      this.#track(client);
      this.#serve(client).catch(() => client.destroy());
    });
  }

  static async open(endpoint: string): Promise<S3Proxy> {
    const { hostname, port } = new URL(endpoint);
    const proxy = new S3Proxy({ host: hostname, port: Number(port) });
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  get endpoint(): string {
    const address = this.#server.address();
    if (typeof address !== "object" || address === null) throw new Error("the proxy is closed");
    return `http://127.0.0.1:${address.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Serves one request per connection: every answer closes it. */
  async #serve(client: Socket): Promise<void> {
    const received = new Received(client);
    const head = await received.upTo(() => {
      const end = received.bytes.indexOf(HEAD_END);
      return end === -1 ? undefined : end + HEAD_END.length;
    });
    const text = head.toString("latin1");
    const [method = "", path = ""] = text.split(" ");
    const length = Number(text.match(/^content-length: *(\d+)/im)?.[1] ?? 0);
    const body = async () =>
      await received.upTo(() => (received.bytes.length < length ? undefined : length), false);
    const seen = { method, path, status: 0 };
    // Written by the client itself, to find out what the store verifies.
    const isTry = path.includes("/health/probe") && /^x-amz-checksum-crc32:/im.test(text);
    if (!isTry) this.seen.push(seen);
    const single = Buffer.from(
      text.replace(/^connection:.*\r\n/im, "").replace("\r\n", "\r\nConnection: close\r\n"),
      "latin1",
    );
    const script =
      !isTry && this.selects({ method, path }) ? (this.next.shift() ?? this.otherwise) : passes;
    await script({
      method,
      path,
      body,
      forward: async (change = (same) => same) => {
        const answer = await this.#ask(Buffer.concat([single, change(await body())]));
        seen.status = Number(answer.toString("latin1", 9, 12));
        return answer;
      },
      cutRequest: async (bytes) => {
        const upstream = await this.#connect();
        upstream.write(Buffer.concat([single, (await body()).subarray(0, bytes)]));
        await Bun.sleep(20);
        upstream.destroy();
        client.resetAndDestroy();
      },
      answer: (bytes) => void client.end(bytes),
      answerInPart: (bytes) => void client.write(bytes),
      reset: () => void client.resetAndDestroy(),
    });
  }

  async #ask(request: Buffer): Promise<Buffer> {
    const upstream = await this.#connect();
    const received = new Received(upstream);
    upstream.write(request);
    await received.ended;
    return received.bytes;
  }

  async #connect(): Promise<Socket> {
    const socket = connect({ ...this.#upstream, noDelay: true });
    this.#track(socket);
    await once(socket, "connect");
    return socket;
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("close", () => this.#sockets.delete(socket));
  }
}

/** Buffers the bytes that a socket has received. */
class Received {
  bytes: Buffer = Buffer.alloc(0);
  readonly ended: Promise<void>;
  #closed = false;
  #wake = Promise.withResolvers<void>();

  constructor(socket: Socket) {
    const notify = () => {
      this.#wake.resolve();
      this.#wake = Promise.withResolvers<void>();
    };
    socket.on("data", (data: Buffer) => {
      this.bytes = Buffer.concat([this.bytes, data]);
      notify();
    });
    const { promise, resolve } = Promise.withResolvers<void>();
    this.ended = promise;
    socket.on("close", () => {
      this.#closed = true;
      resolve();
      notify();
    });
  }

  /**
   * Waits until `count` returns a number, and returns that many bytes; removes them unless `take`
   * is false.
   */
  async upTo(count: () => number | undefined, take = true): Promise<Buffer> {
    let length = count();
    while (length === undefined) {
      if (this.#closed) throw new Error("the connection ended");
      await this.#wake.promise;
      length = count();
    }
    const bytes = this.bytes.subarray(0, length);
    if (take) this.bytes = this.bytes.subarray(length);
    return bytes;
  }
}
