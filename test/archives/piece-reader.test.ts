import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";

import { archiveKey } from "../../src/archives/archive-key.ts";
import {
  PieceReader,
  type PlacedBatch,
  readIndexes,
  readPiece,
} from "../../src/archives/piece-reader.ts";
import { type ObjectStore } from "../../src/platform/objects/objects.ts";
import { Lost } from "../../src/platform/objects/read-faults.ts";
import { cut, flipped, gone, harm } from "../support/damage.ts";
import { failure } from "../support/failure.ts";
import { FaultyObjects } from "../support/faulty-objects.ts";
import { bodiesOf, expectSame, noise, writePiece } from "../support/pieces.ts";
import { type StoreFixture, aFileStore } from "../support/stores.ts";

const KIB = 1024;
const MIB = 2 ** 20;

let fixture: StoreFixture<string>;
let objects: ObjectStore;
const faults = new FaultyObjects();
const reads: string[] = [];

beforeAll(async () => {
  fixture = await aFileStore();
  objects = faults.wrap(fixture.store);
  faults.beforeRead = (key) => void reads.push(key);
});
beforeEach(() => void (reads.length = 0));
afterAll(async () => await fixture[Symbol.asyncDispose]());

describe("a piece is read", () => {
  test("with one request if 500 batches of 16 KiB are in it, facts and bodies", async () => {
    const made = await writePiece(
      objects,
      Array.from({ length: 500 }, (_, nth) => noise(nth, 16 * KIB)),
    );
    const all = await Array.fromAsync(readPiece(objects, made.name, made.piece));
    expect(all.map(({ batch }) => batch)).toMatchObject(made.batches);
    expectSame(await bodiesOf(objects, made), made.bodies);
    expect(reads).toHaveLength(2);
  });

  test("with one request for its indexes alone", async () => {
    const made = await writePiece(
      objects,
      Array.from({ length: 5000 }, (_, nth) => noise(nth, 40)),
    );
    const indexes = await Array.fromAsync(readIndexes(objects, made.name, made.piece));
    expect(indexes.map(({ batches }) => batches.length)).toEqual([2048, 2048, 904]);
    expect(indexes.flatMap(({ batches }) => batches)).toEqual(made.batches);
    expect(reads).toHaveLength(1);
  });

  test("in parts if it is long, and in any order", async () => {
    const made = await writePiece(
      objects,
      Array.from({ length: 60 }, (_, nth) => noise(nth, MIB - nth)),
    );
    expect(made.piece.length).toBeGreaterThan(24 * MIB);
    let most = 0;
    faults.changeRead = (bytes) => {
      most = Math.max(most, bytes.length);
      return bytes;
    };
    expectSame(await bodiesOf(objects, made), made.bodies);
    faults.changeRead = (bytes) => bytes;
    expect(most).toBeLessThanOrEqual(8 * MIB);
    expect(reads.length).toBeLessThan(24);
    const reader = new PieceReader({ objects }, made.name, made.piece);
    const batches = await placed(reader);
    for (const nth of [59, 3, 4, 41, 0]) {
      const batch = batches[nth];
      if (batch === undefined) throw new Error("no batch");
      expectSame([lostOr(await reader.body(batch))], [made.bodies[nth] ?? new Uint8Array()]);
    }
  });

  test("if it has no batches, an empty one, or one that is longer than a frame", async () => {
    expect(await bodiesOf(objects, await writePiece(objects, []))).toEqual([]);
    for (const lengths of [[0], [0, 0], [5, 0, 7], [3 * MIB], [9, 20 * MIB, 9, MIB]]) {
      const made = await writePiece(
        objects,
        lengths.map((length, nth) => noise(nth, length)),
      );
      expectSame(await bodiesOf(objects, made), made.bodies);
    }
  });
});

async function placed(reader: PieceReader): Promise<PlacedBatch[]> {
  const lists = await Array.fromAsync(reader.lists());
  return lists.flatMap((list) => {
    if (list instanceof Lost) throw list;
    return list;
  });
}

function lostOr(body: Uint8Array | Lost): Uint8Array | "lost" {
  return body instanceof Lost ? "lost" : body;
}

describe("what is damaged", () => {
  const BODIES = Array.from({ length: 12 }, (_, nth) => noise(nth, 300 * KIB));

  test("loses the batches of its frame alone", async () => {
    const made = await writePiece(objects, BODIES);
    // In the third of four frames of three batches.
    const at = Math.floor(made.piece.start + 0.6 * made.piece.length);
    await harm(fixture.store, archiveKey(made.name), flipped(at));
    const lost = BODIES.map((body, nth) => (nth >= 6 && nth < 9 ? "lost" : body));
    expectSame(await bodiesOf(objects, made), lost);
  });

  test("loses nothing if it was damaged on its way", async () => {
    const made = await writePiece(objects, BODIES);
    const seen = new Set<string>();
    faults.changeRead = (bytes, key) => {
      if (seen.has(key)) return bytes;
      seen.add(key);
      return Buffer.from(bytes).fill(7, 100_000);
    };
    expectSame(await bodiesOf(objects, made), BODIES);
    faults.changeRead = (bytes) => bytes;
  });

  test("loses everything if it is the index, or if the object ends before", async () => {
    for (const harmed of [flipped(-100), gone, cut(200 * KIB), cut(0)]) {
      const made = await writePiece(objects, BODIES);
      const change = (bytes: Buffer) =>
        harmed(bytes.subarray(0, made.piece.start + made.piece.length));
      await harm(fixture.store, archiveKey(made.name), change);
      expect(await failure(bodiesOf(objects, made))).toBeInstanceOf(Lost);
    }
  });

  test("loses those of one of several indexes", async () => {
    const made = await writePiece(
      objects,
      Array.from({ length: 5000 }, (_, nth) => noise(nth, 40)),
    );
    const { name, piece } = made;
    await harm(fixture.store, archiveKey(name), flipped(piece.indexStart + 200));
    const reader = new PieceReader({ objects }, name, piece);
    const [first, ...lists] = await Array.fromAsync(reader.lists());
    expect(first).toBeInstanceOf(Lost);
    const batches = lists.flatMap((list) => (list instanceof Lost ? [] : list));
    expect(batches).toHaveLength(5000 - 2048);
    for (const batch of batches.slice(0, 100))
      expect(await reader.body(batch)).toBeInstanceOf(Uint8Array);
  });
});

test("a store that is away is not taken for damage", async () => {
  const made = await writePiece(objects, [noise(1, 500)]);
  faults.beforeRead = () => {
    throw new Error("away");
  };
  const error = await failure(bodiesOf(objects, made));
  faults.beforeRead = (key) => void reads.push(key);
  expect(error).not.toBeInstanceOf(Lost);
  expect(error).toMatchObject({ message: "away" });
});
