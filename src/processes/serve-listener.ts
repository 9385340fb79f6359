import { type App } from "../app.ts";
import { type Config } from "../platform/config/config.ts";
import { cannotListen, refuseConnections } from "../platform/http/listener.ts";
import { webSocketHandler } from "../platform/http/websocket.ts";

// How long requests are still taken after SIGTERM, so that a load balancer can see /readyz first.
const LEAVE_MS = 2000;
// How long clients are told on connections that they kept to make their next one elsewhere.
const LINGER_MS = 500;
const DRAIN_MS = 6000;
const ANSWER_MS = 200;
const IDLE_TIMEOUT_S = 60;

type Serving = Pick<App, "edge" | "clients" | "health" | "presence" | "commitLog">;

/** Where a serving process takes requests. Disposing it answers what was begun and commits it. */
export class ServeListener implements AsyncDisposable {
  readonly #app: Serving;
  readonly #server: ReturnType<typeof listen>;
  #isLeaving = false;

  /** Throws UsageError for a host or port that cannot be listened on. */
  constructor(app: Serving, config: Config, reusePort: boolean) {
    this.#app = app;
    this.#server = listen(config, reusePort, app.edge.fetch.bind(app.edge));
    app.clients.attach(this.#server);
  }

  get url(): string {
    return this.#server.url.href;
  }

  /** Lets load balancers see for two seconds that this process is about to end. */
  async leave(): Promise<void> {
    this.#app.health.stopping = true;
    this.#isLeaving = true;
    await Bun.sleep(LEAVE_MS);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#app.health.stopping = true;
    await this.#drain();
    await this.#server.stop(true);
  }

  /** Refuses new connections, answers what was begun, commits it. */
  async #drain(): Promise<void> {
    const { edge, presence, commitLog } = this.#app;
    const server = this.#server;
    // Until now clients have kept their connections, so that few new ones are on their way: what is not yet accepted is reset.
    const lingers = this.#isLeaving && (await refuseConnections(Number(server.port)));
    // Its promise would wait for idle connections, too.
    if (!lingers) void server.stop();
    edge.draining = true;
    const blocked = presence.disconnectAll();
    const closedMs = performance.now();
    const lingerMs = lingers ? LINGER_MS : 0;
    commitLog.closeAll();
    // Bun's own number counts the answers, too, whose bodies are still being read.
    const isOpen = () => edge.active > 0 || server.pendingRequests > blocked;
    for (let ms = 0; ms < lingerMs || (isOpen() && ms < DRAIN_MS);) {
      commitLog.closeAll();
      await Bun.sleep(10);
      ms = performance.now() - closedMs;
    }
    // Who still waits is told to send it again, instead of being cut off.
    commitLog.abandon();
    await commitLog.flush();
    await Bun.sleep(edge.active > 0 ? ANSWER_MS : 0);
  }
}

function listen(
  config: Config,
  reusePort: boolean,
  fetch: (request: Request) => Promise<Response>,
) {
  try {
    return Bun.serve({
      port: config.port,
      hostname: config.host,
      reusePort,
      fetch,
      websocket: webSocketHandler,
      idleTimeout: IDLE_TIMEOUT_S,
      // Every route has its own bounds; this one could not tell them apart.
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
      development: false,
    });
  } catch (cause) {
    throw cannotListen(config.host, config.port, cause);
  }
}
