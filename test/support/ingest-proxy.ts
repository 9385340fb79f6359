import { eventually } from "./eventually.ts";

/** A request on its way to the server, with its query in the path. */
export type Passing = { method: string; path: string; headers: Headers; body: Buffer };

export type Answered = Passing & { status: number };

/** Bytes of a batch that every server refuses. */
const TOO_LARGE = 2 ** 21;

/**
 * Proxy in front of a server that keeps what passed. It changes requests so that the server refuses
 * them, because refusals must reach the page as the server writes them.
 */
export class IngestProxy implements AsyncDisposable {
  /** Requests with their answers, in the order of the answers. */
  readonly answered: Answered[] = [];
  readonly #to: string;
  readonly #server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    maxRequestBodySize: TOO_LARGE,
    fetch: async (request) => await this.#pass(request),
  });
  #spoil: ((request: Passing) => void) | undefined;
  #spoilsLeft = 0;

  constructor({ url }: { url: string }) {
    this.#to = url;
  }

  get url(): string {
    return this.#server.url.origin;
  }

  /** Applies the change to that many of the following batches. */
  spoilBatches(times: number, spoil: (batch: Passing) => void): void {
    this.#spoil = spoil;
    this.#spoilsLeft = times;
  }

  /** Lists what was posted to a route such as `web/start`, with the answers. */
  posts(route: string): Answered[] {
    return this.answered.filter((one) => isPost(one, route));
  }

  /** Waits until that many batches have been answered with the status. */
  async batchesWith(status: number, count: number, withinMs?: number): Promise<void> {
    const have = () => this.posts("web/i").filter((one) => one.status === status).length >= count;
    await eventually(`${count} batches answered ${status}`, have, withinMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true);
  }

  async #pass(request: Request): Promise<Response> {
    const { pathname, search } = new URL(request.url);
    const { method, headers } = request;
    const body = Buffer.from(await request.arrayBuffer());
    const passing = { method, path: pathname + search, headers: new Headers(headers), body };
    if (this.#spoilsLeft > 0 && isPost(passing, "web/i")) {
      this.#spoilsLeft--;
      this.#spoil?.(passing);
    }
    passing.headers.delete("host");
    passing.headers.delete("content-length");
    const answer = await fetch(this.#to + passing.path, {
      method,
      headers: passing.headers,
      ...(passing.body.length > 0 && { body: passing.body }),
      redirect: "manual",
      decompress: false,
    });
    const { status } = answer;
    const bytes = await answer.bytes();
    this.answered.push({ ...passing, body, status });
    return new Response(bytes, { status, headers: answer.headers });
  }
}

/** Makes a request one of nobody's: 401. */
export function forgeToken({ headers }: Passing): void {
  headers.set("authorization", `${headers.get("authorization") ?? ""}A`);
}

/** Makes a request too large: 413. */
export function inflate(request: Passing): void {
  request.headers.delete("content-encoding");
  request.body = Buffer.alloc(TOO_LARGE);
}

function isPost({ method, path }: Pick<Passing, "method" | "path">, route: string): boolean {
  return method === "POST" && path.split("?")[0] === `/ingest/v1/${route}`;
}
