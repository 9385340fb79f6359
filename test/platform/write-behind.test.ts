import { expect, test } from "bun:test";

import { WriteBehind } from "../../src/platform/write-behind.ts";
import { eventually } from "../support/eventually.ts";

const NEVER_MS = 3_600_000;

/** Writes that last until `end` is called. */
function slowWrites() {
  const running: (() => void)[] = [];
  const slow = {
    begun: 0,
    write: async () => {
      slow.begun++;
      const { promise, resolve } = Promise.withResolvers<void>();
      running.push(resolve);
      await promise;
    },
    end: () => running.shift()?.(),
  };
  return slow;
}

test("many asks are one write, after the time", async () => {
  let writes = 0;
  await using writer = new WriteBehind(5, async () => void writes++);
  for (let n = 0; n < 10; n++) writer.soon();
  expect(writes).toBe(0);
  await eventually("it is written", () => writes > 0);
  await Bun.sleep(20);
  expect(writes).toBe(1);
});

test("what comes during a write goes with the next one, never with a second at a time", async () => {
  const slow = slowWrites();
  const writer = new WriteBehind(1, slow.write);
  writer.now();
  writer.now();
  writer.soon();
  await Bun.sleep(20);
  expect(slow.begun).toBe(1);
  slow.end();
  await eventually("the next begins", () => slow.begun === 2);
  slow.end();
  await Bun.sleep(20);
  expect(slow.begun).toBe(2);
});

test("a flush waits for the write under way and for one more", async () => {
  const slow = slowWrites();
  const writer = new WriteBehind(NEVER_MS, slow.write);
  writer.now();
  let isFlushed = false;
  const flushed = writer.flush().then(() => (isFlushed = true));
  slow.end();
  await eventually("the rest is being written", () => slow.begun === 2);
  expect(isFlushed).toBe(false);
  slow.end();
  await flushed;
  expect(slow.begun).toBe(2);
});

test("a flush writes at once what would have been written later", async () => {
  let writes = 0;
  const writer = new WriteBehind(NEVER_MS, async () => void writes++);
  writer.soon();
  await writer.flush();
  expect(writes).toBe(1);
});

test("once it is disposed nothing is written any more, though its last write asked for another", async () => {
  let writes = 0;
  const writer: WriteBehind = new WriteBehind(1, async () => {
    writes++;
    writer.soon();
  });
  writer.soon();
  await writer[Symbol.asyncDispose]();
  expect(writes).toBe(1);
  writer.soon();
  writer.now();
  await Bun.sleep(20);
  expect(writes).toBe(1);
});
