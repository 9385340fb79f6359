import { readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { expect, test } from "bun:test";

import { KEYED, TestApp, type TestSession } from "../support/app.ts";
import { archiveBatches } from "../support/archived.ts";
import { encodeMessage, encodeBatch } from "../support/batches.ts";
import { undelayedMs } from "../support/eventually.ts";
import { Random } from "../support/random.ts";
import { askReplay } from "../support/replays.ts";
import { ServerProcess, envOf } from "../support/server-process.ts";
import { encodeWebBatch, encodeWebMessage } from "../support/web-batches.ts";

const MIB = 2 ** 20;
const T0 = 1_760_000_000_000;
const FIRST_BYTE_MS_MAX = 300;
const GROWTH_BYTES_MAX = 32 * MIB;
const BATCHES = 64;
const TIMEOUT_MS = 120_000;

/** Some 850 kB, as a page of many nodes has. */
function aPageBatch(nth: number): Uint8Array {
  const random = new Random(nth);
  const messages = Array.from({ length: 5000 }, (_, node) =>
    encodeWebMessage(12, node, "class", random.bytes(72).toHex()),
  );
  return encodeWebBatch(messages, { timestamp: T0 + nth });
}

function aPhoneBatch(nth: number): Uint8Array {
  const random = new Random(nth);
  const messages = Array.from({ length: 5000 }, () =>
    encodeMessage(103, T0 + nth, "info", random.bytes(72).toHex()),
  );
  return encodeBatch(messages, { firstIndex: nth * 5000, timestamp: T0 + nth });
}

/** Reads a file at once; returns its length, the time of its first byte, and the growth of the server. */
async function read(server: ServerProcess, session: TestSession, coding: string) {
  const fetcher = {
    fetch: async (path: string, init?: RequestInit) =>
      await fetch(server.url + path, {
        ...init,
        headers: { ...KEYED, "accept-encoding": coding },
        decompress: false,
      }),
  };
  const before = await residentBytes(server);
  const startedMs = undelayedMs();
  const { body } = await askReplay(fetcher, session, "dom.mobs");
  let firstMs: number | undefined;
  let bytes = 0;
  let most = before;
  for await (const chunk of body ?? []) {
    firstMs ??= undelayedMs() - startedMs;
    bytes += chunk.length;
    most = Math.max(most, await residentBytes(server));
  }
  return { bytes, firstMs: firstMs ?? Number.POSITIVE_INFINITY, growth: most - before };
}

async function residentBytes({ pid }: ServerProcess): Promise<number> {
  const [, kib = ""] = /^VmRSS:\s+(\d+)/m.exec(await readFile(`/proc/${pid}/status`, "utf8")) ?? [];
  return Number(kib) * 1024;
}

const COMPRESSED = ["a page that compresses", "/v1/web/i", aPageBatch, true, false] as const;
const CASES = [
  COMPRESSED,
  ["a page", "/v1/web/i", aPageBatch, false, false],
  ["a phone", "/v1/mobile/i", aPhoneBatch, true, false],
  ["an archived page", "/v1/web/i", aPageBatch, false, true],
  ["an archived phone", "/v1/mobile/i", aPhoneBatch, false, true],
] as const;
const IS_LONG = process.env["TEST_LONG"] !== undefined;

test.skipIf(process.platform !== "linux").each(IS_LONG ? CASES : [COMPRESSED])(
  "the file of 50 MB of %s begins within 300 ms and takes 32 MiB at most",
  async (_what, path, aBatch, isGzip, isArchived) => {
    await using app = await TestApp.start();
    const [session, small] = [await app.aSession(), await app.aSession()];
    let bytes = 0;
    for (let nth = 0; nth < BATCHES; nth++) {
      const batch = aBatch(nth);
      bytes += batch.length;
      const sent = isGzip ? gzipSync(batch) : batch;
      const headers = isGzip ? { "content-encoding": "gzip" } : {};
      expect((await app.append(session, sent, path, headers)).status).toBe(200);
    }
    expect(bytes).toBeGreaterThan(50 * 10 ** 6);
    await app.append(small, aBatch(0), path);
    if (isArchived) for (const one of [session, small]) await archiveBatches(app, one);
    await using server = await ServerProcess.start(envOf(app));
    // The first read compiles and allocates what every other one needs, too.
    for (const coding of ["identity", "zstd"]) {
      await read(server, small, coding);
      const { firstMs, growth, ...whole } = await read(server, session, coding);
      expect(whole.bytes).toBeGreaterThan(bytes / 4);
      expect(firstMs).toBeLessThan(FIRST_BYTE_MS_MAX);
      expect(growth).toBeLessThan(GROWTH_BYTES_MAX);
    }
  },
  TIMEOUT_MS,
);
