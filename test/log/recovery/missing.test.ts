import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { gzipSync } from "node:zlib";
import { unpackMultiple } from "msgpackr";

import { metric, objectOf, refusalOf } from "../../support/answers.ts";
import { KEYED, TestApp, type TestSession, splitBatches } from "../../support/app.ts";
import { aBatch } from "../../support/batches.ts";
import { type Harm, cut, flipped, gone, harm, keptLog, segmentKeys } from "../../support/damage.ts";
import { failure } from "../../support/failure.ts";
import { FaultyObjects } from "../../support/faulty-objects.ts";
import { putSegment } from "../../support/made-segment.ts";
import { RawConnection } from "../../support/raw-connection.ts";
import { type ServerBeside, serverBeside } from "../../support/requests.ts";

const BATCHES = 12;
// Offset inside the body of a segment's only batch.
const IN_BODY = 300;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

const batch = (nth: number) => aBatch({ messages: 2, bytes: 1000, salt: `batch ${nth}` });

/** A session of twelve batches, each in its own segment, and how they are read back. */
class Recorded {
  readonly kept = keptLog();
  readonly app: TestApp;
  session: TestSession = { token: "", sessionID: "" };
  keys: string[] = [];
  server: ServerBeside = { url: "", [Symbol.asyncDispose]: async () => undefined };

  private constructor(app: TestApp) {
    this.app = app;
  }

  static async start(store: "files" | "s3" = "files"): Promise<Recorded> {
    const recorded = new Recorded(await TestApp.start({ store }));
    const { app, kept } = recorded;
    recorded.session = await app.aSession();
    const before = new Set(await segmentKeys(app.objects));
    for (let nth = 0; nth < BATCHES; nth++) {
      const [body, headers] =
        nth % 2 === 0 ? [batch(nth), {}] : [gzipSync(batch(nth)), { "content-encoding": "gzip" }];
      expect((await app.append(recorded.session, body, "/v1/ios/append", headers)).status).toBe(
        200,
      );
    }
    recorded.keys = (await segmentKeys(app.objects)).filter((key) => !before.has(key));
    expect(recorded.keys).toHaveLength(BATCHES);
    recorded.server = await serverBeside(app, { log: kept.log });
    return recorded;
  }

  async harm(nth: number, how: Harm): Promise<void> {
    await harm(this.app.objects, this.keys[nth] ?? "", how);
  }

  async read(accept: string, query = ""): Promise<Response> {
    return await fetch(`${this.server.url}/v1/sessions/${this.session.sessionID}/batches${query}`, {
      headers: { ...KEYED, accept },
    });
  }

