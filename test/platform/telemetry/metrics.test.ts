import { gzipSync } from "node:zlib";
import { expect, test } from "bun:test";

import { metric } from "../../support/answers.ts";
import { TestApp } from "../../support/app.ts";
import { aBatch } from "../../support/batches.ts";
import { eventually } from "../../support/eventually.ts";
import { FaultyObjects, fails, succeeds, waitsFor } from "../../support/faulty-objects.ts";
import { aFile, upload } from "../../support/images.ts";
import { aProject } from "../../support/projects.ts";
import { RawConnection } from "../../support/raw-connection.ts";
import { append, serverBeside } from "../../support/requests.ts";
import { Scrape } from "../../support/scrape.ts";
import { TcpProxy } from "../../support/tcp-proxy.ts";
import { UpdateApi } from "../../support/updates.ts";

const app = TestApp.forTests();

const waiting = (what: string) => `floodgate_segments_waiting{for="${what}"}`;
const up = (name: string) => `floodgate_dependency_up{dependency="${name}"}`;

/** By how much each of the series grew meanwhile. */
async function growth(
  names: string[],
  act: () => Promise<unknown>,
): Promise<Record<string, number>> {
  const values = async () =>
    await Promise.all(names.map((name) => metric(app, `floodgate_${name}`)));
  const before = await values();
  await act();
  const after = await values();
  return Object.fromEntries(
    names.map((name, index) => [name, (after[index] ?? 0) - (before[index] ?? 0)]),
  );
}

test("the metrics are Prometheus text, each with its help and unit, and those of the process among them", async () => {
  await app.aSession();
  const { families, series } = await Scrape.of(app);
  for (const name of ["process_cpu_seconds_total", "process_resident_memory_bytes"])
    expect(series).toContain(`${name}{command="serve"}`);
  for (const [name, { help, type }] of families) {
    expect(help).toEndWith(".");
    expect(name).toMatch(/^(?:floodgate|process|nodejs)_[a-z_0-9]+$/);
    // The library's own gauges of the process are not all named so.
    if (type === "counter") expect(name).toEndWith("_total");
    if (type === "histogram") expect(name).toMatch(/_(?:seconds|bytes|records)$/);
  }
});

test("batches are counted by outcome, in bytes as they were sent, and by segment", async () => {
  const session = await app.aSession();
  const batch = aBatch();
  const zipped = gzipSync(aBatch({ salt: "zipped" }));
  const stored = 'batches_total{outcome="stored"}';
  const duplicate = 'batches_total{outcome="duplicate"}';
  const framing = 'framing_errors_total{reason="leading_type"}';
  const segments = 'segments_total{outcome="committed"}';
  const grown = await growth(
    [stored, duplicate, "batch_bytes_total", framing, segments],
    async () => {
      await app.append(session, batch);
      await app.append(session, batch);
      await app.append(session, zipped, "/v1/ios/late", { "content-encoding": "gzip" });
      await app.append(session, Buffer.from("xyz"));
      await app.append(session, new Uint8Array());
    },
  );
  expect(grown).toEqual({
    [stored]: 3,
    [duplicate]: 1,
    batch_bytes_total: 2 * batch.length + zipped.length + 3,
    [framing]: 1,
    [segments]: 4,
  });
  expect(await metric(app, "floodgate_inflight_bytes")).toBe(0);
});

test("starts are counted by outcome", async () => {
  const { projectID } = await aProject(app, { sampleRate: 0 });
  const outcomes = ["new", "resumed", "unrecorded", "sampled_out"];
  const names = outcomes.map((outcome) => `session_starts_total{outcome="${outcome}"}`);
  const grown = await growth(names, async () => {
    const { token } = await app.aSession();
    await app.aSession({ token });
    await app.aSession({ token });
    await app.aSession({ doNotRecord: true });
    await app.start({ projectID });
    await app.start({ trackerVersion: null });
  });
  expect(Object.values(grown)).toEqual([1, 2, 1, 1]);
});

