import { markUnreadable } from "../../log/unreadable.ts";
import { type Clock } from "../../platform/clock.ts";
import { type Sql } from "../../platform/database/database.ts";
import { repeatSteps } from "../../platform/lifecycle.ts";
import { type Log } from "../../platform/logger.ts";
import { type ObjectStore } from "../../platform/objects/objects.ts";
import { Lost } from "../../platform/objects/read-faults.ts";
import { warnRarely } from "../../platform/rare-warnings.ts";
import { gathered } from "../../platform/streams.ts";
import { type WorkMetrics } from "../../platform/telemetry/work-metrics.ts";
import { archiveKey, archiveNameOf } from "../archive-key.ts";
import { ArchiveWriter } from "../archive-writer.ts";
import { type ObjectGarbage, Swept } from "../object-garbage.ts";
import { type Archive } from "../piece.ts";
import { Overtaken } from "../swap.ts";
import { type Day, chooseInputs, dueDays, isFree } from "./choice.ts";
import { type Unit, unitsOf } from "./records.ts";
import { type Written, swapMerged } from "./swap-rows.ts";
import { type Input, InputWindows } from "./windows.ts";

const EVERY_S = { min: 60, max: 3600 };
const LOOK_MS = 60_000;
const LEASE_S = 60;
const RENEW_MS = 20_000;
const REWRITES_PAGE = 100;
const OUTPUT_BYTES_MAX = 256 * 2 ** 20;

/** Returns the age from which small archives of a day are merged. */
export function mergeEveryS(archiveAfterS: number): number {
  return Math.max(EVERY_S.min, Math.min(EVERY_S.max, archiveAfterS));
}

/**
 * `overtaken`: another process has changed what was merged, or this one stops. `damaged`: an input
 * is not what was written.
 */
type Outcome = "merged" | "rewritten" | "overtaken" | "damaged" | "failed";

export type MergerDeps = {
  sql: Sql;
  objects: ObjectStore;
  garbage: Pick<ObjectGarbage, "begin" | "discard">;
  clock: Clock;
  log: Log;
  metrics: Pick<WorkMetrics, "countMerge">;
};

export type MergerOptions = {
  /** Age from which small archives of a day are merged. */
  everyS: number;
  /** Time for which readers may still use a replaced object. */
  graceS: number;
  outputBytesMax?: number;
  memoryBytes?: number;
};

/** Merge of these inputs, or their rewriting. */
type Attempt = Day & { inputs: Input[]; success: "merged" | "rewritten" };
type Units = AsyncGenerator<Unit, void>;
type Writing = {
  windows: InputWindows;
  written: Written;
  held: DisposableStack;
  signal: AbortSignal;
};

/**
 * Merges small archives of a project, day and kind into few. The inputs are leased, so that other
 * processes leave them alone, but nothing relies on that: rows are swapped in one transaction, which
 * checks that they are still those that were merged.
 */
export class Merger {
  readonly #deps: MergerDeps;
  readonly #options: MergerOptions;

