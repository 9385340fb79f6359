import { type App } from "../app.ts";
import { type Config } from "../platform/config/config.ts";
import { cannotListen, refuseConnections } from "../platform/http/listener.ts";
import { webSocketHandler } from "../platform/http/websocket.ts";

// Time after SIGTERM in which requests are still accepted, so that load balancers see /readyz fail
// first.
const LEAVE_MS = 2000;
// Time in which responses on open connections tell clients to open their next connection
// elsewhere.
const LINGER_MS = 500;
const DRAIN_MS = 6000;
const ANSWER_MS = 200;
const IDLE_TIMEOUT_S = 60;

type Serving = Pick<App, "edge" | "clients" | "health" | "presence" | "commitLog">;

/**
 * Listens for the requests of a serving process. Disposing it answers the requests in progress and
 * commits their data.
 */
export class ServeListener implements AsyncDisposable {
  readonly #app: Serving;
  readonly #server: ReturnType<typeof listen>;
  #isLeaving = false;

  /** Throws UsageError if the host or port cannot be listened on. */
  constructor(app: Serving, config: Config, reusePort: boolean) {
    this.#app = app;
    this.#server = listen(config, reusePort, app.edge.fetch.bind(app.edge));
    app.clients.attach(this.#server);
  }

  get url(): string {
    return this.#server.url.href;
  }

  /** Makes /readyz fail for two seconds, so that load balancers see that this process will end. */
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

  /** Refuses new connections, answers the requests in progress, and commits their data. */
  async #drain(): Promise<void> {
    const { edge, presence, commitLog } = this.#app;
    const server = this.#server;
    // Connections that are not accepted yet are reset. They are few, because clients have kept
    // theirs until now.
    const lingers = this.#isLeaving && (await refuseConnections(Number(server.port)));
    // Not awaited: the promise resolves only when idle connections end, too.
    if (!lingers) void server.stop();
    edge.draining = true;
    const blocked = presence.disconnectAll();
    const closedMs = performance.now();
    const lingerMs = lingers ? LINGER_MS : 0;
    commitLog.closeAll();
    // Bun's `pendingRequests` includes responses whose bodies are still being sent.
    const isOpen = () => edge.active > 0 || server.pendingRequests > blocked;
    for (let ms = 0; ms < lingerMs || (isOpen() && ms < DRAIN_MS);) {
      commitLog.closeAll();
      await Bun.sleep(10);
      ms = performance.now() - closedMs;
    }
    // Tell clients that still wait to send the data again, rather than cut them off.
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
      // Routes bound their bodies themselves; this limit would be the same for all.
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
      development: false,
    });
  } catch (cause) {
    throw cannotListen(config.host, config.port, cause);
  }
}
