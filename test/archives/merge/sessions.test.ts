import { describe, expect, test } from "bun:test";

import { archiveKey } from "../../../src/archives/archive-key.ts";
import { readFooter } from "../../../src/log/footer.ts";
import { type History, aHistory } from "../../support/archive-histories.ts";
import { ArchiveStore, DAY, batchAt, mergerOf, rowAt } from "../../support/archive-store.ts";
import { expectHistory, inflatedBytes, readArchives } from "../../support/read-archives.ts";
import { Random } from "../../support/random.ts";

const SEGMENT = "019ad000-0000-7000-8000-000000000001";
const SEEDS = process.env["TEST_LONG"] === "1" ? 200 : 12;

test("merged archives have every record once, byte for byte, in the order of commits", async () => {
  await using store = await ArchiveStore.open();
  for (let seed = 1; seed <= SEEDS; seed++) {
    const history = aHistory(seed);
    for (const archive of history.archives) await store.add(archive, { projectId: seed });
    const merger = mergerOf(store);
    expect(await merger.look()).toBe(1);
    expect(await merger.look()).toBe(0);
    await expectHistory(store, history);
    expect(await store.archives()).toMatchObject([{ projectId: seed, day: DAY, kind: "sessions" }]);
    await store.sql`truncate archives, session_pieces`;
  }
});

test("a merge that is merged again, with later archives, has the same", async () => {
  await using store = await ArchiveStore.open();
  const history = aHistory(99, { archives: 9 });
  for (const archive of history.archives) {
    await store.add(archive);
    await mergerOf(store).look();
  }
  await expectHistory(store, history);
  expect(await store.archives()).toHaveLength(1);
});

test("the inputs are the sources of the output, and are deleted after the grace", async () => {
  await using store = await ArchiveStore.open();
  const { archives } = aHistory(1);
  const inputs: string[] = [];
  for (const archive of archives) inputs.push((await store.add(archive)).id);
  await mergerOf(store, { graceS: 600 }).look();
  const [output] = await store.archives();
  const key = archiveKey(output!);
  const footer = readFooter(await store.objects.read(key, 0, output!.bytes));
  expect(footer.sources?.toSorted()).toEqual(inputs.toSorted());
  const garbage = await store.sql`
    select key, replaced_by as by, due_at > now() + interval '590 seconds' as later from object_garbage order by key`;
  expect([...garbage]).toEqual(
    inputs
      .toSorted()
      .map((id) => ({ key: archiveKey({ ...output!, id }), by: [output!.id], later: true })),
  );
});

test("batches are regrouped into frames of a mebibyte, and long sessions have several indexes", async () => {
  await using store = await ArchiveStore.open();
  const history = aHistory(5, { sessions: 1, batches: 6000, bytesMax: 1000 });
  for (const archive of history.archives) await store.add(archive);
  await mergerOf(store).look();
  await expectHistory(store, history);
  const [output] = await store.archives();
  const { entries } = readFooter(await store.objects.read(archiveKey(output!), 0, output!.bytes));
  const frames = entries.filter(({ kind }) => kind === "frame").map(({ length }) => length);
  expect(entries.filter(({ kind }) => kind === "index")).toHaveLength(3);
  expect(frames.every((length) => length < 2 ** 20 + 4096)).toBe(true);
  expect(frames.length).toBeLessThan(7);
});

test("a batch larger than all windows together is merged", async () => {
  await using store = await ArchiveStore.open();
  const large = new Random(1).bytes(3 * 2 ** 20);
  const batches = ["01", "02", "03"].map((nth) =>
    batchAt(
      { segmentId: `019ad000-0000-7000-8000-0000000000${nth}`, offset: 42 },
      Buffer.concat([large, Buffer.from(nth)]),
    ),
  );
  for (const batch of batches) await store.add(new Map([[5n, { rows: [], batches: [batch] }]]));
  await mergerOf(store, { memoryBytes: 2 ** 20 }).look();
  const [piece] = (await readArchives(store)).get(5n) ?? [];
  expect(piece?.batches).toEqual(batches);
});

