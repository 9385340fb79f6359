import { afterAll, beforeAll, expect, test } from "bun:test";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { metric, objectOf, refusalOf } from "../support/answers.ts";
import { KEYED, TestApp, type TestSession, splitBatches } from "../support/app.ts";
import { type Made, archiveBatches, landingOf, swap } from "../support/archived.ts";
import { encodeBatch, encodeMessage } from "../support/batches.ts";
import { flipped, gone, harm, keptLog } from "../support/damage.ts";
import { failure } from "../support/failure.ts";
import { FaultyObjects } from "../support/faulty-objects.ts";
import { Random } from "../support/random.ts";
import { type ServerBeside, serverBeside } from "../support/requests.ts";

const T0 = 1_760_000_000_000;
const BATCHES = 12;
const MALFORMED = 10;

const kept = keptLog();
const faults = new FaultyObjects();
let reads = 0;
let app: TestApp;
let server: ServerBeside;

beforeAll(async () => {
  app = await TestApp.start();
  server = await serverBeside(app, { log: kept.log, wrapObjects: faults.wrap });
  faults.beforeRead = () => void reads++;
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await app[Symbol.asyncDispose]();
});

/** Returns a batch of 300 kB, of which three are a frame. */
function batch(nth: number): Uint8Array {
  const noise = new Random(nth).bytes(150_000).toHex();
  const message = encodeMessage(103, T0 + nth, "info", noise);
  return encodeBatch([message], { firstIndex: nth, timestamp: T0 + nth });
}

async function aSession(): Promise<TestSession> {
  const session = await app.aSession();
  for (let nth = 0; nth < BATCHES; nth++) {
    const body = nth === MALFORMED ? Buffer.from(`malformed ${session.sessionID}`) : batch(nth);
    expect((await app.append(session, body)).status).toBe(200);
  }
  return session;
}

async function ask({ sessionID }: TestSession, path: string, accept = "*/*"): Promise<Response> {
  const headers = { ...KEYED, accept, "accept-encoding": "identity" };
  return await fetch(`${server.url}/v1/sessions/${sessionID}${path}`, { headers });
}

const Missing = Type.Object({
  batches: Type.Number(),
  from: Type.String(),
  to: Type.String(),
});
const Entries = Type.Array(
  Type.Object({ missing: Type.Optional(Missing), receivedAt: Type.Optional(Type.String()) }),
);

/** Returns when each batch was received, and what is missing at its place. */
async function entriesOf(session: TestSession, query = "") {
  const { batches } = await objectOf(ask(session, `/batches${query}`));
  return Value.Parse(Entries, batches).map(({ missing, receivedAt }) =>
    missing === undefined ? receivedAt : `${missing.batches} from ${missing.from} to ${missing.to}`,
  );
}

async function marked({ archive: { id } }: Made): Promise<boolean> {
  return (await app.sql`select from unreadable_segments where segment_id = ${id}`).length === 1;
}

async function lostRecords(): Promise<number> {
  const reasons = ["missing", "damaged"].map((reason) => `{reason="${reason}"}`);
  const series = reasons.map((one) => metric(server, `floodgate_missing_records_total${one}`));
  return (await Promise.all(series)).reduce((sum, one) => sum + one);
}

const logged = (session: TestSession) =>
  kept.lines.flatMap((line) => (line["session"] === session.sessionID ? [line["key"]] : []));

test("500 batches that are archived are read with one request", async () => {
  const session = await app.aSession();
  const sent = Array.from({ length: 500 }, (_, nth) =>
    encodeBatch([encodeMessage(103, T0, "info", new Random(nth).bytes(900).toHex())]),
  );
  await Promise.all(sent.map(async (body) => await app.append(session, body)));
  const before = await (await ask(session, "/batches", "application/octet-stream")).bytes();
  await archiveBatches(app, session);
  reads = 0;
  const after = await (await ask(session, "/batches", "application/octet-stream")).bytes();
  expect([Buffer.compare(before, after), splitBatches(after).length, reads]).toEqual([0, 500, 1]);
  reads = 0;
  expect((await ask(session, "/replay/dom.mobs")).status).toBe(200);
  expect(reads).toBe(2);
  reads = 0;
  expect((await objectOf(ask(session, "")))["batches"]).toMatchObject({ count: 500 });
  expect(reads).toBe(0);
});

