import { type Config } from "../platform/config/config.ts";
import { type Scraped, scrape } from "../platform/http/health-routes.ts";
import { type Health } from "../platform/http/health.ts";
import { cannotListen } from "../platform/http/listener.ts";

type Listener = AsyncDisposable & { url: string };

/**
 * Serves health and metrics of a working process, which has no other routes. Returns undefined
 * without METRICS_PORT. Throws UsageError if the port is taken.
 */
export function listenForOperators(
  { host, metricsPort }: Pick<Config, "host" | "metricsPort">,
  health: Health,
  metrics: Scraped,
): Listener | undefined {
  if (metricsPort === undefined) return undefined;
  const ready = async () => {
    const { isReady, body } = await health.report();
    return Response.json(body, { status: isReady ? 200 : 503 });
  };
  try {
    const server = Bun.serve({
      port: metricsPort,
      hostname: host,
      development: false,
      routes: {
        "/livez": () => Response.json({ status: "ok" }),
        "/readyz": ready,
        "/metrics": async () => await scrape(metrics),
      },
      fetch: () => Response.json({ error: "no such route" }, { status: 404 }),
      error: () => Response.json({ error: "the metrics cannot be read" }, { status: 503 }),
    });
    return {
      url: server.url.href,
      [Symbol.asyncDispose]: async () => await server.stop(true),
    };
  } catch (cause) {
    throw cannotListen(host, metricsPort, cause);
  }
}
