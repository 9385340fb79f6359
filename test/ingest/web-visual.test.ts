import { gzipSync } from "node:zlib";
import { describe, expect, test } from "bun:test";

import { metric, refusalOf, sessionRow } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { kindsOf } from "../support/read-batches.ts";
import { ASSETS, PLAYER, SPLIT, WEB_VECTORS } from "../support/tracker-requests.ts";
import { encodeWebBatch, encodeWebMessage } from "../support/web-batches.ts";

const PATH = "/v1/web/i";
const VISUAL = { datatype: "visual" };
const GZIP = { "content-encoding": "gzip" };

const app = TestApp.forTests();

describe("a visual request", () => {
  test.each<[string, Uint8Array, Record<string, string>]>([
    ["plain", WEB_VECTORS.visual, VISUAL],
    ["gzip", gzipSync(WEB_VECTORS.visual), { ...VISUAL, ...GZIP }],
  ])("is two batches, cut at the inflated offset: %s", async (_what, body, headers) => {
    const session = await app.aSession();
    const path = `/ingest${PATH}?batch=3_1_204_kyes&split=${SPLIT}`;
    expect((await app.append(session, body, path, headers)).status).toBe(200);
    expect(await app.batches(session)).toEqual([PLAYER, ASSETS]);
    expect(await kindsOf(app, session)).toEqual(["player", "assets"]);
    const row = await sessionRow(app, session);
    expect(row["batches"]).toMatchObject({ count: 2, messages: 13, quarantined: 0 });
  });

  test("shares its batches with requests that send them alone", async () => {
    const session = await app.aSession();
    const path = `${PATH}?split=${SPLIT}`;
    for (const body of [ASSETS, PLAYER])
      expect((await app.append(session, body, PATH)).status).toBe(200);
    expect((await app.append(session, WEB_VECTORS.visual, path, VISUAL)).status).toBe(200);
    expect(await app.batches(session)).toEqual([ASSETS, PLAYER]);
  });

  test.each(["", "?split=", "?split=0", "?split=204", "?split=205", "?split=-1", "?split=1.5"])(
    "with the query %p is refused, and nothing is stored",
    async (query) => {
      const session = await app.aSession();
      const answer = await app.append(session, WEB_VECTORS.visual, PATH + query, VISUAL);
      expect(answer.headers.get("access-control-allow-origin")).toBe("*");
      const text = "split must be a whole number within the inflated body";
      expect(await refusalOf(answer)).toEqual([400, text]);
      expect(await kindsOf(app, session)).toEqual([]);
      expect(await kindsOf(app, session, "?quarantined=true")).toEqual([]);
    },
  );

  test("with nothing in it has no place to be cut", async () => {
    const session = await app.aSession();
    const answer = app.append(session, new Uint8Array(), `${PATH}?split=1`, VISUAL);
    expect((await refusalOf(answer))[0]).toBe(400);
  });

  test("that is cut amid a message is quarantined", async () => {
    const session = await app.aSession();
    const path = `${PATH}?split=${SPLIT - 1}`;
    expect((await app.append(session, WEB_VECTORS.visual, path, VISUAL)).status).toBe(200);
    expect(await kindsOf(app, session)).toEqual([]);
    expect(await kindsOf(app, session, "?quarantined=true")).toEqual(["player", "assets"]);
  });

  test("with batches of other kinds is quarantined", async () => {
    const session = await app.aSession();
    const body = Buffer.concat([ASSETS, PLAYER]);
    const path = `${PATH}?split=${ASSETS.length}`;
    const reason = 'floodgate_framing_errors_total{reason="version"}';
    const before = await metric(app, reason);
    expect((await app.append(session, body, path, VISUAL)).status).toBe(200);
    expect(await kindsOf(app, session)).toEqual([]);
    expect(await metric(app, reason)).toBe(before + 2);
  });

  test.each([
    ["fits into one", 100_000],
    ["is larger than one", 520_000],
  ])("is in one segment, also if it %s", async (_what, bytes) => {
    await using own = await TestApp.start({ env: { COMMIT_BYTES: "1048576" } });
    const session = await own.aSession();
    const sent = Array.from({ length: 12 }, async (_, n) => {
      const player = encodeWebBatch([largeText(bytes + n)]);
      const assets = encodeWebBatch([largeText(bytes + n)], { version: 3 });
      const path = `${PATH}?split=${player.length}`;
      const body = Buffer.concat([player, assets]);
      const other = own.append(session, aBatch({ salt: `${n}`, bytes: 77_000 }));
      return await Promise.all([other, own.append(session, body, path, VISUAL)]);
    });
    for (const { status } of (await Promise.all(sent)).flat()) expect(status).toBe(200);
    const [shared] = await own.sql`
      select count(*)::integer as pairs from batches as player
      join batches as assets using (segment_id, session_id, bytes)
      where player.flags >> 4 = 1 and assets.flags >> 4 = 2`;
    expect(shared).toEqual({ pairs: 12 });
    expect(await own.batches(session)).toHaveLength(36);
  });
});

test("once all is answered, no bytes are counted as held", async () => {
  expect(await metric(app, "floodgate_inflight_bytes")).toBe(0);
});

function largeText(length: number): Uint8Array {
  return encodeWebMessage(61, 1, "a".repeat(length), "https://a.b");
}
