import { expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { EventStream } from "../support/event-stream.ts";
import { timed } from "../support/eventually.ts";
import { aUser, ping } from "../support/presence.ts";
import { PresenceSocket } from "../support/presence-socket.ts";
import { RawSocket } from "../support/raw-socket.ts";

const STREAMS = 12;

test("a server that stops ends streams with a hint when to come back, each with its own", async () => {
  await using app = await TestApp.start();
  const userid = aUser();
  await ping(app, { userid, status: "0" });
  const opening = Array.from({ length: STREAMS }, async () => {
    const stream = await EventStream.open(app, `/subscribe/${userid}`);
    await stream.presence();
    return stream;
  });
  const streams = await Promise.all(opening);
  const { ms } = await timed(app.stop);
  for (const stream of streams) {
    expect(await stream.ended).toBe("end of stream");
    expect(stream.retries).toHaveLength(1);
    for (const retry of stream.retries) {
      expect(Number.isInteger(retry)).toBe(true);
      expect(retry).toBeGreaterThan(0);
      expect(retry).toBeLessThanOrEqual(60_000);
    }
    expect(stream.waiting).toBe(0);
  }
  // All of them at once would be too much for the next server.
  expect(new Set(streams.flatMap(({ retries }) => retries)).size).toBeGreaterThan(1);
  expect(ms).toBeLessThan(5000);
});

test("it closes sockets with 1012", async () => {
  await using app = await TestApp.start();
  using text = await PresenceSocket.open(app);
  using packed = await PresenceSocket.open(app, { msgpack: true });
  const { ms } = await timed(app.stop);
  for (const socket of [text, packed]) expect((await socket.closed).code).toBe(1012);
  expect(ms).toBeLessThan(5000);
});

test("clients that do not read do not keep it", async () => {
  await using app = await TestApp.start();
  const userid = aUser();
  using stream = await EventStream.open(app, `/subscribe/${userid}`);
  using socket = await RawSocket.open(app);
  for (const client of [stream, socket]) client.pause();
  const { ms } = await timed(app.stop);
  expect(ms).toBeLessThan(8000);
});
