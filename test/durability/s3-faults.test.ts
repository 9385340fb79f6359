import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { S3Objects } from "../../src/platform/objects/s3-objects.ts";
import { KEYED, TestApp, type TestSession } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { timed } from "../support/eventually.ts";
import { indexState } from "../support/index-state.ts";
import { type ServerBeside, append, serverBeside, statusOf } from "../support/requests.ts";
import { damages, type S3Script, S3Proxy, passes, refuses, response } from "../support/s3-proxy.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

const DEADLINE_MS = 12_000;
// Long enough that a PUT which is not held back never takes it.
const PUT_TIMEOUT_MS = 4000;

const answerLost: S3Script = async ({ forward, reset }) => {
  await forward();
  reset();
};
const neverAnswers: S3Script = async ({ forward }) => {
  await forward();
};
const noETag: S3Script = async ({ body, answer }) => {
  await body();
  answer(response(200, "<html>Welcome</html>"));
};
const stalls: S3Script = async (exchange) => {
  await Bun.sleep(5000);
  await passes(exchange);
};
const holdsBack: S3Script = async ({ body }) => {
  await body();
};

/** The PUTs that the store must see: what it answered, 0 where it was not asked. */
const FAULTS: [string, S3Script[], number[]][] = [
  ["500 InternalError", [refuses(500, "InternalError")], [0, 200]],
  [
    "503 SlowDown, three times",
    Array.from({ length: 3 }, () => refuses(503, "SlowDown")),
    [0, 0, 0, 200],
  ],
  ["a reset before the body is read", [async ({ reset }) => reset()], [0, 200]],
  ["a reset in the middle of the body", [({ cutRequest }) => cutRequest(7000)], [0, 200]],
  ["a reset after the object is stored", [answerLost], [200, 412]],
  ["no answer after the object is stored", [neverAnswers], [200, 412]],
  ["no answer, and nothing stored", [holdsBack], [0, 200]],
  ["409 ConditionalRequestConflict", [refuses(409, "ConditionalRequestConflict")], [0, 200]],
  ["412 for an object that is not there", [refuses(412, "PreconditionFailed")], [0, 200]],
  ["a byte that changed on its way", [damages], [400, 200]],
  ["200 without an ETag, and nothing stored", [noETag], [0, 200]],
  ["403 RequestTimeTooSkewed", [refuses(403, "RequestTimeTooSkewed")], [0, 200]],
  [
    "one fault after the other",
    [refuses(500, "InternalError"), answerLost, refuses(503, "SlowDown"), neverAnswers],
    [0, 200, 0, 412, 412],
  ],
];

describe("a batch is stored once and read back byte for byte after", () => {
  test.concurrent.each(FAULTS)("%s", async (_fault, scripts, statuses) => {
    await using t = await behindProxy();
    t.proxy.next.push(...scripts);
    const { result, ms } = await timed(() => statusOf(append(t.server, t.session, aBatch())));
    expect(result).toBe(200);
    expect(ms).toBeLessThan(DEADLINE_MS);
    expect(putsOf(t)).toEqual(statuses);
    await expectStored(t, [aBatch()]);
  });

  test.concurrent("a stall of 5 s, which delays no other batch", async () => {
    await using t = await behindProxy({ putTimeoutMs: 10_000 });
    t.proxy.next.push(stalls);
    const stalled = timed(() => statusOf(append(t.server, t.session, aBatch({ salt: "stalled" }))));
    while (putsOf(t).length === 0) await Bun.sleep(5);
    const other = await timed(() =>
      statusOf(append(t.server, t.session, aBatch({ salt: "other" }))),
    );
    expect(other.result).toBe(200);
    expect(other.ms).toBeLessThan(3000);
    const { result, wallMs } = await stalled;
    expect(result).toBe(200);
    expect(wallMs).toBeGreaterThan(4900);
    await expectStored(t, [aBatch({ salt: "stalled" }), aBatch({ salt: "other" })]);
  });
});