  constructor(deps: MergerDeps, options: MergerOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Merges at intervals until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    await repeatSteps(
      LOOK_MS,
      signal,
      async () => (await this.look(signal)) > 0,
      (error) => {
        if (!signal.aborted) warnRarely(this.#deps.log, { err: error }, "archives were not merged");
      },
    );
  }

  /**
   * Merges what is due of each day once, and rewrites archives that hold what was erased; returns
   * how many of these steps succeeded.
   */
  async look(signal = new AbortController().signal): Promise<number> {
    const { sql } = this.#deps;
    let steps = 0;
    for await (const { small, ...day } of dueDays(sql, this.#options.everyS)) {
      const inputs = chooseInputs(small).map(({ id, bytes }) => ({ ...day, id, bytes }));
      if (inputs.length === 0) continue;
      if (await this.#attempt({ ...day, inputs, success: "merged" }, signal)) steps++;
    }
    const erased = await sql<{ id: string }[]>`
      select id from archives where has_erased and ${isFree(sql)} order by created_at limit ${REWRITES_PAGE}`;
    for (const { id } of erased) if (await this.rewrite(id, signal)) steps++;
    return steps;
  }

  /**
   * Writes an archive anew without what no row refers to. Returns false if it is being merged, has
   * been replaced, or cannot be read or written.
   */
  async rewrite(id: string, signal = new AbortController().signal): Promise<boolean> {
    const [row] = await this.#deps.sql<(Day & Input)[]>`
      select id, project_id as "projectId", day::text, kind, bytes::float8 from archives where id = ${id}`;
    if (row === undefined) return false;
    return await this.#attempt({ ...row, inputs: [row], success: "rewritten" }, signal);
  }

  /** Leases the inputs and merges them; returns whether that succeeded. */
  async #attempt(attempt: Attempt, stopping: AbortSignal): Promise<boolean> {
    stopping.throwIfAborted();
    const { sql, log } = this.#deps;
    const ids = attempt.inputs.map(({ id }) => id);
    const claimed = await sql<{ id: string }[]>`
      update archives set leased_until = now() + ${LEASE_S} * interval '1 second' where id in (
        select id from archives where id = any(${ids}) and ${isFree(sql)} order by id for update skip locked)
      returning id`;
    if (claimed.length < ids.length) {
      await this.#release(claimed.map(({ id }) => id));
      return false;
    }
    const overtaken = new AbortController();
    const renewing = setInterval(() => {
      this.#renew(ids, overtaken).catch((error: unknown) =>
        log.warn({ err: error }, "the lease of archives was not renewed"),
      );
    }, RENEW_MS);
    try {
      const outcome = await this.#merge(attempt, AbortSignal.any([stopping, overtaken.signal]));
      // After a failure they stay leased for a while, so that they are not tried again at once.
      if (outcome !== "failed") await this.#release(ids);
      return outcome === attempt.success;
    } finally {
      clearInterval(renewing);
    }
  }

  async #renew(ids: string[], overtaken: AbortController): Promise<void> {
    const { count } = await this.#deps.sql`
      update archives set leased_until = now() + ${LEASE_S} * interval '1 second' where id = any(${ids})`;
    if (count < ids.length) overtaken.abort(new Overtaken("an archive was replaced meanwhile"));
  }

  async #release(ids: string[]): Promise<void> {
    await this.#deps.sql`update archives set leased_until = null where id = any(${ids})`;
  }

  async #merge(attempt: Attempt, signal: AbortSignal): Promise<Outcome> {
    const { sql, objects, garbage, metrics } = this.#deps;
    const { memoryBytes, graceS } = this.#options;
    const inputs = attempt.inputs.length;
    const windows = new InputWindows(objects, { inputs, memoryBytes, signal });
    const written: Written = { outputs: [], sessions: [], contents: [] };
    let outcome: Outcome = attempt.success;
    using held = new DisposableStack();
    try {
      await this.#write(attempt, { windows, written, held, signal });
      signal.throwIfAborted();
      await sql.begin(
        async (transaction) => await swapMerged(transaction, attempt.inputs, written, graceS),
      );
    } catch (error) {
      await garbage.discard(written.outputs.map(archiveKey));
      outcome = await this.#failed(error, signal);
    }
    const bytesWritten = written.outputs.reduce((sum, { bytes }) => sum + bytes, 0);
    metrics.countMerge({ outcome, bytesRead: windows.bytesRead, bytesWritten });
    return outcome;
  }

  /** Marks an archive that turned out to be damaged, so that it is never merged again. */
  async #failed(error: unknown, signal: AbortSignal): Promise<Outcome> {
    const { sql, log } = this.#deps;
    if (error instanceof Overtaken || error instanceof Swept || signal.aborted) {
      log.info({ err: error }, "a merge was given up");
      return "overtaken";
    }
    const id = error instanceof Lost ? archiveNameOf(error.key)?.id : undefined;
    if (!(error instanceof Lost) || id === undefined) {
      warnRarely(log, { err: error }, "archives were not merged");
      return "failed";
    }
    log.error({ err: error.cause, key: error.key }, `an archive is ${error.reason}`);
    await markUnreadable(sql, [id]);
    return "damaged";
  }

  async #write({ inputs, projectId, day, kind }: Attempt, writing: Writing): Promise<void> {
    const { windows, written } = writing;
    const sources = inputs.map(({ id }) => id);
    const units = unitsOf(kind, { sql: this.#deps.sql, inputs, windows }, written);
    let next = await nextOf(units);
    while (next !== undefined) {
      const id = Bun.randomUUIDv7("hex", this.#deps.clock.epochMs());
      const output: Archive = { id, projectId, day, kind, bytes: 0, records: 0 };
      next = await this.#writeOutput(output, sources, { next, units }, writing);
    }
  }

  /**
   * Writes an output, which is on the list of garbage from before its first byte. Returns the first
   * unit that it has no room for.
   */
  async #writeOutput(
    output: Archive,
    sources: string[],
    { next, units }: { next: Unit; units: Units },
    { written, held, signal }: Writing,
  ): Promise<Unit | undefined> {
    const { objects, garbage } = this.#deps;
    const { outputBytesMax = OUTPUT_BYTES_MAX } = this.#options;
    const key = archiveKey(output);
    const { signal: swept } = held.use(await garbage.begin([key]));
    written.outputs.push(output);
    const archive = new ArchiveWriter(output.id, sources);
    let following: Unit | undefined;
    const bytes = async function* () {
      yield archive.begin();
      for (let unit: Unit | undefined = next; unit !== undefined; unit = following) {
        yield* unit.write(archive, output.id);
        following = await nextOf(units);
        if (archive.bytes + (following?.bytes ?? 0) > outputBytesMax) break;
      }
      yield archive.end();
    };
    await objects.upload(key, gathered(bytes()), AbortSignal.any([signal, swept]));
    output.bytes = archive.bytes;
    output.records = archive.records;
    return following;
  }
}

async function nextOf(units: Units): Promise<Unit | undefined> {
  const { done, value } = await units.next();
  return done === true ? undefined : value;
}
