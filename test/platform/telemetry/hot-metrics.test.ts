import { expect, test } from "bun:test";
import { Counter, Histogram, Registry } from "prom-client";

import {
  HotCounter,
  HotHistogram,
  HotRegistry,
} from "../../../src/platform/telemetry/hot-metrics.ts";

const LABELS = [
  { route: "/a", status: 200 },
  { route: "/a", status: 404 },
  { route: "/b", status: 200 },
];
const VALUES = [0.05, 0.1, 0.1000001, 1, 7, 0];

test("a series of a counter is scraped like one that the library counts", async () => {
  const settings = { name: "answers_total", help: "Answers.", labelNames: ["route", "status"] };
  const [ours, theirs] = [new HotRegistry(), new Registry()];
  const hot = new HotCounter({ ...settings, registers: [ours] });
  const plain = new Counter({ ...settings, registers: [theirs] });
  for (const labels of [...LABELS, ...LABELS]) {
    hot.series(labels)();
    plain.inc(labels);
  }
  expect(await ours.metrics()).toBe(await theirs.metrics());
  expect(await jsonOf(ours)).toEqual(await jsonOf(theirs));
});

test("a series of a histogram is scraped like one that the library observes", async () => {
  const settings = {
    name: "answer_seconds",
    help: "Seconds.",
    labelNames: ["route", "status"],
    buckets: [0.1, 1, 5],
  };
  const [ours, theirs] = [new HotRegistry(), new Registry()];
  const hot = new HotHistogram({ ...settings, registers: [ours] });
  const plain = new Histogram({ ...settings, registers: [theirs] });
  for (const labels of LABELS)
    for (const value of VALUES) {
      hot.series(labels)(value);
      plain.observe(labels, value);
    }
  expect(await ours.metrics()).toBe(await theirs.metrics());
  expect(await jsonOf(ours)).toEqual(await jsonOf(theirs));
});

/** Returns the metrics as they are sent between processes, without exemplars, which nobody records. */
async function jsonOf(registry: Registry): Promise<unknown> {
  const metrics = await registry.getMetricsAsJSON();
  return JSON.parse(
    JSON.stringify(metrics, (key, value: unknown) => (key === "exemplar" ? undefined : value)),
  );
}
