import { Elysia, t } from "elysia";
import { pino } from "pino";

import { AppError, STATUS } from "../../src/platform/errors.ts";
import { Clients } from "../../src/platform/http/clients.ts";
import { Cors } from "../../src/platform/http/cors.ts";
import { docs } from "../../src/platform/http/docs.ts";
import { Edge } from "../../src/platform/http/edge.ts";
import { type Policy, mount } from "../../src/platform/http/policy.ts";
import { RateLimit } from "../../src/platform/http/rate-limits.ts";
import { Router } from "../../src/platform/http/router.ts";
import { ServerKeys } from "../../src/platform/http/server-keys.ts";
import { type WebSocketOwner, webSocketHandler } from "../../src/platform/http/websocket.ts";
import { Metrics } from "../../src/platform/telemetry/metrics.ts";
import { SERVER_KEY } from "./app.ts";

export const ORIGIN = "https://admin.example";
export const FORMAT = "text/made-up";

/** Renders an error in a format that no other route has. */
function renderMadeUp(error: unknown): Response {
  const code = error instanceof AppError ? error.code : "internal";
  return new Response(`made up: ${code}`, {
    status: STATUS[code],
    headers: { ...(error instanceof AppError && error.headers), "content-type": FORMAT },
  });
}

type Options = { ratePerSecond?: number; requestsMax?: number };

/** Server of one slice below `/made/up`, whose policy the test sets. */
export class MadeUpRoutes implements AsyncDisposable {
  readonly lines: Record<string, unknown>[] = [];
  readonly metrics = new Metrics();
  readonly #server: Bun.Server<WebSocketOwner>;

  constructor(policy: Partial<Policy> & Pick<Policy, "audience">, options: Options = {}) {
    const mounted = mount({ tag: "Made up", errors: renderMadeUp, headers: ["x-made"], ...policy });
    const slice = new Elysia({ name: "made-up", ...mounted })
      .get("/made/up", () => "made")
      .post("/made/up", () => "posted", { parse: "none" })
      .get("/made/up/:id/checked", () => "checked", { query: t.Object({ n: t.Number() }) })
      .get("/made/up/:id", ({ params }) => {
        if (params.id === "fault") throw new Error("a fault");
        throw new AppError("conflict", "not now");
      });
    const { metrics } = this;
    const { ratePerSecond: perSecond, requestsMax } = options;
    const clients = new Clients([]);
    const edge = new Edge({
      router: new Router([slice, docs()], new ServerKeys([SERVER_KEY])),
      clients,
      cors: new Cors([ORIGIN]),
      metrics,
      log: pino({}, { write: (line: string) => void this.lines.push(JSON.parse(line)) }),
      rateLimit:
        perSecond === undefined
          ? undefined
          : new RateLimit({ kind: "address", perSecond, what: "requests" }, metrics),
      requestsMax,
    });
    this.#server = Bun.serve({
      port: 0,
      fetch: edge.fetch.bind(edge),
      websocket: webSocketHandler,
    });
    clients.attach(this.#server);
  }

  async fetch(
    path: string,
    method = "GET",
    headers: Record<string, string> = { "x-server-key": SERVER_KEY },
  ): Promise<Response> {
    return await fetch(this.#server.url.origin + path, { method, headers });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true);
  }
}
