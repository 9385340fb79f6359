import { describe, expect, test } from "bun:test";
import { pack } from "msgpackr";

import { archiveKey } from "../../../src/archives/archive-key.ts";
import { ArchiveWriter } from "../../../src/archives/archive-writer.ts";
import { type Archive } from "../../../src/archives/piece.ts";
import { packFooter, readFooter } from "../../../src/log/footer.ts";
import {
  type Kind,
  RECORD_HEADER_BYTES,
  type SegmentEntry,
  recordBody,
} from "../../../src/log/record.ts";
import { ArchiveStore, DAY, mergerOf } from "../../support/archive-store.ts";
import { inflatedBytes } from "../../support/read-archives.ts";
import { Random } from "../../support/random.ts";

type Image = { name: string; chunks: Uint8Array[] };

describe("images", () => {
  test("are merged: each content keeps its bytes, at its new place", async () => {
    await using store = await ArchiveStore.open();
    const images = someImages(30);
    for (let nth = 0; nth < 30; nth += 6) await addImages(store, images.slice(nth, nth + 6));
    expect(await mergerOf(store).look()).toBe(1);
    expect(await store.archives()).toMatchObject([{ kind: "images", day: DAY, projectId: 1 }]);
    expect(await imagesIn(store)).toEqual(bytesOf(images));
    const [output] = await store.archives();
    const { entries } = readFooter(await store.objects.read(archiveKey(output!), 0, output!.bytes));
    expect(entries.filter(({ kind }) => kind === "content")).toHaveLength(30);
  });

  test("are cut into several archives between contents", async () => {
    await using store = await ArchiveStore.open();
    const images = someImages(30);
    for (let nth = 0; nth < 30; nth += 6) await addImages(store, images.slice(nth, nth + 6));
    await mergerOf(store, { outputBytesMax: 200_000 }).look();
    const outputs = await store.archives();
    expect(outputs.length).toBeGreaterThan(2);
    expect(outputs.every(({ bytes }) => bytes < 210_000)).toBe(true);
    expect(await imagesIn(store)).toEqual(bytesOf(images));
  });

  test("without a row are physically gone", async () => {
    await using store = await ArchiveStore.open();
    const images = someImages(4);
    await addImages(store, images.slice(0, 2));
    await addImages(store, images.slice(2));
    await store.sql`delete from image_contents where name = ${images[1]!.name}`;
    await mergerOf(store).look();
    const [output] = await store.archives();
    const bytes = await inflatedBytes(store, archiveKey(output!));
    expect(bytes.includes(images[0]!.chunks[0]!)).toBe(true);
    expect(bytes.includes(images[1]!.chunks[0]!)).toBe(false);
    expect(bytes.includes(images[1]!.name)).toBe(false);
    expect(await imagesIn(store)).toEqual(bytesOf(images.filter((_, nth) => nth !== 1)));
  });

  test("of two projects may be in the same place", async () => {
    await using store = await ArchiveStore.open();
    const images = someImages(4);
    await addImages(store, images.slice(0, 2), 0);
    await addImages(store, images.slice(2), 0);
    await store.sql`
      insert into image_contents select 1 as project_id, name, sha256, kind, content_type, bytes, crc32, uses, stored_at, network, network_session,
        shared, chunk_segments, chunk_offsets, chunk_lengths, archive_id, archive_offset, archive_length
      from image_contents where project_id = 0 and name <> ${images[0]!.name}`;
    await store.sql`delete from image_contents where project_id = 0 and name = ${images[1]!.name}`;
    await mergerOf(store).look();
    expect(await imagesIn(store, 0)).toEqual(bytesOf([images[0]!, images[2]!, images[3]!]));
    expect(await imagesIn(store, 1)).toEqual(bytesOf(images.slice(1)));
  });

  test("that are damaged mark their archive, and all stay where they are", async () => {
    await using store = await ArchiveStore.open();
    const images = someImages(6);
    const input = await addImages(store, images.slice(0, 3));
    await addImages(store, images.slice(3));
    await store.flip(input, 700);
    const merger = mergerOf(store);
    expect(await merger.look()).toBe(0);
    expect(merger.results).toMatchObject([{ outcome: "damaged" }]);
    expect(await store.marked()).toEqual([input.id]);
    expect(await store.archives()).toHaveLength(2);
  });

  test.each([
    "archive_offset = archive_offset + 1",
    "archive_length = archive_length - 1",
    "archive_offset = 100000000",
  ])("whose rows lead elsewhere mark their archive: %s", async (change) => {
    await using store = await ArchiveStore.open();
    const images = someImages(6);
    const input = await addImages(store, images.slice(0, 3));
    await addImages(store, images.slice(3));
    await store.sql`update image_contents set ${store.sql.unsafe(change)} where name = ${images[1]!.name}`;
    expect(await mergerOf(store).look()).toBe(0);
    expect(await store.marked()).toEqual([input.id]);
  });

  test.each<[string, (entries: SegmentEntry[]) => SegmentEntry[]]>([
    ["places", (entries) => entries.map((e) => ({ ...e, offset: e.offset + 1 }))],
    ["lengths", ([first, ...rest]) => [{ ...first!, length: first!.length + 34 }, ...rest]],
    ["checksums", (entries) => entries.map((e) => ({ ...e, checksum: 1n }))],
    ["kinds", (entries) => entries.map((e) => ({ ...e, kind: "chunk" }))],
    ["counts", (entries) => entries.slice(1)],
  ])("are not merged by a footer that lies about %s", async (_what, lie) => {
    await using store = await ArchiveStore.open();
    const images = someImages(6);
    await addImages(store, images.slice(0, 3));
    const lying = await addImages(store, images.slice(3), 1, lie);
    expect(await mergerOf(store).look()).toBe(0);
    expect(await store.marked()).toEqual([lying.id]);
  });
});

