import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { Random } from "../support/random.ts";
import { type ServerBeside, serverBeside } from "../support/requests.ts";
import { type Update, UpdateApi, aVersion, hashesOf, updateOf } from "../support/updates.ts";

const PUBLISHERS = 4;
const ROUNDS = 4;
const NAME = "app.apk";

/** What one publisher sends: every field tells which one it was. */
type Edition = { notes: string; bytes: Uint8Array<ArrayBuffer>; sha256: string };

function anEdition(nth: number, length: number): Edition {
  const bytes = Uint8Array.from(new Random(nth).bytes(length + nth));
  return { notes: `edition ${nth}`, bytes, sha256: hashesOf(bytes).SHA256 };
}

describe.each(["files", "s3"] as const)("two servers on %s", (store) => {
  let app: TestApp;
  let beside: ServerBeside;
  let apis: [UpdateApi, UpdateApi];

  beforeAll(async () => {
    app = await TestApp.start({ store });
    beside = await serverBeside(app);
    const api = await UpdateApi.of(app);
    apis = [api, api.at(beside)];
  });

  afterAll(async () => {
    await beside[Symbol.asyncDispose]();
    await app[Symbol.asyncDispose]();
  });

  /** Resolves once both servers send these bytes, which must be within the second that a publish has. */
  async function everywhere(row: Update): Promise<void> {
    const sends = async (api: UpdateApi) =>
      hashesOf(await (await api.download(row)).bytes()).SHA256 === row.SHA256;
    for (const api of apis) await eventually("it is sent", async () => await sends(api), 1000);
  }

  test("show one edition or another of a build that many publish at once, and no mixture", async () => {
    const version = aVersion();
    const length = 300_000;
    const editions = Array.from({ length: PUBLISHERS * ROUNDS }, (_, nth) =>
      anEdition(nth, length),
    );
    const bySha256 = new Map(editions.map((edition) => [edition.sha256, edition]));
    const [first] = editions;
    if (first === undefined) throw new Error("there are editions");
    await apis[0].published({ version, name: NAME, ...first });
    await eventually("both know it", async () => (await apis[1].check("0001_01")).ok);

    const isWhole = (update: Update) => {
      const { notes, bytes } = bySha256.get(update.SHA256) ?? first;
      const Size = `${(bytes.length / 1000).toFixed(1)} kB`;
      expect(update).toMatchObject({ ...hashesOf(bytes), Message: notes, Size });
    };
    const publish = async (nth: number) => {
      const api = apis[nth % 2 === 0 ? 0 : 1];
      for (let round = 0; round < ROUNDS; round++)
        isWhole(await api.published({ version, name: NAME, ...editions[nth * ROUNDS + round] }));
    };
    const end = new AbortController();
    let reads = 0;
    const read = async (api: UpdateApi) => {
      for (; !end.signal.aborted; reads++) {
        const offer = await api.check("0001_01");
        const sha256 = offer.headers.get("x-build-sha256");
        const update = await updateOf(offer);
        expect(update.SHA256).toBe(String(sha256));
        isWhole(update);
        const download = await api.download(update);
        expect(download.status).toBe(200);
        const got = hashesOf(await download.bytes()).SHA256;
        expect(download.headers.get("etag")).toBe(`"${got}"`);
        expect(bySha256.has(got)).toBe(true);
      }
    };
    const reading = Promise.all(apis.map(read));
    try {
      await Promise.all(Array.from({ length: PUBLISHERS }, (_, nth) => publish(nth)));
    } finally {
      end.abort();
    }
    await reading;
    expect(reads).toBeGreaterThan(10);

    const rows = (await apis[0].list()).filter(({ Version }) => Version === version);
    expect(rows).toHaveLength(1);
    for (const row of rows) {
      isWhole(row);
      await everywhere(row);
    }
  });

  test("make one build of a new version that many publish at once", async () => {
    const version = aVersion();
    const editions = Array.from({ length: 6 }, (_, nth) => anEdition(nth, 5000));
    const published = await Promise.all(
      editions.map(async (edition, nth) => {
        const api = apis[nth % 2 === 0 ? 0 : 1];
        return await api.published({ version, name: NAME, ...edition });
      }),
    );
    expect(new Set(published.map(({ Id }) => Id)).size).toBe(1);
    const rows = (await apis[0].list()).filter(({ Version }) => Version === version);
    expect(rows).toHaveLength(1);
    for (const row of rows) {
      const edition = editions.find(({ sha256 }) => sha256 === row.SHA256);
      expect(row.Message).toBe(String(edition?.notes));
      await everywhere(row);
    }
  });

  test("give the version to who ends last, however long the other took", async () => {
    const version = aVersion();
    const [slow, fast] = [anEdition(1, 2_000_000), anEdition(2, 1000)];
    const { connection, finish } = await apis[0].begin({ version, ...slow }, 1_000_000);
    using _ = connection;
    const published = await apis[1].published({ version, ...fast });
    expect(published).toMatchObject({ Message: fast.notes, SHA256: fast.sha256 });
    expect(hashesOf(await (await apis[1].download(published)).bytes()).SHA256).toBe(fast.sha256);
    finish();
    const { status, body } = await connection.response();
    expect(status).toBe(200);
    expect(JSON.parse(body.toString())).toMatchObject({ Id: published.Id, SHA256: slow.sha256 });
    const stored = await apis[0].download(published);
    expect(hashesOf(await stored.bytes()).SHA256).toBe(slow.sha256);
  });

  test("keep what is being read when the build is replaced under the reader", async () => {
    const version = aVersion();
    const old = anEdition(3, 12_000_000);
    const update = await apis[0].published({ version, ...old });
    const answer = await apis[0].download(update);
    const reader = answer.body?.getReader();
    if (reader === undefined) throw new Error("a download has a body");
    const first = await reader.read();
    await apis[0].published({ version, bytes: Buffer.from("new") });
    const got: Uint8Array[] = first.value === undefined ? [] : [first.value];
    for (let next = await reader.read(); !next.done; next = await reader.read())
      got.push(next.value);
    expect(hashesOf(Buffer.concat(got)).SHA256).toBe(old.sha256);
  });

  test("refuse an upload whose object was given up meanwhile", async () => {
    const version = aVersion();
    const bytes = new Uint8Array(1_000_000);
    const { connection, finish } = await apis[0].begin({ version, bytes }, 500_000);
    using _ = connection;
    // As a worker would, had the server been frozen until the time of its upload was over.
    await eventually("it is given up", async () => {
      const gone = await app.sql`delete from build_garbage
        where due_at between now() and now() + interval '2 minutes' returning object_id`;
      return gone.length > 0;
    });
    finish();
    const { status, headers } = await connection.response();
    expect([status, headers.get("content-type")]).toEqual([503, "text/plain; charset=utf-8"]);
    expect((await apis[0].list()).map(({ Version }) => Version)).not.toContain(version);
  });
});
