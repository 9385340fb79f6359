import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { archiveKey } from "../../src/archives/archive-key.ts";
import { ArchiveWriter } from "../../src/archives/archive-writer.ts";
import { type Index, packIndex } from "../../src/archives/piece-index.ts";
import { RECORD_HEADER_BYTES } from "../../src/log/record.ts";
import { type ObjectStore } from "../../src/platform/objects/objects.ts";
import { Lost } from "../../src/platform/objects/read-faults.ts";
import { failure } from "../support/failure.ts";
import { type WrittenPiece, batchOf, bodiesOf, expectSame, noise } from "../support/pieces.ts";
import { type StoreFixture, aFileStore } from "../support/stores.ts";

const MIB = 2 ** 20;
const RECORD = { projectId: 1, sessionId: 7n, kind: "index", flags: 0, receivedAt: 0 } as const;

let fixture: StoreFixture<string>;
let objects: ObjectStore;

beforeAll(async () => {
  fixture = await aFileStore();
  objects = fixture.store;
});
afterAll(async () => await fixture[Symbol.asyncDispose]());

/** Writes a piece of these batches, whose index `lie` changes. */
async function lying(lie: (index: Index) => unknown): Promise<WrittenPiece> {
  const bodies = [noise(1, 500), noise(2, 700)];
  const name = { id: Bun.randomUUIDv7(), projectId: 1, day: "2026-12-01" };
  const archive = new ArchiveWriter(name.id, []);
  const batches = bodies.map((body, nth) => batchOf(nth, body));
  const frame = Bun.zstdCompressSync(Buffer.concat(bodies));
  const chunks = [archive.begin()];
  const { bytes: start } = archive;
  chunks.push(archive.add({ ...RECORD, kind: "frame" }, frame), frame);
  const indexStart = archive.bytes;
  const index: Index = {
    at: 0,
    rows: [],
    frames: [{ batches: 2, bytes: 1200, length: frame.length }],
    batches,
  };
  const made = lie(index);
  const body = made instanceof Uint8Array ? made : packIndex(index);
  chunks.push(archive.add(RECORD, body), body);
  const length = archive.bytes - start;
  chunks.push(archive.end());
  await objects.put(archiveKey(name), Buffer.concat(chunks));
  return { name, piece: { start, length, indexStart }, batches, bodies };
}

function of(index: Index) {
  const [frame] = index.frames;
  const [batch, second] = index.batches;
  if (frame === undefined || batch === undefined || second === undefined)
    throw new Error("no batches");
  return { frame, batch, second };
}

describe("an index that is not true to its piece is lost:", () => {
  test("the others are not", async () => {
    expectSame(await bodiesOf(objects, await lying(() => undefined)), [
      noise(1, 500),
      noise(2, 700),
    ]);
  });

  test.each<[string, (index: Index) => unknown]>([
    ["a frame before the piece", (index) => (index.at = -100)],
    ["a frame behind the piece", (index) => (index.at = 2 ** 40)],
    ["a frame that is too long", (index) => (of(index).frame.length = 2 ** 31)],
    ["a frame of negative length", (index) => (of(index).frame.length = -40)],
    ["a frame that is no number", (index) => Object.assign(of(index).frame, { length: "x" })],
    [
      "a frame that would take all memory",
      (index) => {
        of(index).frame.bytes = 2 ** 40;
        of(index).batch.bytes = 2 ** 40 - 700;
      },
    ],
    [
      "batches of negative length",
      (index) => {
        of(index).batch.bytes = -500;
        of(index).second.bytes = 1700;
      },
    ],
    ["fewer batches than in the frames", (index) => index.batches.pop()],
    ["more batches than in the frames", (index) => index.batches.push(of(index).batch)],
    ["batches in another order", (index) => (index.batches = index.batches.toReversed())],
    ["a batch without a time", (index) => Object.assign(of(index).batch, { receivedAt: "x" })],
    ["other things", () => Bun.zstdCompressSync(Buffer.from([0x81, 0xa1, 0x61, 1]))],
    ["a number", () => Bun.zstdCompressSync(Buffer.from([7]))],
    ["nothing", () => new Uint8Array(0)],
    ["a bomb", () => Bun.zstdCompressSync(Buffer.alloc(64 * MIB))],
    [
      "an array of 4 billion elements",
      () => Bun.zstdCompressSync(Buffer.from("ddffffffff", "hex")),
    ],
  ])("%s", async (_what, lie) => {
    expect(await failure(bodiesOf(objects, await lying(lie)))).toBeInstanceOf(Lost);
  });

  test("a batch that has other bytes than the index says is lost", async () => {
    const made = await lying((index) => {
      of(index).batch.bytes = 499;
      of(index).second.bytes = 701;
    });
    expect(await bodiesOf(objects, made)).toEqual(["lost", "lost"]);
    const other = await lying((index) => (of(index).second.hash = 1n));
    expectSame(await bodiesOf(objects, other), [noise(1, 500), "lost"]);
  });

  test("a frame that inflates to more than the index says is lost", async () => {
    const made = await lying((index) => {
      of(index).frame.bytes = 1199;
      of(index).second.bytes = 699;
    });
    expect(await bodiesOf(objects, made)).toEqual(["lost", "lost"]);
  });

  test("a record that is no index", async () => {
    const { name, piece } = await lying(() => undefined);
    const row = { ...piece, indexStart: piece.start };
    expect(await failure(bodiesOf(objects, { name, piece: row }))).toBeInstanceOf(Lost);
    for (const shift of [1, RECORD_HEADER_BYTES, 90]) {
      const shifted = { ...piece, indexStart: piece.indexStart + shift };
      const answer = failure(bodiesOf(objects, { name, piece: shifted }));
      expect(await answer).toBeInstanceOf(Lost);
    }
  });
});
