import { describe, expect, test } from "bun:test";
import { join } from "node:path";

import { archiveKey } from "../../../src/archives/archive-key.ts";
import { type Archive } from "../../../src/archives/piece.ts";
import { type ObjectStore } from "../../../src/platform/objects/objects.ts";
import { WrappedObjects } from "../../../src/platform/objects/wrapped-objects.ts";
import { type History, aHistory } from "../../support/archive-histories.ts";
import { ArchiveStore, mergerOf } from "../../support/archive-store.ts";
import { expectHistory, readArchives } from "../../support/read-archives.ts";

const CHILD = join(import.meta.dir, "../../support/merge-and-die.ts");

describe("after a kill", () => {
  test.each(["listed", "writing", "written", "before-commit", "committed"])(
    "at the step %s, another merger has every record once, and nothing else is left",
    async (step) => {
      await using store = await ArchiveStore.open();
      const { history, inputs } = await filled(store);
      expect(await dieMerging(store, step)).toBe("SIGKILL");
      const isDone = step === "committed";
      expect((await store.archives()).map(({ id }) => id).toSorted()).toEqual(
        isDone ? [expect.any(String)] : inputs.map(({ id }) => id),
      );
      await readArchives(store);
      await store.endLeases();
      expect(await mergerOf(store).look()).toBe(isDone ? 0 : 1);
      await expectHistory(store, history);
      await store.collect();
      expect(await store.keys()).toEqual((await store.archives()).map(archiveKey));
    },
  );
});

describe("two mergers whose leases overlap", () => {
  test("swap once: the slower one gives up and discards what it wrote", async () => {
    await using store = await ArchiveStore.open();
    const { history } = await filled(store);
    const slow = new GatedUploads(store.objects);
    const late = mergerOf(store, { objects: slow });
    const looking = late.look();
    await slow.reached;
    await store.endLeases();
    expect(await mergerOf(store).look()).toBe(1);
    slow.open();
    expect(await looking).toBe(0);
    expect(late.results).toMatchObject([{ outcome: "overtaken" }]);
    await expectHistory(store, history);
    await store.collect();
    expect(await store.keys()).toEqual((await store.archives()).map(archiveKey));
  });

  test("swap once, if both are at it at the same time", async () => {
    await using store = await ArchiveStore.open();
    const { history } = await filled(store);
    const gates = [0, 1, 2].map(() => new GatedUploads(store.objects));
    const mergers = gates.map((objects) => mergerOf(store, { objects }));
    const looking: Promise<number>[] = [];
    for (const [nth, gate] of gates.entries()) {
      looking.push(mergers[nth]!.look());
      await gate.reached;
      await store.endLeases();
    }
    for (const gate of gates) gate.open();
    expect((await Promise.all(looking)).filter((steps) => steps > 0)).toEqual([1]);
    await expectHistory(store, history);
    await store.collect();
    expect(await store.keys()).toEqual((await store.archives()).map(archiveKey));
  });
});

test("leased archives are left to the process that leases them", async () => {
  await using store = await ArchiveStore.open();
  const { inputs } = await filled(store);
  await store.sql`update archives set leased_until = now() + interval '1 minute' where id = ${inputs[0]!.id}`;
  expect(await mergerOf(store).look()).toBe(1);
  expect(await store.archives()).toContainEqual(inputs[0]!);
  expect(await mergerOf(store).rewrite(inputs[0]!.id)).toBe(false);
});

describe("while a merge is being written", () => {
  test("a session that is erased gets no row, and its bytes are gone after the next look", async () => {
    await using store = await ArchiveStore.open();
    const { history } = await filled(store);
    const [erased = 0n] = history.expected.keys();
    const merger = await meanwhile(store, async () => {
      await store.sql`delete from session_pieces where session_id = ${erased}`;
    });
    const [merged, rewritten] = merger.results;
    expect(merger.results).toMatchObject([{ outcome: "merged" }, { outcome: "rewritten" }]);
    expect(rewritten?.bytesWritten).toBeLessThan(merged?.bytesWritten ?? 0);
    history.expected.delete(erased);
    await expectHistory(store, history);
    const [output] = await store.archives();
    expect(await store.sessionsIn(output!)).not.toContain(erased);
  });

  test("an input that is deleted ends it, and what it wrote is kept: it may be the only copy", async () => {
    await using store = await ArchiveStore.open();
    const { inputs } = await filled(store);
    const [{ id } = { id: "" }] = inputs;
    const merger = await meanwhile(store, async () => {
      await store.sql`delete from archives where id = ${id}`;
    });
    expect(merger.results).toMatchObject([{ outcome: "overtaken" }]);
    expect(await store.archives()).toEqual(inputs.slice(1));
    expect([...(await store.sql`select kept from object_garbage`)]).toEqual([{ kept: true }]);
    expect(await store.keys()).toHaveLength(inputs.length + 1);
  });

  test.each<[string, (store: ArchiveStore, ids: string[], history: History) => Promise<unknown>]>([
    [
      "one piece of a session of several is deleted",
      async ({ sql }) =>
        await sql`delete from session_pieces where (session_id, archive_id) = (
          select session_id, min(archive_id::text)::uuid from session_pieces group by session_id having count(*) > 1 limit 1)`,
    ],
    [
      "a piece is added to an input",
      async ({ sql }, [id]) =>
        await sql`insert into session_pieces
          select 5, archive_id, start, length, index_start, batches, quarantined, messages, bytes from session_pieces
          where archive_id = ${id ?? ""} limit 1`,
    ],
    [
      "the output's place on the list of garbage is lost",
      async ({ sql }) => await sql`delete from object_garbage`,
    ],
  ])("and %s, it is given up and what it wrote is discarded", async (_what, change) => {
    await using store = await ArchiveStore.open();
    const { history, inputs } = await filled(store);
    const ids = inputs.map(({ id }) => id);
    const merger = await meanwhile(store, async () => await change(store, ids, history));
    expect(merger.results).toMatchObject([{ outcome: "overtaken" }]);
    expect((await store.archives()).every(({ id }) => ids.includes(id))).toBe(true);
    expect(await store.keys()).toEqual(inputs.map(archiveKey));
    expect([
      ...(await store.sql`select leased_until as lease from archives where leased_until is not null`),
    ]).toEqual([]);
  });

  test("a stop ends it at once, and frees the inputs", async () => {
    await using store = await ArchiveStore.open();
    const { history, inputs } = await filled(store);
    const stalled = new GatedUploads(store.objects);
    const stopping = new AbortController();
    const running = mergerOf(store, { objects: stalled }).run(stopping.signal);
    await stalled.reached;
    stopping.abort();
    await running;
    expect(await store.archives()).toEqual(inputs);
    expect(await mergerOf(store).look()).toBe(1);
    await expectHistory(store, history);
  });
});

