import { setTimeout } from "node:timers/promises";

import { type markInvalidSql } from "../devices/invalid-tokens.ts";
import { type Recipients } from "../devices/recipients.ts";
import { type ProviderName, perProvider } from "../platform/config/push-config.ts";
import { type Sql } from "../platform/database/database.ts";
import { type Log } from "../platform/logger.ts";
import { warnRarely } from "../platform/rare-warnings.ts";
import { type WorkMetrics } from "../platform/telemetry/work-metrics.ts";
import { CampaignRun } from "./campaign-run.ts";
import { STATUS } from "./enums.ts";
import { LEASE_MS } from "./lease.ts";
import { Semaphore } from "./semaphore.ts";
import { type Sender } from "./sending.ts";
import { type Filter } from "./targets.ts";

const POLL_MS = 500;
// Larger than the number of campaigns that ever wait for a provider that is away.
const CAMPAIGNS_MAX = 64;

export type WorkerDeps<Prepared> = {
  sql: Sql;
  sender: Sender<Prepared>;
  filter: Filter;
  /** Parses recipients as the database stores them. */
  recipientsOf: (stored: unknown) => Recipients;
  /** Builds the part of a statement that marks tokens as invalid. */
  markInvalid: typeof markInvalidSql;
  metrics: WorkMetrics;
  log: Log;
};

type Row = {
  id: number;
  uuid: string;
  launch: number;
  title: string;
  body: string;
  image_url: string | null;
  icon_url: string | null;
  deep_link: string | null;
  conditions: unknown;
  device_cursor: number;
  done_cursor: number;
};

/** Sends campaigns that are due, including those of workers that are gone. */
export class Worker<Prepared> {
  readonly #deps: WorkerDeps<Prepared>;
  /** Bounds of sends whose outcome is not recorded yet. */
  readonly window: Record<ProviderName, Semaphore>;
  readonly #undeliverable: Semaphore;
  readonly #running = new Map<CampaignRun<Prepared>, Promise<void>>();

  constructor(deps: WorkerDeps<Prepared>) {
    this.#deps = deps;
    const { canSend, concurrency } = deps.sender;
    const configured = Object.values(canSend).filter(Boolean).length;
    const share = Math.ceil(concurrency / Math.max(1, configured));
    this.window = perProvider(() => new Semaphore(share));
    this.#undeliverable = new Semaphore(share);
  }

  get running(): number {
    return this.#running.size;
  }

  /** Returns how long the oldest due campaign has waited for a worker; 0 if there is none. */
  async overdueSeconds(): Promise<number> {
    const [row] = await this.#deps.sql<[{ seconds: number }]>`
      select greatest(0, extract(epoch from now() - min(greatest(scheduled_at, leased_until))))::float8 as seconds
      from notifications
      where status in (${STATUS.launched}, ${STATUS.queued}) and launch > 0 and scheduled_at <= now()
        and (leased_until is null or leased_until < now())`;
    return row.seconds;
  }

  /** Works until the signal, then finishes the sends under way and gives the campaigns back. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const mustWait = this.#running.size >= CAMPAIGNS_MAX || !(await this.#takeOne());
      if (mustWait) await setTimeout(POLL_MS, undefined, { signal }).catch(() => undefined);
    }
    for (const run of this.#running.keys()) run.stop();
    await Promise.all(this.#running.values());
  }

  /** Claims and starts a campaign. Returns false if none is due. */
  async #takeOne(): Promise<boolean> {
    const { sql, log } = this.#deps;
    try {
      const worker = crypto.randomUUID();
      const row = await claim(sql, worker);
      if (row === undefined) return false;
      this.#start(row, worker);
      return true;
    } catch (error) {
      warnRarely(log, { err: error }, "claiming a campaign failed");
      return false;
    }
  }

  #start(row: Row, worker: string): void {
    const { recipientsOf, log } = this.#deps;
    const lease = { id: row.id, launch: row.launch, worker };
    const walk = {
      deviceCursor: row.device_cursor,
      doneCursor: row.done_cursor,
      recipients: recipientsOf(row.conditions),
    };
    const message = {
      uuid: row.uuid,
      launch: row.launch,
      title: row.title,
      body: row.body,
      imageUrl: row.image_url,
      iconUrl: row.icon_url,
      deepLink: row.deep_link,
    };
    const windows = { ...this.window, none: this.#undeliverable };
    const run = new CampaignRun({ ...this.#deps, windows }, lease, walk, message);
    log.info({ campaign: row.id, launch: row.launch }, "campaign begins");
    this.#running.set(
      run,
      run.run().finally(() => this.#running.delete(run)),
    );
  }
}

async function claim(sql: Sql, worker: string): Promise<Row | undefined> {
  const [row] = await sql<Row[]>`
    update notifications n set worker = ${worker}, leased_until = now() + ${LEASE_MS} * interval '1 millisecond',
      status = ${STATUS.launched}, modified_at = case when status = ${STATUS.queued} then now() else modified_at end
    where id = (
      select id from notifications
      where status in (${STATUS.launched}, ${STATUS.queued}) and launch > 0 and scheduled_at <= now()
        and (leased_until is null or leased_until < now())
      order by scheduled_at, id limit 1 for update skip locked
    )
    returning n.id::float8 as id, uuid, launch, title, body, image_url, icon_url, deep_link, conditions,
      device_cursor::float8 as device_cursor, done_cursor::float8 as done_cursor`;
  return row;
}
