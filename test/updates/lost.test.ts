import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { metric } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { cut, gone, harm, keptLog } from "../support/damage.ts";
import { FaultyObjects } from "../support/faulty-objects.ts";
import { Random } from "../support/random.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { type ServerBeside, serverBeside } from "../support/requests.ts";
import { type Update, UpdateApi, plainOf } from "../support/updates.ts";

const LARGE = new Random(31).bytes(2_000_000);
const RANGES = [undefined, "bytes=0-9", "bytes=100-1500000"];

describe.each(["files", "s3"] as const)("a build in %s", (store) => {
  const objects = new FaultyObjects();
  const kept = keptLog();
  let app: TestApp;
  let server: ServerBeside;
  let api: UpdateApi;

  beforeAll(async () => {
    app = await TestApp.start({ store });
    server = await serverBeside(app, { log: kept.log, wrapObjects: objects.wrap });
    api = (await UpdateApi.of(app)).at(server);
  });

  afterAll(async () => {
    await server[Symbol.asyncDispose]();
    await app[Symbol.asyncDispose]();
  });

  async function keyOf({ Id }: Update): Promise<string> {
    const [row] = await app.sql<{ key: string }[]>`
      select 'builds/' || object_id as key from builds where id = ${Id}`;
    return row?.key ?? "";
  }

  async function headOf({ Version, Name }: Update): Promise<number> {
    using connection = await RawConnection.open(server.url);
    connection.head(`HEAD /source/arm64/${Version}/${Name}`);
    return (await connection.response({ bodyless: true })).status;
  }

  test("whose object is gone is 410, whole, in parts and for HEAD, logged with the key and counted", async () => {
    const update = await api.published({ bytes: LARGE });
    const key = await keyOf(update);
    await harm(app.objects, key, gone);
    for (const range of RANGES) {
      const answer = await api.download(update, range === undefined ? {} : { range });
      expect(answer.headers.get("cache-control")).toBe("no-store");
      expect(await plainOf(answer)).toEqual([410, "the build is gone from the store\n"]);
    }
    expect(await headOf(update)).toBe(410);
    expect(kept.lines).toEqual([
      expect.objectContaining({ level: 50, key, reason: "missing", build: update.Id }),
    ]);
    expect(await metric(server, 'floodgate_missing_records_total{reason="missing"}')).toBe(4);
  });

  test("whose object is cut is 410 where the rest is wanted", async () => {
    const update = await api.published({ bytes: LARGE });
    await harm(app.objects, await keyOf(update), cut(1_000_000));
    expect(await plainOf(api.download(update))).toEqual([
      410,
      "the build is damaged in the store\n",
    ]);
    expect(await headOf(update)).toBe(410);
    const part = await api.download(update, { range: "bytes=0-9" });
    expect([part.status, await part.bytes()]).toEqual([206, Buffer.from(LARGE.subarray(0, 10))]);
  });

  test("is 503 while the store is away, for HEAD as well", async () => {
    const update = await api.published({ bytes: LARGE });
    objects.beforeRead = () => {
      throw new Error("the store is away");
    };
    for (const range of RANGES) {
      const answer = await api.download(update, range === undefined ? {} : { range });
      expect(answer.headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
      expect(await plainOf(answer)).toEqual([503, "the object store is away, try again\n"]);
    }
    expect(await headOf(update)).toBe(503);
    expect(await metric(server, 'floodgate_refusals_total{reason="store"}')).toBe(4);
    objects.beforeRead = () => undefined;
    expect((await api.download(update)).status).toBe(200);
  });
});
