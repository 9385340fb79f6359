import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "bun:test";

import { metric } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { aFile, upload } from "../support/images.ts";
import { aProject } from "../support/projects.ts";
import { RawConnection } from "../support/raw-connection.ts";

const LINE =
  /^(?:# (?:HELP|TYPE) \w+ .*|\w+(?:\{(?:\w+="[^"]*",?)+\})? (?:-?[\d.e+-]+|\+Inf|NaN))$/;

let app: TestApp;

beforeAll(async () => {
  app = await TestApp.start();
});

afterAll(async () => {
  await app[Symbol.asyncDispose]();
});

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

test("the metrics are Prometheus text, with those of the process", async () => {
  await app.aSession();
  const answer = await app.fetch("/metrics");
  expect(answer.headers.get("content-type")).toStartWith("text/plain; version=0.0.4");
  const lines = (await answer.text())
    .trimEnd()
    .split("\n")
    .filter((line) => line !== "");
  expect(lines.filter((line) => !LINE.test(line))).toEqual([]);
  for (const name of ["process_cpu_seconds_total", "process_resident_memory_bytes"])
    expect(lines.some((line) => line.startsWith(`${name} `))).toBe(true);
  const names = lines.filter((line) => line.startsWith("# TYPE")).map((line) => line.split(" ")[2]);
  expect(new Set(names).size).toBe(names.length);
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
