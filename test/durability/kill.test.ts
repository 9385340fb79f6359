import { expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { Auditor } from "../support/auditor.ts";
import { Random } from "../support/random.ts";
import { ServerProcess, envOf } from "../support/server-process.ts";

const [KILLS, ACKNOWLEDGED_MIN] = process.env["TEST_LONG"] === undefined ? [10, 150] : [200, 500];
const LIFE_MS = { from: 30, to: 500 };

test(`nothing acknowledged is lost or doubled by ${KILLS} times kill -9`, async () => {
  const seed = Number(process.env["TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  process.stdout.write(`kill -9: TEST_SEED=${seed}\n`);
  const random = new Random(seed);
  await using app = await TestApp.start();
  const env = envOf(app);
  let server = await ServerProcess.start(env);
  const target = { url: server.url };
  const { id: projectId } = app.project;
  const options = { target, projectId, projectID: app.projectID, seed };
  const auditor = new Auditor({ ...options, clients: 50, imageClients: 10 });
  const end = new AbortController();
  const running = auditor.run(end.signal);
  try {
    // On a slow machine a server may hardly serve before it is killed, so there are more of them.
    for (let kill = 0; kill < KILLS || auditor.acknowledged < ACKNOWLEDGED_MIN; kill++) {
      await Bun.sleep(random.integer(LIFE_MS.from, LIFE_MS.to));
      await server.kill();
      server = await ServerProcess.start(env);
      target.url = server.url;
    }
    end.abort();
    await running;
    const report = await auditor.report(app.sql, app.objects);
    const { acknowledged, retried, repeated, images, orphans, segments } = report;
    const counts = `seed ${seed}: ${KILLS} kills, ${acknowledged} batches and ${images} images acknowledged, ${retried} retried, ${repeated} repeated, ${segments} segments, ${orphans.length} orphans`;
    process.stdout.write(`kill -9: ${counts}\n`);
    expect(report.faults, counts).toEqual([]);
    expect(report.read, counts).toBe(acknowledged);
    expect(acknowledged, counts).toBeGreaterThanOrEqual(ACKNOWLEDGED_MIN);
    expect(images, counts).toBeGreaterThan(0);
    expect(retried, counts).toBeGreaterThan(KILLS);
  } finally {
    end.abort();
    await server[Symbol.asyncDispose]();
  }
}, 600_000);
