import { type Clock } from "../platform/clock.ts";
import { type Sql } from "../platform/database/database.ts";
import { limited } from "../platform/errors.ts";
import { type Service } from "../platform/lifecycle.ts";
import { doneWithin } from "../platform/time-limit.ts";
import { WriteBehind } from "../platform/write-behind.ts";
import { type Log } from "../platform/logger.ts";
import { warnRarely } from "../platform/rare-warnings.ts";
import { type Metrics } from "../platform/telemetry/metrics.ts";
import { type Projects } from "./service.ts";
import { type Kind } from "../log/record.ts";
import { type Segment } from "../log/segment.ts";

const SYNC_MS = 1000;
const STOP_MS = 500;
const DAY_MS = 86_400_000;
/** Kinds of records whose size clients choose. */
const COUNTED = new Set<Kind>(["batch", "chunk", "session"]);
// Clients must not wait longer, because the quota may be raised meanwhile.
const RETRY_AFTER_S_MAX = 3600;

export type QuotasDeps = {
  sql: Sql;
  projects: Pick<Projects, "get" | "all">;
  clock: Clock;
  metrics: Metrics;
  log: Log;
};

/**
 * Limits the bytes of batches, images and session starts that are stored for a project on one UTC
 * day. Bytes are counted in memory once they are durable, and added up with other processes in
 * PostgreSQL every second. So a project may exceed its quota by the bytes of a second and of open
 * segments.
 */
export class Quotas implements Service {
  readonly #deps: QuotasDeps;
  readonly #default: number | undefined;
  /** days since the epoch */
  #day = 0;
  /** bytes that all processes stored on this day, by project */
  #used = new Map<number, number>();
  /** the part of `#used` that is not in PostgreSQL yet */
  #unwritten = new Map<number, number>();
  readonly #writer = new WriteBehind(SYNC_MS, async () => await this.#trySync());

  /** `bytesPerDay` applies to projects without a quota of their own; undefined is unlimited. */
  constructor(deps: QuotasDeps, bytesPerDay: number | undefined) {
    this.#deps = deps;
    this.#default = bytesPerDay;
  }

  /**
   * Reads today's usage now and repeatedly from then on. Throws if the first read fails. The
   * projects must be known before, because one of them may have a quota.
   */
  async start(): Promise<void> {
    await this.#sync();
    this.#writer.soon();
  }

  /** Writes the last counts; gives up if the database takes longer than STOP_MS. */
  async [Symbol.asyncDispose](): Promise<void> {
    await doneWithin(STOP_MS, this.#writer[Symbol.asyncDispose]());
  }

  /** Throws 429 once the project's quota is used up. */
  check(projectId: number): void {
    const bytesMax = this.#of(projectId);
    if (bytesMax === undefined) return;
    this.#turn();
    if ((this.#used.get(projectId) ?? 0) < bytesMax) return;
    this.#deps.metrics.limited.inc({ limit: "quota" });
    const tomorrowMs = (this.#day + 1) * DAY_MS - this.#deps.clock.epochMs();
    const seconds = Math.min(Math.max(Math.ceil(tomorrowMs / 1000), 1), RETRY_AFTER_S_MAX);
    throw limited("the project has used up its bytes of today (UTC)", seconds);
  }

  /** Counts the records of a stored segment. */
  count({ entries }: Pick<Segment, "entries">): void {
    this.#turn();
    for (const { kind, projectId, length } of entries) {
      if (!COUNTED.has(kind) || this.#of(projectId) === undefined) continue;
      add(this.#used, projectId, length);
      add(this.#unwritten, projectId, length);
    }
  }

  #of(projectId: number): number | undefined {
    return this.#deps.projects.get(projectId)?.dailyBytesMax ?? this.#default;
  }

  #isOn(): boolean {
    return (
      this.#default !== undefined ||
      this.#unwritten.size > 0 ||
      this.#deps.projects.all.some(({ dailyBytesMax }) => dailyBytesMax !== null)
    );
  }

  /** Resets the counts on a new day; unwritten bytes of the last day no longer matter. */
  #turn(): void {
    const day = Math.floor(this.#deps.clock.epochMs() / DAY_MS);
    if (day === this.#day) return;
    this.#day = day;
    this.#used = new Map();
    this.#unwritten = new Map();
  }

  async #trySync(): Promise<void> {
    await this.#sync().catch((error: unknown) =>
      warnRarely(this.#deps.log, { err: error }, "usage not written"),
    );
    // Also without anything to write, to learn what other processes have counted.
    this.#writer.soon();
  }

  async #sync(): Promise<void> {
    if (!this.#isOn()) return;
    this.#turn();
    const day = this.#day;
    const written = this.#unwritten;
    this.#unwritten = new Map();
    try {
      const used = await addUsage(this.#deps.sql, new Date(day * DAY_MS).toISOString(), written);
      if (this.#day !== day) return;
      for (const [projectId, bytes] of this.#unwritten) add(used, projectId, bytes);
      this.#used = used;
    } catch (error) {
      // If the statement was committed after all, these bytes of a second count twice.
      if (this.#day === day)
        for (const [projectId, bytes] of written) add(this.#unwritten, projectId, bytes);
      throw error;
    }
  }
}

/** Adds bytes to the day's usage; returns what all processes have stored, by project. */
async function addUsage(
  sql: Sql,
  day: string,
  bytes: Map<number, number>,
): Promise<Map<number, number>> {
  const rows = await sql<{ projectId: number; bytes: number }[]>`
    with added as (
      insert into project_usage (day, project_id, bytes)
      select ${day}::text::date, project_id, bytes
      from unnest(${[...bytes.keys()]}::integer[], ${[...bytes.values()]}::bigint[]) as more (project_id, bytes)
      -- Every process writes in this order, so that two cannot deadlock.
      order by project_id
      on conflict (day, project_id) do update set bytes = project_usage.bytes + excluded.bytes
      returning project_id, bytes
    )
    select project_id as "projectId", bytes::double precision as bytes from added
    union all
    select project_id, bytes::double precision from project_usage
    where day = ${day}::text::date and project_id not in (select project_id from added)`;
  return new Map(rows.map(({ projectId, bytes: used }) => [projectId, used]));
}

function add(sums: Map<number, number>, projectId: number, bytes: number): void {
  sums.set(projectId, (sums.get(projectId) ?? 0) + bytes);
}
