import { expect, test } from "bun:test";

import { HeldFiles } from "../../src/images/held-files.ts";
import { InflightBytes } from "../../src/log/inflight-bytes.ts";

const PROJECT = 1;
const CHUNK_BYTES_MAX = 128 * 1024;

class Written {
  text = "";
  ended = false;

  write(data: Uint8Array): void {
    this.text += Buffer.from(data).toString();
  }

  end(): void {
    this.ended = true;
  }
}

/** Returns a chunk of the body, and views of its parts. */
function chunkOf(...parts: string[]) {
  const chunk = new Uint8Array(Buffer.from(parts.join("")).length);
  chunk.set(Buffer.from(parts.join("")));
  let at = 0;
  const views = parts.map((part) => chunk.subarray(at, (at += Buffer.from(part).length)));
  return { chunk, views };
}

const isReleased = (chunk: Uint8Array) => chunk.length === 0;

test("the chunks of the body are freed once every file in them is written", () => {
  const inflight = new InflightBytes(2 ** 20, 1);
  using held = new HeldFiles(inflight, PROJECT);
  const [a, b] = [new Written(), new Written()];
  const { chunk, views } = chunkOf("first", "second");
  held.begin(a);
  held.add(views[0] ?? new Uint8Array());
  held.begin(b);
  held.add(views[1] ?? new Uint8Array());
  held.release(chunk);
  expect(isReleased(chunk)).toBe(false);
  expect(inflight.bytes).toBe(11);
  held.write();
  expect([a.text, b.text]).toEqual(["first", "second"]);
  expect([a.ended, b.ended]).toEqual([true, true]);
  expect(isReleased(chunk)).toBe(true);
  expect(inflight.bytes).toBe(0);
});

test("a chunk without held bytes is freed at once", () => {
  using held = new HeldFiles(new InflightBytes(2 ** 20, 1), PROJECT);
  const { chunk } = chunkOf("of a field");
  held.release(chunk);
  expect(isReleased(chunk)).toBe(true);
});

test("a chunk stays while a file in it is held, also when the other ones are written or dropped", () => {
  using held = new HeldFiles(new InflightBytes(2 ** 20, 1), PROJECT);
  const [large, small, known] = [new Written(), new Written(), new Written()];
  const first = chunkOf("x".repeat(CHUNK_BYTES_MAX - 10), "known");
  held.begin(large);
  held.add(first.views[0] ?? new Uint8Array());
  held.begin(known);
  held.add(first.views[1] ?? new Uint8Array());
  held.drop();
  held.release(first.chunk);
  // Makes room for the file that still grows: the large one is written.
  const second = chunkOf("a small file");
  held.begin(small);
  held.add(second.views[0] ?? new Uint8Array());
  held.release(second.chunk);
  expect([large.ended, small.ended]).toEqual([true, false]);
  expect([first.chunk, second.chunk].map(isReleased)).toEqual([false, false]);
  held.write();
  expect([first.chunk, second.chunk].map(isReleased)).toEqual([true, true]);
  expect([small.text, known.text]).toEqual(["a small file", ""]);
});

test("files that are written late, within a chunk, leave the rest of it to the caller", async () => {
  using held = new HeldFiles(new InflightBytes(2 ** 20, 1), PROJECT);
  const [early, late] = [new Written(), new Written()];
  const { chunk, views } = chunkOf("early", "late");
  held.begin(early);
  held.add(views[0] ?? new Uint8Array());
  while (!early.ended) await Bun.sleep(50);
  held.begin(late);
  expect(held.has(late)).toBe(false);
  expect(Buffer.from(views[1] ?? "").toString()).toBe("late");
  held.release(chunk);
  expect(isReleased(chunk)).toBe(true);
});

test("a form that ends early frees what it held", () => {
  const inflight = new InflightBytes(2 ** 20, 1);
  const { chunk, views } = chunkOf("never written");
  {
    using held = new HeldFiles(inflight, PROJECT);
    held.begin(new Written());
    held.add(views[0] ?? new Uint8Array());
    held.release(chunk);
  }
  expect(isReleased(chunk)).toBe(true);
  expect(inflight.bytes).toBe(0);
});
