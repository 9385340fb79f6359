import { Elysia } from "elysia";
import { Registry } from "prom-client";

import { json } from "./docs.ts";
import { type Health } from "./health.ts";

const METRICS_EXAMPLE = 'floodgate_batches_total{outcome="stored"} 1';

/** Metrics in Prometheus' text format. */
export type Scraped = { text(): Promise<string> };

/** What a scrape gets. */
export async function scrape(metrics: Scraped): Promise<Response> {
  return new Response(await metrics.text(), {
    headers: { "content-type": Registry.PROMETHEUS_CONTENT_TYPE },
  });
}

export function healthRoutes(health: Health, metrics: Scraped) {
  return new Elysia({ name: "health" })
    .get("/", () => ({ name: "floodgate", docs: "/docs" }), {
      detail: {
        tags: ["Operation"],
        summary: "The service is there",
        responses: { 200: json({ name: "floodgate", docs: "/docs" }) },
      },
    })
    .get("/livez", () => ({ status: "ok" }), {
      detail: {
        tags: ["Operation"],
        summary: "The process runs",
        responses: { 200: json({ status: "ok" }) },
      },
    })
    .get(
      "/readyz",
      async ({ set }) => {
        const { isReady, body } = await health.report();
        if (!isReady) set.status = 503;
        return body;
      },
      {
        detail: {
          tags: ["Operation"],
          summary: "The process can take requests",
          responses: {
            200: json({ status: "ok", postgres: "ok", objects: "ok" }),
            503: json({ status: "unavailable", postgres: "down", objects: "ok" }, "What fails"),
          },
        },
      },
    )
    .get("/metrics", async () => await scrape(metrics), {
      detail: {
        tags: ["Operation"],
        summary: "Prometheus metrics, of all processes that one `start` keeps",
        responses: {
          200: { description: "OK", content: { "text/plain": { example: METRICS_EXAMPLE } } },
        },
      },
    });
}
