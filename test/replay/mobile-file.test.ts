import { gzipSync } from "node:zlib";
import { describe, expect, test } from "bun:test";

import { TestApp, type TestSession } from "../support/app.ts";
import { concat, encodeBatch, encodeFrame, encodeMessage } from "../support/batches.ts";
import { MOBILE_HEAD, replayOf, replaysOf } from "../support/replays.ts";

const T0 = 1_760_000_000_000;
const PATH = "/v1/mobile/i";
const LATE = "/v1/mobile/late";

const app = TestApp.forTests();

async function aSession(...batches: Uint8Array[]): Promise<TestSession> {
  const session = await app.aSession();
  for (const batch of batches) expect((await app.append(session, batch, PATH)).status).toBe(200);
  return session;
}

function aClick(nth: number): Uint8Array {
  return encodeMessage(100, T0 + nth, `button ${nth}`, 10, 20);
}

/** A batch of clicks, from one index to another. */
function clicks(first: number, last: number, timestamp = T0 + first): Uint8Array {
  const messages = Array.from({ length: last - first + 1 }, (_, nth) => aClick(first + nth));
  return encodeBatch(messages, { firstIndex: first - 1, timestamp });
}

/** Records of clicks with these indexes, as a file has them. */
function records(...indexes: number[]): Uint8Array {
  return concat([
    MOBILE_HEAD,
    ...indexes.flatMap((index) => {
      const head = Buffer.alloc(8);
      head.writeBigUInt64LE(BigInt(index));
      return [head, aClick(index)];
    }),
  ]);
}

function upTo(last: number): number[] {
  return Array.from({ length: last }, (_, nth) => nth + 1);
}

test("one click is the head, its index and its message", async () => {
  const session = await aSession(encodeBatch([encodeMessage(100, T0 + 5, "OK", 10, 20)]));
  const file = await replayOf(app, session, "dom.mobs");
  expect(file?.toHex()).toBe("ffffffffffffffff0100000000000000648580b3c19c3305024f4b0a14");
  expect(await replaysOf(app, session)).toEqual([{ name: "dom.mobs", bytes: null }]);
  for (const name of ["dom.mobe", "devtools.mob"])
    expect(await replayOf(app, session, name)).toBeUndefined();
});

test("what follows a network call of Android is there, and what no player can decode is not", async () => {
  const android = Uint8Array.fromHex(
    "698780b3c19c331b05666574636803474554022f61047265737003726571000001940c",
  );
  const documented = Uint8Array.fromHex(
    "0200000000000000698780b3c19c331905666574636803474554022f6103726571047265737094030c",
  );
  const odd = encodeFrame(105, T0, Uint8Array.of(1, 2, 3));
  const session = await aSession(encodeBatch([aClick(1), android, odd, aClick(4)]));
  const file = await replayOf(app, session, "dom.mobs");
  expect(file).toEqual(concat([records(1), documented, records(4).subarray(8)]));
});

describe("messages are in the order of their indexes, each once", () => {
  test.each<[string, Uint8Array[], number[]]>([
    ["batches came in another order", [clicks(7, 9), clicks(1, 3), clicks(4, 6)], upTo(9)],
    ["a batch was sent again with more", [clicks(1, 3), clicks(1, 5), clicks(6, 7)], upTo(7)],
    ["batches overlap", [clicks(4, 9), clicks(1, 6), clicks(2, 3)], upTo(9)],
    ["some never came", [clicks(8, 9), clicks(1, 2)], [1, 2, 8, 9]],
    ["a clock went back", [clicks(1, 2), clicks(3, 4, T0 - 60_000)], upTo(4)],
  ])("if %s", async (_what, batches, indexes) => {
    const session = await aSession(...batches);
    expect(await replayOf(app, session, "dom.mobs")).toEqual(records(...indexes));
  });

  test("also of batches that were compressed, or malformed behind their head", async () => {
    const session = await aSession(encodeBatch([aClick(1)]), Buffer.from("no batch"));
    const gzip = { "content-encoding": "gzip" };
    await app.append(session, gzipSync(clicks(3, 900)), PATH, gzip);
    await app.append(session, gzipSync(clicks(2, 2)), PATH, gzip);
    await app.append(session, clicks(901, 902).subarray(0, -1), PATH);
    expect(await replayOf(app, session, "dom.mobs")).toEqual(records(...upTo(900)));
  });
});

describe("a batch that a crash had kept back", () => {
  test("is a part of the session that it belongs to", async () => {
    const session = await aSession(clicks(1, 2));
    await app.append(session, clicks(3, 4), LATE);
    expect(await replayOf(app, session, "dom.mobs")).toEqual(records(...upTo(4)));
    const alone = await app.aSession();
    await app.append(alone, clicks(1, 2), LATE);
    expect(await replayOf(app, alone, "dom.mobs")).toEqual(records(1, 2));
  });

  test("is left out of the session after it, with whose token it was sent", async () => {
    const session = await app.aSession();
    const message = encodeMessage(100, T0 - 2000, "earlier", 1, 1);
    await app.append(session, encodeBatch([message], { timestamp: T0 - 3000 }), LATE);
    await app.append(session, clicks(1, 2), PATH);
    expect(await replayOf(app, session, "dom.mobs")).toEqual(records(1, 2));
  });
});

test("a thousand batches come through, in little pieces and in order", async () => {
  const session = await aSession();
  const order = Array.from({ length: 1000 }, (_, nth) => ((nth * 377) % 1000) * 3 + 1);
  for (let at = 0; at < order.length; at += 50)
    await Promise.all(
      order
        .slice(at, at + 50)
        .map(async (first) => await app.append(session, clicks(first, first + 2), PATH)),
    );
  expect(await replayOf(app, session, "dom.mobs")).toEqual(records(...upTo(3000)));
});
