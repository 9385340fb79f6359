import { buildApp } from "./app.ts";
import { type Clock } from "./platform/clock.ts";
import { type Config } from "./platform/config.ts";
import { openDatabase } from "./platform/database.ts";
import { UsageError } from "./platform/errors.ts";
import { type Log, openLog } from "./platform/log.ts";
import { openBus } from "./platform/open-bus.ts";
import { openObjects } from "./platform/open-objects.ts";
import { webSocketHandler } from "./platform/websocket.ts";
import { type ObjectStore } from "./platform/objects.ts";
import { type indexSegment } from "./ingest/segment-index.ts";

// How long requests are still taken after SIGTERM, so that a load balancer can see /readyz first.
const LEAVE_MS = 2000;
const DRAIN_MS = 6000;
const ANSWER_MS = 200;
const IDLE_TIMEOUT_S = 60;

export type ServerOptions = {
  /** several processes on one port */
  reusePort?: boolean;
  log?: Log;
  /** tests put faults around these */
  wrapObjects?: (objects: ObjectStore) => ObjectStore;
  index?: typeof indexSegment;
  commitDeadlineMs?: number;
  clock?: Clock;
};

export type Server = {
  url: string;
  /** Answers what was begun, commits it, closes. With `leave` it first tells load balancers for two seconds. */
  stop: (options?: { leave: boolean }) => Promise<void>;
};

/** One serving process: `databaseUrl` is that of a migrated database. */
export async function startServer(
  config: Config,
  databaseUrl: string,
  options: ServerOptions = {},
): Promise<Server> {
  const log = options.log ?? openLog(config.logLevel);
  const sql = openDatabase(databaseUrl);
  const opened = await openObjects(config);
  const objects = options.wrapObjects?.(opened) ?? opened;
  const open = await openBus(config, sql, log);
  const app = await buildApp({
    config,
    sql,
    objects,
    log,
    open,
    ...(options.clock !== undefined && { clock: options.clock }),
    ...(options.index !== undefined && { index: options.index }),
    ...(options.commitDeadlineMs !== undefined && { commitDeadlineMs: options.commitDeadlineMs }),
  });
  await Promise.all([app.projects.watch(), app.signatures.watch(), app.offers.watch()]);
  app.presence.start();
  const server = listen(
    config,
    options.reusePort ?? false,
    async (request) => await app.edge.fetch(request),
  );
  app.clients.attach(server);
  log.info({ url: server.url.href, objects: objects.name }, "listening");

  const stop = async ({ leave } = { leave: false }) => {
    app.health.stopping = true;
    app.edge.draining = true;
    if (leave) await Bun.sleep(LEAVE_MS);
    // Stops listening; its promise would wait for idle connections, too.
    void server.stop();
    const deaf = app.presence.sendAway();
    const deadlineMs = performance.now() + DRAIN_MS;
    // Bun's own number counts the answers, too, whose bodies are still being read.
    while (
      (app.edge.active > 0 || server.pendingRequests > deaf) &&
      performance.now() < deadlineMs
    ) {
      app.commitLog.close();
      await Bun.sleep(10);
    }
    // Who still waits is told to send it again, instead of being cut off.
    app.commitLog.abandon();
    await app.commitLog.flush();
    await Bun.sleep(app.edge.active > 0 ? ANSWER_MS : 0);
    await server.stop(true);
    app.projects[Symbol.dispose]();
    app.signatures[Symbol.dispose]();
    app.offers[Symbol.dispose]();
    await app.workerNumber[Symbol.asyncDispose]();
    await app.presence.stop();
    await open[Symbol.asyncDispose]();
    await objects[Symbol.asyncDispose]();
    await sql.end({ timeout: 1 });
    log.info("stopped");
  };
  return { url: server.url.href, stop };
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
    throw new UsageError(
      `cannot listen on ${config.host}:${config.port}: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    );
  }
}