  /** Returns the number of each batch that was read, and "2 missing" for a gap of two. */
  async asJson(query = ""): Promise<string[]> {
    const { batches } = await objectOf(this.read("application/json", query));
    if (!Array.isArray(batches)) throw new Error("no batches");
    const all = await Promise.all(
      Array.from({ length: BATCHES }, async (_, nth) => JSON.stringify(await messagesOf(nth))),
    );
    return batches.map((entry) =>
      entry.missing === undefined
        ? String(all.indexOf(JSON.stringify(entry.messages)))
        : `${entry.missing.batches} missing`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server[Symbol.asyncDispose]();
    await this.app[Symbol.asyncDispose]();
  }
}

const decoded = new Map<number, unknown>();
let plain: TestApp;
beforeAll(async () => {
  plain = await TestApp.start();
});
afterAll(async () => {
  await plain[Symbol.asyncDispose]();
});

/** Returns a batch's messages as an undamaged server decodes them. */
async function messagesOf(nth: number): Promise<unknown> {
  if (decoded.has(nth)) return decoded.get(nth);
  const session = await plain.aSession();
  await plain.append(session, batch(nth));
  const { batches } = await objectOf(plain.fetch(`/v1/sessions/${session.sessionID}/batches`));
  const [first] = Array.isArray(batches) ? batches : [];
  decoded.set(nth, first.messages);
  return first.messages;
}

describe.each(["files", "s3"] as const)("with objects in %s", (store) => {
  test("what is lost of a session is named at its place, and everything else is read", async () => {
    await using recorded = await Recorded.start(store);
    await recorded.harm(1, gone);
    await recorded.harm(4, flipped(IN_BODY));
    await recorded.harm(5, cut(60));
    await recorded.harm(6, gone);
    await recorded.harm(11, cut(0));
    const expected = ["0", "1 missing", "2", "3", "3 missing", "7", "8", "9", "10", "1 missing"];
    expect(await recorded.asJson()).toEqual(expected);
    expect(await recorded.asJson("?skipMissing=true")).toEqual(expected);

    for (const accept of ["application/octet-stream", "application/msgpack"]) {
      expect(await failure(recorded.read(accept).then((answer) => answer.bytes()))).toBeInstanceOf(
        Error,
      );
      for (const no of ["?skipMissing=false", "?quarantined=false"])
        expect(
          await failure(recorded.read(accept, no).then((answer) => answer.bytes())),
        ).toBeInstanceOf(Error);
    }
    const whole = [0, 2, 3, 7, 8, 9, 10].map((nth) => Buffer.from(batch(nth)));
    const framed = await recorded.read("application/octet-stream", "?skipMissing=true");
    expect(splitBatches(await framed.bytes()).map((one) => Buffer.from(one))).toEqual(whole);
    const maps: { body: Buffer }[] = unpackMultiple(
      await (await recorded.read("application/msgpack", "?skipMissing=true")).bytes(),
    );
    expect(maps.map(({ body }) => body)).toEqual(whole);
  });
});

test("a binary answer has at most what comes before the lost batch, and is broken off", async () => {
  await using recorded = await Recorded.start();
  await recorded.harm(3, gone);
  const received: Uint8Array[] = [];
  const reading = (async () => {
    const answer = await recorded.read("application/octet-stream");
    for await (const chunk of answer.body ?? []) received.push(chunk);
  })();
  expect(await failure(reading)).toBeInstanceOf(Error);
  // A TCP reset may overtake data that was sent before it.
  const before = [0, 1, 2].map((nth) => Buffer.from(batch(nth)));
  const whole = splitBatches(Buffer.concat(received)).map((one) => Buffer.from(one));
  expect(whole).toEqual(before.slice(0, whole.length));
  using connection = await RawConnection.open(recorded.server.url);
  await recorded.harm(0, gone);
  connection.head(`GET /v1/sessions/${recorded.session.sessionID}/batches`, {
    ...KEYED,
    accept: "application/octet-stream",
  });
  expect(await failure(connection.response())).toBeInstanceOf(Error);
});

test("an entry for what is missing has the times of its receipt", async () => {
  await using recorded = await Recorded.start();
  const { batches: before } = await objectOf(recorded.read("application/json"));
  if (!Array.isArray(before)) throw new Error("no batches");
  for (const nth of [2, 3, 4]) await recorded.harm(nth, gone);
  const { batches } = await objectOf(recorded.read("application/json"));
  if (!Array.isArray(batches)) throw new Error("no batches");
  const { receivedAt: from } = before[2];
  const { receivedAt: to } = before[4];
  expect(from).toMatch(TIME);
  expect(batches).toEqual([
    ...before.slice(0, 2),
    { missing: { batches: 3, from, to } },
    ...before.slice(5),
  ]);
  await recorded.app
    .sql`update batches set received_at = received_at - interval '1 day' where segment_id = ${recorded.keys[4]?.slice(-36) ?? ""}`;
  const { batches: again } = await objectOf(recorded.read("application/json"));
  const dayBefore = new Date(Date.parse(to) - 86_400_000).toISOString();
  expect(again).toContainEqual({
    missing: { batches: 3, from: dayBefore, to: before[3].receivedAt },
  });
});

test("a lost object is logged once with its key, session and reason, however often it is read, and each batch is counted", async () => {
  await using recorded = await Recorded.start();
  const { server, keys, kept, session } = recorded;
  await recorded.harm(1, gone);
  await recorded.harm(2, flipped(IN_BODY));
  for (let nth = 0; nth < 5; nth++) await recorded.asJson();
  expect(kept.lines.map(({ key, session: of, reason }) => ({ key, of, reason }))).toEqual([
    { key: keys[1], of: session.sessionID, reason: "missing" },
    { key: keys[2], of: session.sessionID, reason: "damaged" },
  ]);
  expect(kept.lines.map(({ level }) => level)).toEqual([50, 50]);
  for (const reason of ["missing", "damaged"])
    expect(await metric(server, `floodgate_missing_records_total{reason="${reason}"}`)).toBe(5);
});

test("one damaged record of a segment takes no other with it", async () => {
  await using app = await TestApp.start({ env: { COMMIT_BYTES: String(2 ** 20) } });
  const session = await app.aSession();
  const sent = Array.from({ length: 30 }, (_, nth) => batch(nth));
  const body = sent.map((bytes) => ({ kind: "batch" as const, body: bytes }));
  const { key, places } = await putSegment(
    app.objects,
    body.map((record) => ({ ...record, sessionID: session.sessionID })),
  );
  await indexed(app, key, session, places, sent);
  expect(await app.batches(session)).toHaveLength(30);
  await harm(app.objects, key, flipped((places[7]?.offset ?? 0) + 5));
  await harm(app.objects, key, flipped((places[8]?.offset ?? 0) - 8));
  await harm(app.objects, key, cut((places[28]?.offset ?? 0) + 1));
  const { batches } = await objectOf(app.fetch(`/v1/sessions/${session.sessionID}/batches`));
  if (!Array.isArray(batches)) throw new Error("no batches");
  expect(batches.map((one) => one.missing?.batches ?? 0)).toEqual([
    ...Array.from({ length: 7 }, () => 0),
    2,
    ...Array.from({ length: 19 }, () => 0),
    2,
  ]);
});

test("a gzip body that does not inflate is missing, and a body that was damaged on its way is read again", async () => {
  const objects = new FaultyObjects();
  await using app = await TestApp.start({ wrapObjects: objects.wrap });
  const session = await app.aSession();
  for (const nth of [0, 1, 2])
    await app.append(session, gzipSync(batch(nth)), "/v1/ios/append", {
      "content-encoding": "gzip",
    });
  await app.sql`update batches set bytes = 10 where segment_id = (select segment_id from batches order by segment_id offset 1 limit 1)`;
  const path = `/v1/sessions/${session.sessionID}/batches`;
  const read = async () => {
    const { batches } = await objectOf(app.fetch(path));
    return Array.isArray(batches) ? batches.map((one) => one.missing?.batches) : [];
  };
  expect(await read()).toEqual([undefined, 1, undefined]);
  const seen = new Set<string>();
  objects.changeRead = (bytes, key) => {
    if (seen.has(key)) return bytes;
    seen.add(key);
    return Buffer.from(bytes).fill(7, 100);
  };
  expect(await read()).toEqual([undefined, 1, undefined]);
  objects.changeRead = (bytes) => Buffer.from(bytes).fill(7, 100);
  expect(await read()).toEqual([3]);
});

test("a store that is away is 503 and nothing is called missing; away later it breaks the answer off", async () => {
  const objects = new FaultyObjects();
  await using app = await TestApp.start({ wrapObjects: objects.wrap });
  const session = await app.aSession();
  for (const nth of [0, 1, 2])
    await app.append(session, aBatch({ messages: 1, bytes: 300_000, salt: `${nth}` }));
  const path = `/v1/sessions/${session.sessionID}/batches`;
  objects.beforeRead = () => {
    throw new Error("the store is away");
  };
  for (const accept of ["application/json", "application/octet-stream", "application/msgpack"]) {
    const answer = await app.fetch(path, { headers: { accept } });
    expect(answer.headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
    expect(await refusalOf(answer)).toEqual([503, "the object store is away, try again"]);
  }
  expect(await metric(app, 'floodgate_missing_records_total{reason="missing"}', Number.NaN)).toBe(
    0,
  );
  let reads = 0;
  objects.beforeRead = () => {
    if (++reads > 2) throw new Error("the store is away");
  };
  const answer = await app.fetch(path);
  expect(answer.status).toBe(200);
  expect(await failure(answer.bytes())).toBeInstanceOf(Error);
});

test.each(["yes", "1", ""])("skipMissing=%s is refused", async (value) => {
  const session = await plain.aSession();
  const answer = plain.fetch(`/v1/sessions/${session.sessionID}/batches?skipMissing=${value}`);
  expect(await refusalOf(answer)).toEqual([400, "skipMissing must be true or false"]);
});

/** Indexes a segment with these batches of the session. */
async function indexed(
  app: TestApp,
  key: string,
  { sessionID }: TestSession,
  places: { offset: number; length: number }[],
  batches: Uint8Array[],
): Promise<void> {
  const id = key.slice(-36);
  await app.sql`insert into segments (id, bytes, records) values (${id}, 1, ${batches.length})`;
  for (const [nth, { offset, length }] of places.entries())
    await app.sql`
      insert into batches (session_id, segment_id, "offset", length, bytes, hash, flags, messages, received_at)
      values (${sessionID}, ${id}, ${offset}, ${length}, ${length}, ${nth}, 0, 2, now())`;
}