test("records of projects are merged by time, each of them once", async () => {
  await using store = await ArchiveStore.open();
  await store.addRecords("projects", [3, 1, 7].map(record));
  await store.addRecords("projects", [2, 3, 7].map(record));
  await mergerOf(store).look();
  const [output] = await store.archives();
  expect(output).toMatchObject({ kind: "projects", records: 4 });
  const object = await store.objects.read(archiveKey(output!), 0, output!.bytes);
  const bodies = readFooter(object).entries.map(({ offset, length }) =>
    Buffer.from(object.subarray(offset, offset + length)),
  );
  expect(bodies).toEqual([1, 2, 3, 7].map((nth) => Buffer.from(record(nth).body)));
});

test("days, projects and kinds are not mixed", async () => {
  await using store = await ArchiveStore.open();
  const records = [record(1)];
  for (const projectId of [0, 1, 2])
    for (const day of ["2026-11-29", "2026-11-30"])
      for (let nth = 0; nth < 2; nth++)
        await store.addRecords("projects", records, { projectId, day });
  await store.addRecords("images", []);
  expect(await mergerOf(store).look()).toBe(6);
  expect(await store.archives()).toHaveLength(7);
  expect(await mergerOf(store).look()).toBe(0);
});

function record(nth: number) {
  const receivedAt = 1_764_500_000_000 + nth;
  const kind: Kind = "project";
  const head = { kind, flags: 0, projectId: 1, sessionId: 0n, receivedAt };
  return { head, body: pack({ id: 1, name: `name ${nth}` }) };
}

function someImages(count: number): Image[] {
  const random = new Random(count);
  return Array.from({ length: count }, (_, nth) => ({
    name: `image-${nth}`,
    chunks: Array.from({ length: random.integer(1, 4) }, () =>
      random.bytes(random.integer(500, 20_000)),
    ),
  }));
}

async function addImages(
  store: ArchiveStore,
  images: Image[],
  projectId = 1,
  listed?: (entries: SegmentEntry[]) => SegmentEntry[],
): Promise<Archive> {
  const id = Bun.randomUUIDv7();
  const archive = new ArchiveWriter(id, []);
  const chunks = [archive.begin()];
  const head = { flags: 0, projectId, sessionId: 0n, receivedAt: 1_764_500_000_000 };
  const places: { name: string; start: number; length: number; bytes: number }[] = [];
  for (const { name, chunks: bodies } of images) {
    const content = pack({ name });
    chunks.push(archive.add({ ...head, kind: "content" }, content), content);
    const start = archive.bytes;
    for (const body of bodies) chunks.push(archive.add({ ...head, kind: "chunk" }, body), body);
    const bytes = bodies.reduce((sum, { length }) => sum + length, 0);
    places.push({ name, start, length: archive.bytes - start, bytes });
  }
  const end = archive.end();
  const footer = readFooter(end);
  chunks.push(
    listed === undefined ? end : packFooter({ ...footer, entries: listed(footer.entries) }),
  );
  const made = await store.put({ id, projectId, day: DAY, kind: "images" }, archive, chunks, []);
  for (const { name, start, length, bytes } of places)
    await store.sql`
      insert into image_contents (project_id, name, sha256, kind, content_type, bytes, crc32, uses, stored_at,
        chunk_segments, chunk_offsets, chunk_lengths, archive_id, archive_offset, archive_length)
      values (${projectId}, ${name}, sha256(${Buffer.from(name)}), 'image', 'image/png', ${bytes}, 0, 1, now(), '{}', '{}', '{}', ${id}, ${start}, ${length})`;
  return made;
}

/** Reads the bytes of a project's images by their rows. */
async function imagesIn(store: ArchiveStore, projectId = 1): Promise<Map<string, Buffer>> {
  const rows = await store.sql<{ name: string; id: string; start: number; length: number }[]>`
    select name, archive_id as id, archive_offset::float8 as start, archive_length::float8 as length
    from image_contents where project_id = ${projectId} order by name`;
  const archives = new Map((await store.archives()).map((archive) => [archive.id, archive]));
  const images = new Map<string, Buffer>();
  for (const { name, id, start, length } of rows) {
    const range = await store.objects.read(archiveKey(archives.get(id)!), start, start + length);
    const bodies: Uint8Array[] = [];
    for (let at = 0; at < length;) {
      const view = new DataView(range.buffer, range.byteOffset + at);
      const next = at + RECORD_HEADER_BYTES + view.getUint32(0, true);
      bodies.push(recordBody(range.subarray(at, next)));
      at = next;
    }
    images.set(name, Buffer.concat(bodies));
  }
  return images;
}

function bytesOf(images: Image[]): Map<string, Buffer> {
  const sorted = images.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  return new Map(sorted.map(({ name, chunks }) => [name, Buffer.concat(chunks)]));
}
