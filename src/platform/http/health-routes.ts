import { Elysia } from "elysia";
import { Registry } from "prom-client";

import { renderError } from "../errors.ts";
import { json } from "./docs.ts";
import { type Health } from "./health.ts";
import { mount } from "./policy.ts";

const METRICS_EXAMPLE = 'floodgate_batches_total{outcome="stored"} 1';

/** Metrics in Prometheus' text format. */
export type Scraped = { text(): Promise<string> };

/** Makes the response to a Prometheus scrape. */
export async function scrape(metrics: Scraped): Promise<Response> {
  return new Response(await metrics.text(), {
    headers: { "content-type": Registry.PROMETHEUS_CONTENT_TYPE },
  });
}

export function healthRoutes(health: Health, metrics: Scraped) {
  return new Elysia({
    name: "health",
    ...mount({ audience: "operator", tag: "Operation", errors: renderError }),
  })
    .get("/", () => ({ name: "floodgate", docs: "/docs" }), {
      detail: {
        summary: "Name of the service",
        responses: { 200: json({ name: "floodgate", docs: "/docs" }) },
      },
    })
    .get("/livez", () => ({ status: "ok" }), {
      detail: {
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
          summary: "The process can take requests",
          responses: {
            200: json({ status: "ok", postgres: "ok", objects: "ok" }),
            503: json(
              { status: "unavailable", postgres: "down", objects: "ok" },
              "A dependency is unavailable",
            ),
          },
        },
      },
    )
    .get("/metrics", async () => await scrape(metrics), {
      detail: {
        summary: "Prometheus metrics of all processes that one `start` keeps running",
        responses: {
          200: { description: "OK", content: { "text/plain": { example: METRICS_EXAMPLE } } },
        },
      },
    });
}