test("images are counted by outcome", async () => {
  const names = ["stored", "known", "conflict"].map((one) => `images_total{outcome="${one}"}`);
  const session = await app.aSession();
  const grown = await growth(names, async () => {
    await upload(app, session, [aFile("a"), aFile("b")]);
    await upload(app, session, [aFile("a"), aFile("b", "other"), aFile("c")]);
    await upload(app, session, [aFile("d"), aFile("../e")]);
  });
  expect(Object.values(grown)).toEqual([3, 1, 1]);
});

function labels(route: string, method: string, status: number): string {
  return `http_requests_total{route="${route}",method="${method}",status="${status}"}`;
}

test("answers are counted by route and status, with as few labels as there are routes", async () => {
  const names = [
    labels("/v1/sessions/:sessionID", "GET", 404),
    labels("/v1/images/:projectId/:hash", "GET", 404),
    labels("unknown", "GET", 404),
    labels("/v1/ios/i", "POST", 401),
    labels("/v1/ios/i", "PUT", 405),
    'http_request_duration_seconds_count{route="/v1/ios/i"}',
  ];
  const grown = await growth(names, async () => {
    for (let n = 0; n < 10; n++) {
      await app.fetch(`/v1/sessions/${n}`);
      await app.fetch(`/ingest/v1/sessions/${n}/`);
      await app.fetch(`/v1/images/${n}/x${n}`);
      await app.fetch(`/nowhere/${n}`);
      await app.post("//v1/ios/i", "x");
    }
    await app.fetch("/v1/ios/i", { method: "PUT" });
  });
  expect(Object.values(grown)).toEqual([20, 10, 10, 10, 1, 11]);
  const text = await (await app.fetch("/metrics")).text();
  expect(text).not.toMatch(/route="[^"]*\d{2,}/);
  expect(text).not.toContain("nowhere");
});

test("a method that nobody knows makes no label", async () => {
  for (const method of ["MADEUP", "get", "X".repeat(100)]) {
    using connection = await RawConnection.open(app.url);
    connection.head(`${method} /livez`);
    await Promise.race([connection.closed(), connection.response().catch(() => undefined)]);
  }
  const text = await (await app.fetch("/metrics")).text();
  for (const method of ["MADEUP", "get", "XXX"]) expect(text).not.toContain(`method="${method}`);
});

test("errors are counted by their reason, and only what is acknowledged counts as that", async () => {
  await using own = await TestApp.start({ env: { STRICT_FRAMING: "true" } });
  const session = await own.aSession();
  const batches = Array.from({ length: 7 }, (_, nth) => aBatch({ salt: `good${nth}` }));
  for (const batch of batches) expect((await own.append(session, batch)).status).toBe(200);
  const refused = [
    own.append(session, Buffer.from("xyz")),
    own.append(session, new Uint8Array()),
    own.append(session, new Uint8Array(1_100_000)),
    own.append({ ...session, token: "a.b.c.d" }, aBatch()),
    own.fetch("/nowhere"),
  ];
  const statuses = (await Promise.all(refused)).map(({ status }) => status);
  expect(statuses).toEqual([400, 400, 413, 401, 404]);
  const scrape = await Scrape.of(own);
  const reasons = ["framing", "invalid", "too_large", "unauthorized", "no_route", "overload"];
  expect(
    reasons.map((reason) => scrape.value(`floodgate_refusals_total{reason="${reason}"}`)),
  ).toEqual([1, 1, 1, 1, 1, 0]);
  expect(scrape.sum("floodgate_refusals_total")).toBe(5);
  const acknowledged = 'floodgate_acknowledgement_duration_seconds_count{kind="batch"}';
  expect(scrape.value(acknowledged)).toBe(7);
  expect(
    scrape.value('floodgate_http_request_duration_seconds_count{route="/v1/ios/append"}'),
  ).toBe(11);
  // One of them is the session's row; the first batch may share its segment.
  expect(scrape.value("floodgate_segment_records_sum")).toBe(8);
});

