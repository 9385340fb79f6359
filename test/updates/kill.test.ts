import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { PublishedBefore } from "../support/published-before.ts";
import { Random } from "../support/random.ts";
import { serverBeside } from "../support/requests.ts";
import { ServerProcess, envOf } from "../support/server-process.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";
import {
  UpdateApi,
  garbage,
  hashesOf,
  leftovers,
  makeDue,
  unfinishedParts,
} from "../support/updates.ts";
import { MAIN } from "../support/program.ts";

setDefaultTimeout(90_000);

const MIB = 2 ** 20;
const BYTES = new Random(8).bytes(24 * MIB);
const SENT = 22 * MIB;

async function worker(app: TestApp): Promise<ServerProcess> {
  return await ServerProcess.start(envOf(app), [MAIN, "work"]);
}

async function swept(app: TestApp): Promise<void> {
  await eventually("the worker has swept", async () => (await garbage(app)) === 0, 30_000);
  expect(await leftovers(app)).toEqual([]);
}

describe.each(["files", "s3"] as const)("on %s", (store) => {
  test.concurrent("a server killed in the middle of an upload leaves no row, and a worker takes away the rest", async () => {
    await using app = await TestApp.start({ store });
    const before = await PublishedBefore.in(app);
    await using server = await ServerProcess.start(envOf(app));
    const api = before.api.at(server);
    // The end of the server ends the connections.
    for (const version of [before.version, "2265_01"])
      await api.begin({ version, bytes: BYTES }, SENT);
    await eventually("both are stored", async () => (await leftovers(app)).length === 2, 30_000);
    await server.kill();
    expect(await before.api.list()).toHaveLength(1);
    expect(await garbage(app)).toBe(2);
    await makeDue(app);
    await using _ = await worker(app);
    await swept(app);
    await before.isAllThereIs();
  });

  test.concurrent("a killed server's version is published by another at once", async () => {
    await using app = await TestApp.start({ store });
    const api = await UpdateApi.of(app);
    await using server = await ServerProcess.start(envOf(app));
    const { connection } = await api.at(server).begin({ version: "2265_01", bytes: BYTES }, SENT);
    using _ = connection;
    await eventually("bytes are stored", async () => (await leftovers(app)).length > 0, 30_000);
    await server.kill();
    const update = await api.published({ version: "2265_01", bytes: BYTES });
    await makeDue(app);
    await using working = await worker(app);
    expect(working.isRunning).toBe(true);
    await swept(app);
    expect(hashesOf(await (await api.download(update)).bytes())).toEqual(hashesOf(BYTES));
  });

  test.concurrent("a build that was replaced is deleted once it is due, and not before", async () => {
    await using app = await TestApp.start({ store });
    const api = await UpdateApi.of(app);
    await using _ = await worker(app);
    const version = "2265_01";
    await api.published({ version });
    const update = await api.published({ version, bytes: BYTES.subarray(0, 1000) });
    expect(await leftovers(app)).toHaveLength(1);
    await Bun.sleep(3000);
    expect(await leftovers(app)).toHaveLength(1);
    await makeDue(app);
    await swept(app);
    expect(await (await api.download(update)).bytes()).toEqual(BYTES.subarray(0, 1000));
  });
});

describe("a store that fails", () => {
  test.concurrent("in the middle of an upload is 503, and nothing is left", async () => {
    await using faulty = await behindProxy();
    const { app, before, proxy, api } = faulty;
    for (const version of [before.version, "2265_01"]) {
      const { connection, finish } = await api.begin({ version, bytes: BYTES }, SENT);
      using _ = connection;
      await eventually("parts are stored", async () => (await unfinishedParts(app)).length > 0);
      await proxy.refuse();
      finish();
      const { status, headers, body } = await connection.response();
      expect([status, headers.get("content-type")]).toEqual([503, "text/plain; charset=utf-8"]);
      expect(headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
      expect(body.toString()).toMatch(/^[^\n]+\n$/);
      await proxy.restore();
    }
    // What could not be removed is tried again in a while.
    await makeDue(app);
    await using _ = await worker(app);
    await swept(app);
    await before.isAllThereIs();
  });

  test.concurrent("from the first byte on is 503, and nothing is left", async () => {
    await using faulty = await behindProxy();
    const { app, before, proxy, api } = faulty;
    await proxy.refuse();
    const answer = await api.publish({ version: before.version });
    expect(answer.status).toBe(503);
    await proxy.restore();
    await makeDue(app);
    await using _ = await worker(app);
    await swept(app);
    await before.isAllThereIs();
  });
});

/** A second server whose store can be taken away. */
async function behindProxy() {
  const app = await TestApp.start({ store: "s3" });
  const { s3 } = app.config;
  if (s3?.endpoint === undefined) throw new Error("the store is not the tests' S3 server");
  const before = await PublishedBefore.in(app);
  const proxy = await TcpProxy.open(s3.endpoint);
  const endpoint = proxy.urlOf(s3.endpoint).replace(/\/$/, "");
  const server = await serverBeside(app, { config: { ...app.config, s3: { ...s3, endpoint } } });
  return {
    app,
    before,
    proxy,
    api: before.api.at(server),
    [Symbol.asyncDispose]: async () => {
      await server[Symbol.asyncDispose]();
      await proxy[Symbol.asyncDispose]();
      await app[Symbol.asyncDispose]();
    },
  };
}
