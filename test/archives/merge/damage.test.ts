import { describe, expect, test } from "bun:test";
import { truncate, unlink } from "node:fs/promises";
import { join } from "node:path";

import { archiveKey } from "../../../src/archives/archive-key.ts";
import { ArchiveWriter } from "../../../src/archives/archive-writer.ts";
import { packIndex } from "../../../src/archives/piece-index.ts";
import { type Archive } from "../../../src/archives/piece.ts";
import { type History, aHistory } from "../../support/archive-histories.ts";
import { ArchiveStore, DAY, batchAt, mergerOf } from "../../support/archive-store.ts";
import { FaultyObjects } from "../../support/faulty-objects.ts";
import { LogLines } from "../../support/log-lines.ts";
import { Random } from "../../support/random.ts";
import { expectHistory } from "../../support/read-archives.ts";

const FLIPS = process.env["TEST_LONG"] === "1" ? 2000 : 150;

test("a flipped byte in an input is found, or changes nothing", async () => {
  await using store = await ArchiveStore.open();
  const history = aHistory(21, { sessions: 3, batches: 60, bytesMax: 300 });
  const inputs: Archive[] = [];
  for (const archive of history.archives) inputs.push(await store.add(archive));
  const tables = await tablesOf(store);
  const random = new Random(1);
  const outcomes = new Set<string | undefined>();
  for (let nth = 0; nth < FLIPS; nth++) {
    const input = inputs[random.integer(0, inputs.length - 1)]!;
    const at = random.integer(0, input.bytes - 1);
    const flip = 1 << random.integer(0, 7);
    await store.flip(input, at, flip);
    const merger = mergerOf(store);
    await merger.look();
    const outcome = merger.results[0]?.outcome;
    outcomes.add(outcome);
    if (outcome === "damaged") {
      expect(await store.marked()).toEqual([input.id]);
      expect(await tablesOf(store)).toEqual(tables);
    } else {
      expect(outcome).toBe("merged");
      await expectHistory(store, history);
      await restore(store, tables);
    }
    await store.sql`truncate unreadable_segments`;
    await store.flip(input, at, flip);
  }
  expect(outcomes).toEqual(new Set(["damaged", "merged"]));
});

describe("an input that is", () => {
  test.each<[string, (path: string) => Promise<void>, string]>([
    ["gone", async (path) => await unlink(path), "missing"],
    ["truncated", async (path) => await truncate(path, 1000), "damaged"],
    ["empty", async (path) => await truncate(path, 0), "damaged"],
  ])(
    "%s is marked and reported, and the others are merged without it",
    async (_what, damage, reason) => {
      await using store = await ArchiveStore.open();
      const { inputs } = await filled(store);
      const [damaged] = inputs;
      await damage(pathOf(store, damaged!));
      const lines = new LogLines();
      const merger = mergerOf(store, { log: lines.log });
      expect(await merger.look()).toBe(0);
      expect(merger.results).toMatchObject([{ outcome: "damaged" }]);
      expect(await store.marked()).toEqual([damaged!.id]);
      expect(lines.with(archiveKey(damaged!))).toHaveLength(1);
      expect(lines.with(`an archive is ${reason}`)).toHaveLength(1);
      expect(await store.archives()).toEqual(inputs);
      expect(await merger.look()).toBe(1);
      const left = await store.archives();
      expect(left).toHaveLength(2);
      expect(left).toContainEqual(damaged!);
      expect(await merger.rewrite(damaged!.id)).toBe(false);
    },
  );
});

test("bytes that are damaged in transit are read again", async () => {
  await using store = await ArchiveStore.open();
  const { history } = await filled(store);
  const faults = new FaultyObjects();
  let reads = 0;
  faults.changeRead = (bytes) => {
    if (reads++ % 5 > 0) return bytes;
    const changed = Uint8Array.from(bytes);
    changed[Math.floor(changed.length / 2)]! ^= 1;
    return changed;
  };
  const merger = mergerOf(store, { objects: faults.wrap(store.objects) });
  expect(await merger.look()).toBe(1);
  await expectHistory(store, history);
});

