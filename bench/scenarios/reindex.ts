import { join } from "node:path";

import { pack } from "msgpackr";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { type BatchFacts, type Kind } from "../../src/log/record.ts";
import { SegmentWriter, segmentKey } from "../../src/log/segment.ts";
import type { Harness } from "../harness.ts";
import type { Options } from "../options.ts";
import type { Findings } from "../report/findings.ts";
import { count, perSecond, seconds } from "../report/units.ts";

const SEGMENT_BYTES = 8 * 2 ** 20;
const SMALL_BYTES = 16 * 1024;
const TIMEOUT_MS = 600_000;
const RECORDS_MIN = 50_000;
const OBJECTS_MIN = 200;

const FULL = {
  /** Records in full segments, with many records per object. */
  records: 1_000_000,
  batchBytes: 256,
  /** Batches per session, and batches for each image. */
  batchesPerSession: 20,
  batchesPerImage: 50,
  /** Objects of a quiet server, with a batch each and a session in every twentieth. */
  smallObjects: 20_000,
};

export type ReindexParameters = typeof FULL;

const QUICK: ReindexParameters = { ...FULL, records: 50_000, smallObjects: 1000 };

export const reindexPhases = ["full", "small"];

const Counts = Type.Object({
  objects: Type.Integer(),
  segments: Type.Integer(),
  records: Type.Integer(),
  damaged: Type.Integer(),
});

/** Measures `floodgate reindex` of a file store with an empty database. */
export async function runReindex(
  harness: Harness,
  findings: Findings,
  options: Options,
): Promise<ReindexParameters> {
  const parameters = options.quick ? QUICK : FULL;
  const rows: string[][] = [];
  for (const phase of options.phases) {
    await using store = await harness.stores.open("files");
    const folder = store.env["DATA_DIR"];
    if (folder === undefined) throw new Error("the store has no folder");
    // Also of the project's own segment, which is in another store.
    await harness.emptyTables();
    const stored = new Stored(join(folder, "objects"), parameters);
    harness.progress.start(`${phase}: segments`);
    if (phase === "full") await stored.fill();
    else for (let nth = 0; nth < parameters.smallObjects; nth++) await stored.small();
    harness.progress.stop();

    harness.progress.start(`${phase}: reindex of ${count(stored.records)} records`);
    const startedMs = performance.now();
    const json = await harness.processes.run({
      script: harness.options.server,
      args: ["reindex", "--json"],
      env: { ...harness.serverEnv(), ...store.env },
      timeoutMs: TIMEOUT_MS,
    });
    const took = (performance.now() - startedMs) / 1000;
    harness.progress.stop();
    const done = Value.Parse(Counts, JSON.parse(json));
    if (done.records !== stored.records || done.segments !== stored.objects || done.damaged > 0)
      findings.failures.push(
        `${phase}: ${json.trim()}, not ${stored.records} records of ${stored.objects} objects`,
      );
    const { objects, records } = stored;
    rows.push([
      phase,
      count(objects),
      count(records),
      seconds(took),
      perSecond(objects / took),
      perSecond(records / took),
    ]);
    if (phase === "full")
      findings.atLeast("records of full segments", records / took, RECORDS_MIN, perSecond);
    else findings.atLeast("small objects", objects / took, OBJECTS_MIN, perSecond);
  }
  findings.section(
    "Reindex: the whole run of the program, on an empty index",
    ["segments", "objects", "records", "time", "objects", "records"],
    rows,
  );
  return parameters;
}

/** Writes segments as servers store them, without fsync. */
class Stored {
  objects = 0;
  records = 0;
  readonly #folder: string;
  readonly #parameters: ReindexParameters;
  readonly #body: Uint8Array;
  #batches = 0;
  #session = 0n;

  constructor(folder: string, parameters: ReindexParameters) {
    this.#folder = folder;
    this.#parameters = parameters;
    this.#body = crypto.getRandomValues(new Uint8Array(parameters.batchBytes));
  }

  /** Writes segments of the size at which servers close them. */
  async fill(): Promise<void> {
    while (this.records < this.#parameters.records) {
      const writer = new SegmentWriter(new Uint8Array(SEGMENT_BYTES));
      while (writer.fits(SMALL_BYTES, 4)) this.#append(writer, true);
      await this.#put(writer);
    }
  }

  async small(): Promise<void> {
    const writer = new SegmentWriter(new Uint8Array(SMALL_BYTES));
    this.#append(writer, false);
    await this.#put(writer);
  }

  #append(writer: SegmentWriter, images: boolean): void {
    const nth = this.#batches++;
    if (nth % this.#parameters.batchesPerSession === 0) {
      const [id = 0n] = crypto.getRandomValues(new BigUint64Array(1));
      this.#session = id >> 1n;
      this.#row(writer, "session", sessionRow(this.#session));
    }
    if (images && nth % this.#parameters.batchesPerImage === 0) {
      const { offset, length } = writer.append(this.#head("chunk"), this.#body);
      this.#row(writer, "image", imageRow(this.#session, nth, offset, length));
    }
    writer.append(this.#head("batch"), this.#body, factsOf(nth));
  }

  #row(writer: SegmentWriter, kind: "session" | "image", row: object): void {
    writer.append(this.#head(kind), pack(row));
  }

  #head(kind: Kind) {
    return { kind, flags: 0, projectId: 1, sessionId: this.#session, receivedAt: Date.now() };
  }

  async #put(writer: SegmentWriter): Promise<void> {
    const { id, bytes, entries } = writer.seal(Bun.randomUUIDv7());
    await Bun.write(join(this.#folder, segmentKey(id)), bytes);
    this.objects++;
    this.records += entries.length;
  }
}

function factsOf(nth: number): BatchFacts {
  const hash = Bun.hash.xxHash3(String(nth));
  const at = 1_760_000_000_000 + nth;
  return { bytes: 4 * 1024, hash, messages: 40, firstAt: at, lastAt: at + 1000 };
}

/** Returns the row of a session that an iPhone started. */
function sessionRow(id: bigint): object {
  return {
    id: String(id),
    project_id: 1,
    recorded: true,
    started_at: new Date().toISOString(),
    platform: "ios",
    tracker_version: "1.0.14",
    rev_id: null,
    user_uuid: crypto.randomUUID(),
    user_id: "ann@example.com",
    user_os: "IOS",
    user_os_version: "18.1",
    user_browser: "Mobile Safari",
    user_browser_version: "18.1",
    user_device: "iPhone 14 Pro",
    user_device_type: "mobile",
    user_country: "UN",
    user_state: "",
    user_city: "",
    timezone: "UTC+02:00",
    device_memory_kib: 5_900_000,
    screen_width: 390,
    screen_height: 844,
    performance: null,
  };
}

function imageRow(sessionId: bigint, nth: number, offset: number, length: number): object {
  return {
    project_id: 1,
    name: `${nth}-${crypto.randomUUID()}`,
    session_id: String(sessionId),
    kind: "image",
    content_type: "image/png",
    bytes: length,
    crc32: nth,
    sha256: Bun.SHA256.hash(String(nth), "hex"),
    network: nth % 1000,
    uses: 1,
    stored_at: new Date().toISOString(),
    chunk_segments: [null],
    chunk_offsets: [offset],
    chunk_lengths: [length],
  };
}