describe("what the store never takes is answered 503 within the deadline, and is not there:", () => {
  test.concurrent.each<[string, S3Script]>([
    ["503 SlowDown", refuses(503, "SlowDown")],
    ["403 InvalidAccessKeyId", refuses(403, "InvalidAccessKeyId")],
    ["412 for an object that is not there", refuses(412, "PreconditionFailed")],
    ["resets", async ({ reset }) => reset()],
    ["no answer", holdsBack],
  ])("%s", async (_fault, script) => {
    await using t = await behindProxy({ commitDeadlineMs: 1500 });
    t.proxy.otherwise = script;
    const { result, ms } = await timed(() => append(t.server, t.session, aBatch()));
    expect(result.status).toBe(503);
    expect(Number(result.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(ms).toBeLessThan(4000);
    await expectStored(t, []);
    t.proxy.otherwise = passes;
    expect(await statusOf(append(t.server, t.session, aBatch()))).toBe(200);
    await expectStored(t, [aBatch()]);
  });
});

test.concurrent("many batches under random faults are each acknowledged and stored once", async () => {
  await using t = await behindProxy({ commitDeadlineMs: 15_000, putTimeoutMs: 1500 });
  const scripts = [
    passes,
    passes,
    passes,
    answerLost,
    answerLost,
    noETag,
    neverAnswers,
    refuses(500, "InternalError"),
    refuses(503, "SlowDown"),
  ];
  let put = 0;
  t.proxy.otherwise = async (exchange) => await scripts[(put++ * 7) % scripts.length]?.(exchange);
  const batches = Array.from({ length: 60 }, (_, i) => aBatch({ messages: 20, salt: `${i}` }));
  const statuses = await Promise.all(
    batches.map(async (batch, i) => {
      await Bun.sleep(i * 10);
      return await statusOf(append(t.server, t.session, batch));
    }),
  );
  expect(statuses).toEqual(statuses.map(() => 200));
  t.proxy.otherwise = passes;
  await expectStored(t, batches);
});

test("a read that the store cuts short is no short answer", async () => {
  await using t = await behindProxy();
  expect(await statusOf(append(t.server, t.session, aBatch()))).toBe(200);
  t.proxy.selects = ({ method, path }) => method === "GET" && path.includes("segments/");
  t.proxy.otherwise = async ({ forward, answer }) => answer((await forward()).subarray(0, -5000));
  const reading = fetch(`${t.server.url}/v1/sessions/${t.session.sessionID}/batches`, {
    headers: KEYED,
  });
  expect(await statusOf(reading)).toBe(503);
  t.proxy.otherwise = passes;
  await expectStored(t, [aBatch()]);
});

type Proxied = AsyncDisposable & {
  app: TestApp;
  proxy: S3Proxy;
  server: ServerBeside;
  session: TestSession;
};

/** A server that reaches the real S3 through a proxy, and a session that it knows; the test itself has the direct way. */
async function behindProxy(
  options: { commitDeadlineMs?: number; putTimeoutMs?: number } = {},
): Promise<Proxied> {
  const { commitDeadlineMs = DEADLINE_MS, putTimeoutMs = PUT_TIMEOUT_MS } = options;
  const app = await TestApp.start({ store: "s3" });
  const { s3 } = app.config;
  if (s3?.endpoint === undefined) throw new Error("the test's store is not S3");
  const proxy = await S3Proxy.open(s3.endpoint);
  const objects = new S3Objects({ ...s3, endpoint: proxy.endpoint, putTimeoutMs });
  const server = await serverBeside(app, { commitDeadlineMs, wrapObjects: () => objects });
  const session = await app.aSession();
  const dispose = async () => {
    await server[Symbol.asyncDispose]();
    await app[Symbol.asyncDispose]();
    await proxy[Symbol.asyncDispose]();
  };
  return { app, proxy, server, session, [Symbol.asyncDispose]: dispose };
}

function putsOf({ proxy }: Proxied): number[] {
  return proxy.seen.filter(({ method }) => method === "PUT").map(({ status }) => status);
}

async function expectStored({ app, session }: Proxied, batches: Uint8Array[]): Promise<void> {
  expect((await app.batches(session)).map(hashOf).toSorted()).toEqual(
    batches.map(hashOf).toSorted(),
  );
  const count = batches.length;
  const state = await indexState(app.sql, app.objects);
  expect(state).toMatchObject({ batches: count, distinct: count, orphans: [], missing: [] });
}

function hashOf(batch: Uint8Array): string {
  return Bun.SHA256.hash(batch, "hex");
}