test("the batches of a damaged frame are missing at their place, and everything else is read", async () => {
  const session = await aSession();
  const before = await entriesOf(session);
  const { batches: summary } = await objectOf(ask(session, ""));
  const lost = await lostRecords();
  const made = await archiveBatches(app, session);
  const at = made.piece.start + 0.6 * (made.piece.indexStart - made.piece.start);
  await harm(app.objects, made.key, flipped(Math.floor(at)));
  const [from, , to] = before.slice(6, 9);
  const after = [...before.slice(0, 6), `3 from ${from} to ${to}`, ...before.slice(9)];
  expect(await entriesOf(session)).toEqual(after);
  expect(await lostRecords()).toBe(lost + 3);
  for (const accept of ["application/octet-stream", "application/msgpack"]) {
    const reading = ask(session, "/batches", accept).then((answer) => answer.bytes());
    expect(await failure(reading)).toBeInstanceOf(Error);
  }
  const whole = await ask(session, "/batches?skipMissing=true", "application/octet-stream");
  expect(splitBatches(await whole.bytes()).map((one) => Bun.hash(one))).toEqual(
    [0, 1, 2, 3, 4, 5, 9, 11].map((nth) => Bun.hash(batch(nth))),
  );
  expect(await refusalOf(ask(session, "/replay/dom.mobs"))).toEqual([
    410,
    "the file is damaged in the store",
  ]);
  expect((await ask(session, "/replay/dom.mobs?skipMissing=true")).status).toBe(200);
  expect((await objectOf(ask(session, "")))["batches"]).toEqual(summary);
  expect(logged(session)).toEqual([made.key]);
  expect(await marked(made)).toBe(true);
});

test.each([
  ["gone", gone, "gone from"],
  ["without an index", flipped(-200), "damaged in"],
])(
  "if an archive is %s, as many batches are missing as it had, in the time of these",
  async (_what, how, text) => {
    const session = await aSession();
    const before = await entriesOf(session);
    const [malformed] = await entriesOf(session, "?quarantined=true");
    const { batches: summary } = await objectOf(ask(session, ""));
    const made = await archiveBatches(app, session, { which: (nth) => nth >= 4 && nth < 11 });
    await harm(app.objects, made.key, (bytes) =>
      how(bytes.subarray(0, made.piece.start + made.piece.length)),
    );
    const times = `from ${before[4]} to ${malformed}`;
    const lost = await lostRecords();
    expect(await entriesOf(session, "?quarantined=true")).toEqual([`1 ${times}`]);
    const after = [...before.slice(0, 4), `6 ${times}`, ...before.slice(10)];
    expect(await entriesOf(session)).toEqual(after);
    expect(await lostRecords()).toBe(lost + 7);
    expect((await objectOf(ask(session, "")))["batches"]).toEqual(summary);
    expect(await refusalOf(ask(session, "/replay/dom.mobs"))).toEqual([
      410,
      `the file is ${text} the store`,
    ]);
    const rest = await ask(session, "/replay/dom.mobs?skipMissing=true");
    expect((await rest.bytes()).length).toBeGreaterThan(4 * 300_000);
    expect([logged(session), await marked(made)]).toEqual([[made.key], true]);
  },
);

test("a session whose only archive is gone has a replay file that is gone", async () => {
  const session = await aSession();
  const made = await archiveBatches(app, session);
  await harm(app.objects, made.key, gone);
  const { files } = await objectOf(ask(session, "/replay"));
  expect(files).toEqual([{ name: "dom.mobs", bytes: 8 }]);
  expect(await refusalOf(ask(session, "/replay/dom.mobs"))).toEqual([
    410,
    "the file is gone from the store",
  ]);
});

test("batches that are erased while they are read are not called lost", async () => {
  const session = await aSession();
  const made = await archiveBatches(app, session);
  const stored = await landingOf(app, session);
  expect(stored).toEqual([]);
  let isErased = false;
  faults.beforeRead = async (key) => {
    if (key !== made.key || isErased) return;
    isErased = true;
    await swap(app, session, { gone: [made] });
    await app.objects.remove(made.key);
  };
  expect(await entriesOf(session)).toEqual([]);
  faults.beforeRead = () => void reads++;
  expect([logged(session), await marked(made)]).toEqual([[], false]);
});