test("what waits for a slow store is seen while it waits, with its age, and what is refused meanwhile as overload", async () => {
  const objects = new FaultyObjects();
  const env = { INFLIGHT_BYTES_MAX: "1048576", COMMIT_BYTES: "65536" };
  await using own = await TestApp.start({ wrapObjects: objects.wrap, env });
  const session = await own.aSession();
  const gate = Promise.withResolvers<void>();
  objects.otherwise = waitsFor(gate.promise);
  const batches = Array.from({ length: 10 }, (_, nth) =>
    aBatch({ bytes: 40_000, salt: `held${nth}` }),
  );
  const bytes = batches.reduce((sum, { length }) => sum + length, 0);
  const held = batches.map(async (batch) => (await own.append(session, batch)).status);
  await eventually("all are read", async () => {
    const { value } = bound(await Scrape.of(own));
    return value("floodgate_inflight_bytes") === bytes && value(waiting("put")) === 8;
  });
  await Bun.sleep(300);
  const { value } = bound(await Scrape.of(own));
  expect(value("floodgate_inflight_limit_bytes")).toBe(1_048_576);
  expect(value("floodgate_oldest_record_age_seconds")).toBeWithin(0.3, 10);
  expect(value(waiting("index"))).toBe(0);
  expect((await own.append(session, aBatch({ bytes: 700_000 }))).status).toBe(503);
  gate.resolve();
  expect(await Promise.all(held)).toEqual(held.map(() => 200));
  const after = bound(await Scrape.of(own));
  expect(after.value("floodgate_oldest_record_age_seconds")).toBe(0);
  expect(after.value('floodgate_refusals_total{reason="overload"}')).toBe(1);
});

test("a store and a database that fail are told apart, and from readiness", async () => {
  const objects = new FaultyObjects();
  await using proxy = await TcpProxy.open(app.databaseUrl);
  await using own = await serverBeside(app, {
    databaseUrl: proxy.urlOf(app.databaseUrl),
    wrapObjects: objects.wrap,
    commitDeadlineMs: 500,
  });
  const session = await app.aSession();
  expect((await append(own, session, aBatch({ salt: "known" }))).status).toBe(200);
  objects.otherwise = fails;
  objects.beforePing = () => {
    throw new Error("the store is away");
  };
  expect((await append(own, session, aBatch({ salt: "one" }))).status).toBe(503);
  const first = bound(await Scrape.of(own));
  objects.otherwise = succeeds;
  objects.beforePing = () => undefined;
  await proxy.refuse();
  expect((await append(own, session, aBatch({ salt: "two" }))).status).toBe(503);
  const second = bound(await Scrape.of(own));
  const [store, database] = ["store", "database"].map(
    (reason) => `floodgate_refusals_total{reason="${reason}"}`,
  );
  const names = [store ?? "", database ?? "", up("objects"), up("postgres")];
  expect(names.map(first.value)).toEqual([1, 0, 0, 1]);
  expect(names.map(second.value)).toEqual([1, 1, 1, 0]);
  expect(second.value('floodgate_segments_total{outcome="failed"}')).toBe(2);
  expect(second.value('floodgate_segment_retries_total{step="put"}')).toBeGreaterThan(0);
  expect(second.value('floodgate_segment_retries_total{step="index"}')).toBeGreaterThan(0);
  expect(first.value("floodgate_database_busy_connections")).toBeGreaterThanOrEqual(0);
  // What cannot be read has no value.
  expect(second.value("floodgate_database_busy_connections")).toBeNaN();
});

test("builds are counted as they are published and downloaded", async () => {
  const api = await UpdateApi.of(app);
  const names = [
    "update_publishes_total",
    "update_publish_bytes_total",
    'update_downloads_total{kind="whole"}',
    'update_downloads_total{kind="range"}',
    "update_download_bytes_total",
  ];
  const bytes = new Uint8Array(1000);
  const grown = await growth(names, async () => {
    const { URI } = await api.published({ bytes });
    await (await fetch(URI)).bytes();
    await fetch(URI, { method: "HEAD" });
    await (await fetch(URI, { headers: { range: "bytes=900-" } })).bytes();
    await api.publish({ version: "not a version", bytes });
  });
  expect(Object.values(grown)).toEqual([1, 1000, 1, 1, 1100]);
});

function bound(scrape: Scrape) {
  return { value: (series: string) => scrape.value(series) };
}
