import { expect, test } from "bun:test";

import { UploadWindow } from "../../src/images/upload.ts";
import { InflightBytes } from "../../src/log/inflight-bytes.ts";
import { PendingSegment } from "../../src/log/open-segment.ts";

const MIB = 2 ** 20;
const PROJECT = 1;

function aWindow() {
  const inflight = new InflightBytes(256 * MIB, 8 * MIB);
  const hurried: number[] = [];
  const window = new UploadWindow({ hurry: () => hurried.push(1) }, inflight);
  /** Adds eight MiB of the upload in a segment of their own. */
  const add = (isClosed = true) => {
    const segment = new PendingSegment();
    if (isClosed) segment.id = crypto.randomUUID();
    window.add(segment, 8 * MIB);
    return segment;
  };
  return { inflight, window, hurried, add };
}

/** Returns whether the promise has settled after all that was due. */
async function isSettled(promise: Promise<unknown> | undefined): Promise<boolean> {
  let settled = false;
  promise?.then(
    () => (settled = true),
    () => (settled = true),
  );
  await Bun.sleep(0);
  return settled;
}

test("an upload may have 24 MiB on the way to the store, and goes on when any segment is stored", async () => {
  const { window, add } = aWindow();
  add();
  add();
  add();
  expect(window.room()).toBeUndefined();
  const fourth = add();
  const room = window.room();
  expect(await isSettled(room)).toBe(false);
  fourth.resolve();
  await room;
  expect(window.room()).toBeUndefined();
});

test("while half of the memory is in use, 8 MiB of an upload may be on the way", async () => {
  const { inflight, window, add } = aWindow();
  inflight.add(PROJECT, 128 * MIB);
  const first = add();
  expect(window.room()).toBeUndefined();
  const second = add();
  const third = add();
  const room = window.room();
  second.resolve();
  expect(await isSettled(room)).toBe(false);
  third.resolve();
  await room;
  // The memory is free again: more of the upload fits.
  add();
  const waiting = window.room();
  expect(await isSettled(waiting)).toBe(false);
  inflight.release(PROJECT, 128 * MIB);
  expect(window.room()).toBeUndefined();
  first.resolve();
  await waiting;
});

test("an upload of which a segment is lost ends, also when an older one still waits", async () => {
  const { window, add } = aWindow();
  const segments = [add(), add(), add(), add()];
  const room = window.room();
  segments[2]?.reject(new Error("the store failed"));
  expect(await room?.catch((error: unknown) => String(error))).toBe("Error: the store failed");
});

test("a segment that is still open is hurried only if the upload waits for it alone", async () => {
  const { window, hurried, add } = aWindow();
  const closed = [add(), add(), add()];
  const open = add(false);
  const room = window.room();
  expect(hurried).toEqual([]);
  closed[0]?.resolve();
  await room;
  window.add(open, 32 * MIB);
  const more = window.room();
  for (const segment of closed) segment.resolve();
  expect(await isSettled(more)).toBe(false);
  expect(hurried).toEqual([1]);
  open.resolve();
  await more;
});
