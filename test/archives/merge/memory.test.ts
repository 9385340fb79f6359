import { expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { join } from "node:path";

import { type MadeSession, ArchiveStore, batchAt } from "../../support/archive-store.ts";

const CHILD = join(import.meta.dir, "../../support/merge-and-die.ts");
const MIB = 2 ** 20;
const INPUTS = 8;
const SESSIONS = 4;
// Batches of each session in each input.
const BATCHES = 60;
const BATCH_BYTES = 128 * 1024;
// Windows, buffers of the store, and a process that has just begun.
const GROWTH_MAX = 110 * MIB;

test("a merge of 240 MiB takes as much memory as its windows, also if all inputs overlap", async () => {
  await using store = await ArchiveStore.open();
  const segments = Array.from({ length: BATCHES }, (_, nth) =>
    Bun.randomUUIDv7("hex", 1_764_500_000_000 + nth),
  );
  let stored = 0;
  for (let input = 0; input < INPUTS; input++) {
    const sessions = new Map<bigint, MadeSession>();
    for (let session = 0; session < SESSIONS; session++) {
      const batches = segments.map((segmentId) => {
        const body = randomBytes(BATCH_BYTES);
        return batchAt({ segmentId, offset: 42 + input }, body);
      });
      sessions.set(BigInt(session + 1), { rows: [], batches });
    }
    stored += (await store.add(sessions)).bytes;
  }
  expect(stored).toBeGreaterThan(230 * MIB);
  const child = Bun.spawn([process.execPath, CHILD], {
    env: {
      ...process.env,
      DATABASE_URL: store.databaseUrl,
      FOLDER: store.folder,
      MEMORY_BYTES: String(16 * MIB),
    },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const growth = Number(await new Response(child.stdout).text());
  expect(await child.exited).toBe(0);
  expect(await store.archives()).toHaveLength(1);
  const pieces = await store.sql`select batches from session_pieces`;
  expect([...pieces]).toEqual(
    Array.from({ length: SESSIONS }, () => ({ batches: INPUTS * BATCHES })),
  );
  expect(growth).toBeLessThan(GROWTH_MAX);
});
