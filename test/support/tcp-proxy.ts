import { type Server, type Socket, connect, createServer } from "node:net";
import { once } from "node:events";

type Link = {
  client: Socket;
  upstream: Socket;
  /** True if the link drops all bytes silently. */
  dead: boolean;
  /** Answer that is dropped; the connection is cut when it is complete. */
  losing: Buffer | undefined;
  held: (() => void)[];
  /** First bytes that the client sent. */
  said: string;
};

const SAID_MAX = 2000;

// Message at the end of PostgreSQL's answers while no transaction is open.
const READY_FOR_QUERY = Buffer.from([0x5a, 0, 0, 0, 5, 0x49]);

/** Proxy between a server and a dependency, which breaks connections in the ways of networks. */
export class TcpProxy implements AsyncDisposable {
  #to: { host: string; port: number };
  readonly #server: Server;
  readonly #links = new Set<Link>();
  #port = 0;
  #frozen = false;
  #losesAnswerTo: Buffer | undefined;
  #abandoned: Buffer | undefined;
  #piecesLeft = Number.POSITIVE_INFINITY;
  /** Number of answers that were dropped. */
  lost = 0;

  private constructor(to: { host: string; port: number }) {
    this.#to = to;
    this.#server = createServer((client) => this.#link(client));
  }

  /** Starts a proxy for the host and port of a URL. */
  static async open(url: string): Promise<TcpProxy> {
    const { hostname, port } = new URL(url);
    const proxy = new TcpProxy({ host: hostname, port: Number(port) });
    await proxy.#listen();
    return proxy;
  }

  /** Returns the URL with the proxy's host and port. */
  urlOf(url: string): string {
    const proxied = new URL(url);
    proxied.host = `127.0.0.1:${this.#port}`;
    return proxied.href;
  }

  get connections(): number {
    return this.#links.size;
  }

  /** Forwards everything again, held bytes first. */
  async restore(): Promise<void> {
    this.#frozen = false;
    this.#abandoned = undefined;
    if (!this.#server.listening) await this.#listen();
    for (const link of this.#links) for (const forward of link.held.splice(0)) forward();
  }

  /** Cuts connections and refuses new ones, like a stopped service. */
  async refuse(): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    this.cut();
    await closed;
  }

  /** Forwards that many more pieces of client data, then refuses connections. */
  refuseAfter(pieces: number): void {
    this.#piecesLeft = pieces;
  }

  get isRefusing(): boolean {
    return !this.#server.listening;
  }

  cut(): void {
    for (const { client, upstream } of this.#links) {
      client.destroy();
      upstream.destroy();
    }
    this.#links.clear();
  }

  /** Holds all bytes until `restore`; connections stay open and new ones are accepted. */
  freeze(): void {
    this.#frozen = true;
  }

  /** Silences the present connections, as after a failover without a close; new ones work. */
  abandon(): void {
    for (const link of this.#links) link.dead = true;
  }

  /** Sends new connections to that address, as after a failover; existing ones stay. */
  redirect(url: string): void {
    const { hostname, port } = new URL(url);
    this.#to = { host: hostname, port: Number(port) };
  }

  /**
   * Silences connections that sent `text`, and until `restore` also new ones that send it; all
   * others work.
   */
  abandonThose(text: string): void {
    this.#abandoned = Buffer.from(text);
    for (const link of this.#links) if (link.said.includes(text)) link.dead = true;
  }

  /**
   * Forwards the next request that contains `text`, but drops its answer and cuts the connection.
   */
  loseAnswerTo(text: string): void {
    this.#losesAnswerTo = Buffer.from(text);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.listening) await this.refuse();
    this.cut();
  }

  async #listen(): Promise<void> {
    for (;;)
      try {
        this.#server.listen(this.#port, "127.0.0.1");
        await once(this.#server, "listening");
        break;
      } catch (error) {
        // The port may be in use for a moment as the local port of a connection.
        if (!(error instanceof Error && "code" in error && error.code === "EADDRINUSE"))
          throw error;
        await Bun.sleep(20);
      }
    const address = this.#server.address();
    if (typeof address === "object" && address !== null) this.#port = address.port;
  }

  #link(client: Socket): void {
    const upstream = connect({ ...this.#to, noDelay: true });
    const link: Link = { client, upstream, dead: false, losing: undefined, held: [], said: "" };
    client.setNoDelay(true);
    this.#links.add(link);
    client.on("data", (data: Buffer) => this.#pass(link, () => this.#toUpstream(link, data)));
    upstream.on("data", (data: Buffer) => this.#pass(link, () => this.#toClient(link, data)));
    for (const [end, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      end.on("error", () => undefined);
      end.on("close", () => this.#pass(link, () => other.destroy()));
    }
    upstream.on("close", () => this.#links.delete(link));
  }

  #pass(link: Link, forward: () => void): void {
    if (link.dead) return;
    if (this.#frozen) link.held.push(forward);
    else forward();
  }

  #toUpstream(link: Link, data: Buffer): void {
    if (this.#piecesLeft-- <= 0) {
      this.#piecesLeft = Number.POSITIVE_INFINITY;
      void this.refuse();
      return;
    }
    if (link.said.length < SAID_MAX) link.said += data.toString("latin1", 0, SAID_MAX);
    if (this.#abandoned !== undefined && data.includes(this.#abandoned)) {
      link.dead = true;
      return;
    }
    if (this.#losesAnswerTo !== undefined && data.includes(this.#losesAnswerTo)) {
      this.#losesAnswerTo = undefined;
      link.losing = Buffer.alloc(0);
    }
    link.upstream.write(data);
  }

  #toClient(link: Link, data: Buffer): void {
    if (link.losing === undefined) {
      link.client.write(data);
      return;
    }
    link.losing = Buffer.concat([link.losing, data]);
    if (!link.losing.subarray(-READY_FOR_QUERY.length).equals(READY_FOR_QUERY)) return;
    this.lost++;
    link.client.destroy();
    link.upstream.destroy();
  }
}
