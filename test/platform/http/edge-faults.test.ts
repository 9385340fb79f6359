import { expect, spyOn, test } from "bun:test";

import { Cors } from "../../../src/platform/http/cors.ts";
import { Router } from "../../../src/platform/http/router.ts";
import { Metrics } from "../../../src/platform/telemetry/metrics.ts";
import { MadeUpRoutes, ORIGIN } from "../../support/made-up-routes.ts";
import { Scrape } from "../../support/scrape.ts";

const fault = (): never => {
  throw new Error("a fault");
};
// Nothing is known to fail there: faults are put in place of the edge's own parts, for one request.
const BEFORE_THE_ROUTE = [
  ["reads the path", () => spyOn(Router.prototype, "policyNear").mockImplementationOnce(fault)],
  ["finds the route", () => spyOn(Router.prototype, "match").mockImplementationOnce(fault)],
] as const;
const AFTER_THE_ROUTE = [
  ["sets the headers", () => spyOn(Cors.prototype, "apply").mockImplementationOnce(fault)],
  ["counts the request", () => spyOn(Metrics.prototype, "request").mockImplementationOnce(fault)],
] as const;

test.each(BEFORE_THE_ROUTE)(
  "a fault while the edge %s is the 500 of an unknown path",
  async (_, fail) => {
    await using routes = new MadeUpRoutes({ audience: "app" });
    using spy = fail();
    await expectFault(routes, "unknown", ORIGIN, '{"error":"internal error"}');
    expect(spy).toHaveBeenCalled();
  },
);

test.each(AFTER_THE_ROUTE)("a fault while the edge %s is the route's 500", async (_, fail) => {
  await using routes = new MadeUpRoutes({ audience: "app" });
  using spy = fail();
  await expectFault(routes, "/made/up", "*", "made up: internal");
  expect(spy).toHaveBeenCalled();
});

/** Expects a 500 that web pages can read, that is counted under `route`, and that is logged. */
async function expectFault(
  routes: MadeUpRoutes,
  route: string,
  origin: string,
  text: string,
): Promise<void> {
  const answer = await routes.fetch("/made/up/", "GET", { origin: ORIGIN });
  expect([answer.status, await answer.text()]).toEqual([500, text]);
  expect(answer.headers.get("access-control-allow-origin")).toBe(origin);
  const id = answer.headers.get("x-request-id");
  expect(id).not.toBeNull();
  expect(routes.lines).toMatchObject([
    { msg: "request failed", err: { message: "a fault" } },
    { msg: "request", id, status: 500 },
  ]);
  const scrape = new Scrape(await routes.metrics.registry.metrics());
  const labels = `{route="${route}",method="GET",status="500"}`;
  expect(scrape.value(`floodgate_http_requests_total${labels}`)).toBe(1);
}