test("a session may have any number of rows, and no batch", async () => {
  await using store = await ArchiveStore.open();
  const rows = Array.from({ length: 20_000 }, (_, nth) =>
    rowAt("image", { segmentId: SEGMENT, offset: 8 + nth * 50 }, { name: `image ${nth}` }),
  );
  await store.add(new Map([[5n, { rows: rows.slice(0, 12_000), batches: [] }]]));
  await store.add(new Map([[5n, { rows: rows.slice(10_000), batches: [] }]]));
  await mergerOf(store).look();
  const [piece] = (await readArchives(store)).get(5n) ?? [];
  expect(piece?.row).toMatchObject({ batches: 0, firstSegment: null, lastAt: null });
  expect(piece?.rows).toEqual(
    rows.map(({ origin, body }) => ({ origin, kind: "image", body: Buffer.from(body) })),
  );
});

test("outputs are cut between sessions", async () => {
  await using store = await ArchiveStore.open();
  const history = aHistory(3, { sessions: 20, batches: 600 });
  for (const archive of history.archives) await store.add(archive);
  expect(await mergerOf(store, { outputBytesMax: 300_000 }).look()).toBe(1);
  const outputs = await store.archives();
  expect(outputs.length).toBeGreaterThan(3);
  expect(outputs.every(({ bytes }) => bytes < 320_000)).toBe(true);
  await expectHistory(store, history);
});

describe("what has no row", () => {
  const MARKER = Buffer.from("the secret of somebody who wants to be forgotten");

  test("is not in the output", async () => {
    await using store = await ArchiveStore.open();
    const history = withMarked(aHistory(4), MARKER);
    for (const archive of history.archives) await store.add(archive);
    for (const key of await store.keys()) expect(await holds(store, key, MARKER)).toBe(true);
    await store.sql`delete from session_pieces where session_id = 1`;
    await mergerOf(store).look();
    const [output] = await store.archives();
    expect(await holds(store, archiveKey(output!), MARKER)).toBe(false);
    await expectHistory(store, history);
  });

  test("is gone from an archive that is rewritten", async () => {
    await using store = await ArchiveStore.open();
    const history = withMarked(aHistory(4, { archives: 1 }), MARKER);
    const { id } = await store.add(history.archives[0]!);
    await store.sql`delete from session_pieces where session_id = 1`;
    const merger = mergerOf(store);
    expect(await merger.rewrite(id)).toBe(true);
    expect(merger.results).toMatchObject([{ outcome: "rewritten" }]);
    const [output] = await store.archives();
    expect(output?.id).not.toBe(id);
    expect(await holds(store, archiveKey(output!), MARKER)).toBe(false);
    await expectHistory(store, history);
    expect(await merger.rewrite(id)).toBe(false);
  });

  test("leaves no archive if it was everything", async () => {
    await using store = await ArchiveStore.open();
    const { archives } = aHistory(4, { archives: 1 });
    const { id } = await store.add(archives[0]!);
    await store.sql`truncate session_pieces`;
    expect(await mergerOf(store).rewrite(id)).toBe(true);
    expect(await store.archives()).toEqual([]);
    expect([...(await store.sql`select replaced_by as by from object_garbage`)]).toEqual([
      { by: [] },
    ]);
  });

  test("is rewritten by the next look if its archive is marked", async () => {
    await using store = await ArchiveStore.open();
    const { archives } = withMarked(aHistory(4, { archives: 1 }), MARKER);
    await store.add(archives[0]!);
    await store.sql`delete from session_pieces where session_id = 1`;
    await store.sql`update archives set has_erased = true`;
    expect(await mergerOf(store).look()).toBe(1);
    const [output] = await store.archives();
    expect(await holds(store, archiveKey(output!), MARKER)).toBe(false);
    expect(await mergerOf(store).look()).toBe(0);
  });
});

/** Adds a session with the marker to each archive. */
function withMarked(history: History, marker: Uint8Array): History {
  for (const [nth, archive] of history.archives.entries()) {
    const body = Buffer.concat([marker, Buffer.from(String(nth))]);
    archive.set(1n, {
      rows: [],
      batches: [batchAt({ segmentId: Bun.randomUUIDv7(), offset: 42 }, body)],
    });
  }
  return history;
}

async function holds(store: ArchiveStore, key: string, marker: Uint8Array): Promise<boolean> {
  return (await inflatedBytes(store, key)).includes(marker);
}