describe("a store that fails", () => {
  test.each<[string, (inner: ObjectStore) => ObjectStore]>([
    ["refuses the output", (inner) => new FailingUploads(inner, 0)],
    ["breaks off the output", (inner) => new FailingUploads(inner, 3)],
    ["loses its answer", (inner) => new FailingUploads(inner, Infinity)],
    ["cannot be read", (inner) => new FailingReads(inner)],
  ])("and %s leaves all as it was until it is back", async (_what, wrap) => {
    await using store = await ArchiveStore.open();
    const { history, inputs } = await filled(store);
    const merger = mergerOf(store, { objects: wrap(store.objects) });
    expect(await merger.look()).toBe(0);
    expect(merger.results).toMatchObject([{ outcome: "failed" }]);
    expect(await store.archives()).toEqual(inputs);
    expect(await store.marked()).toEqual([]);
    expect(await store.keys()).toEqual(inputs.map(archiveKey));
    // Not again at once.
    expect(await merger.look()).toBe(0);
    expect(merger.results).toHaveLength(1);
    await store.endLeases();
    expect(await mergerOf(store).look()).toBe(1);
    await expectHistory(store, history);
  });
});

async function filled(store: ArchiveStore) {
  const history = aHistory(11);
  const inputs: Archive[] = [];
  for (const archive of history.archives) inputs.push(await store.add(archive));
  return { history, inputs };
}

/** Merges, and changes something between the writing of the output and the swap. */
async function meanwhile(store: ArchiveStore, change: () => Promise<unknown>) {
  const gate = new GatedUploads(store.objects);
  const merger = mergerOf(store, { objects: gate });
  const looking = merger.look();
  await gate.reached;
  await change();
  gate.open();
  await looking;
  return merger;
}

async function dieMerging(store: ArchiveStore, step: string) {
  const child = Bun.spawn([process.execPath, CHILD], {
    env: { ...process.env, DATABASE_URL: store.databaseUrl, FOLDER: store.folder, DIE_AT: step },
    stdio: ["ignore", "ignore", "inherit"],
  });
  await child.exited;
  return child.signalCode;
}

/** Writes objects, but answers only once the gate is open. */
class GatedUploads extends WrappedObjects {
  readonly #reached = Promise.withResolvers<void>();
  readonly #gate = Promise.withResolvers<void>();
  readonly reached = this.#reached.promise;
  readonly open = this.#gate.resolve;

  override async upload(key: string, chunks: AsyncIterable<Uint8Array>, signal?: AbortSignal) {
    await super.upload(key, chunks, signal);
    this.#reached.resolve();
    const stopped = Promise.withResolvers<never>();
    signal?.addEventListener("abort", () => stopped.reject(signal.reason));
    await Promise.race([this.#gate.promise, stopped.promise]);
  }
}

/** Fails after that many chunks of an object, or after all of them. */
class FailingUploads extends WrappedObjects {
  readonly #chunks: number;

  constructor(inner: ObjectStore, chunks: number) {
    super(inner);
    this.#chunks = chunks;
  }

  override async upload(key: string, chunks: AsyncIterable<Uint8Array>, signal?: AbortSignal) {
    const max = this.#chunks;
    const breaking = async function* () {
      let nth = 0;
      for await (const chunk of chunks) {
        if (nth++ >= max) throw new Error("the store failed");
        yield chunk;
      }
    };
    await super.upload(key, breaking(), signal);
    throw new Error("the answer was lost");
  }
}

class FailingReads extends WrappedObjects {
  #reads = 0;

  override async read(key: string, start: number, end: number, signal?: AbortSignal) {
    if (++this.#reads > 3) throw new Error("the store is away");
    return await super.read(key, start, end, signal);
  }
}