describe("an index that lies", () => {
  const body = Buffer.from("a batch of somebody");
  const batch = batchAt({ segmentId: "019ad000-0000-7000-8000-000000000001", offset: 42 }, body);
  const { body: _body, ...facts } = batch;
  const stored = Bun.zstdCompressSync(body);
  const frame = { batches: 1, bytes: body.length, length: stored.length };

  test.each<[string, Parameters<typeof packIndex>[0]]>([
    ["about the place of its frames", { at: 7, rows: [], frames: [frame], batches: [facts] }],
    [
      "about the length of a frame",
      { at: 0, rows: [], frames: [{ ...frame, length: 9 }], batches: [facts] },
    ],
    [
      "with a frame that is not there",
      { at: 0, rows: [], frames: [frame, frame], batches: [facts, { ...facts, offset: 77 }] },
    ],
    ["about a hash", { at: 0, rows: [], frames: [frame], batches: [{ ...facts, hash: 1n }] }],
    [
      "with a row that is not there",
      {
        at: 0,
        rows: [{ segmentId: facts.segmentId, offset: 8 }],
        frames: [frame],
        batches: [facts],
      },
    ],
    [
      "about its frames' size",
      { at: 0, rows: [], frames: [{ ...frame, bytes: 18 }], batches: [{ ...facts, bytes: 18 }] },
    ],
    ["without the batch", { at: 0, rows: [], frames: [], batches: [] }],
    [
      "about the first batch",
      { at: 0, rows: [], frames: [frame], batches: [{ ...facts, offset: 43 }] },
    ],
  ])("%s marks its archive, and the inputs stay", async (_what, index) => {
    await using store = await ArchiveStore.open();
    const id = Bun.randomUUIDv7();
    const archive = new ArchiveWriter(id, []);
    const head = { flags: 0, projectId: 1, sessionId: 5n, receivedAt: 0 };
    const packed = packIndex(index);
    const chunks = [archive.begin(), archive.add({ ...head, kind: "frame" }, stored), stored];
    const indexStart = archive.bytes;
    chunks.push(archive.add({ ...head, kind: "index" }, packed), packed);
    const piece = {
      sessionId: 5n,
      archiveId: id,
      start: 8,
      length: archive.bytes - 8,
      indexStart,
      batches: 1,
      quarantined: 0,
      messages: facts.messages,
      bytes: facts.bytes,
      firstSegment: facts.segmentId,
      firstOffset: facts.offset,
      firstReceived: facts.receivedAt,
      lastReceived: facts.receivedAt,
      firstAt: facts.firstAt,
      lastAt: facts.lastAt,
    };
    chunks.push(archive.end());
    const lying = await store.put(
      { id, projectId: 1, day: DAY, kind: "sessions" },
      archive,
      chunks,
      [piece],
    );
    const other = await store.add(new Map([[5n, { rows: [], batches: [batch] }]]));
    const merger = mergerOf(store);
    expect(await merger.look()).toBe(0);
    expect(merger.results).toMatchObject([{ outcome: "damaged" }]);
    expect(await store.marked()).toEqual([id]);
    expect(await store.archives()).toEqual([lying, other]);
  });
});

test.each([
  "start = start + 1, length = length - 1",
  "length = length - 1",
  "index_start = start",
  "batches = batches + 1",
  "first_offset = first_offset - 1",
  "session_id = session_id + 1",
])("a piece's row that leads elsewhere marks its archive: %s", async (change) => {
  await using store = await ArchiveStore.open();
  const { inputs } = await filled(store);
  const [{ id } = { id: "" }] = inputs;
  await store.sql`
    update session_pieces set ${store.sql.unsafe(change)}
    where (session_id, archive_id) = (select session_id, archive_id from session_pieces where archive_id = ${id} limit 1)`;
  expect(await mergerOf(store).look()).toBe(0);
  expect(await store.marked()).toEqual([id]);
  expect(await store.archives()).toEqual(inputs);
});

test("marked archives are left as they are", async () => {
  await using store = await ArchiveStore.open();
  const { inputs } = await filled(store);
  for (const { id } of inputs.slice(1))
    await store.sql`insert into unreadable_segments (segment_id) values (${id})`;
  const merger = mergerOf(store);
  expect(await merger.look()).toBe(0);
  expect(merger.results).toEqual([]);
  expect(await store.archives()).toEqual(inputs);
});

async function filled(store: ArchiveStore): Promise<{ history: History; inputs: Archive[] }> {
  const history = aHistory(31);
  const inputs: Archive[] = [];
  for (const archive of history.archives) inputs.push(await store.add(archive));
  return { history, inputs };
}

type Tables = { archives: object[]; pieces: object[] };

async function tablesOf({ sql }: ArchiveStore): Promise<Tables> {
  return {
    archives: [
      ...(await sql`select id, project_id, day::text, kind, bytes::text, records from archives order by id`),
    ],
    pieces: [...(await sql`select * from session_pieces order by session_id, archive_id`)],
  };
}

/** Puts back the rows that a merge has replaced; the objects are still there. */
async function restore({ sql }: ArchiveStore, { archives, pieces }: Tables): Promise<void> {
  await sql`truncate archives, session_pieces, object_garbage`;
  await sql`insert into archives ${sql(archives)}`;
  await sql`insert into session_pieces ${sql(pieces)}`;
}

function pathOf({ folder }: ArchiveStore, archive: Archive): string {
  return join(folder, archiveKey(archive));
}
