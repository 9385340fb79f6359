import { afterAll, beforeAll, beforeEach } from "bun:test";
import { pino } from "pino";

import { markInvalidSql } from "../../src/devices/invalid-tokens.ts";
import {
  parseRecipients,
  readRecipients,
  recipientsSql,
  storeRecipients,
} from "../../src/devices/recipients.ts";
import { DEVICE_EVENT, STATUS } from "../../src/campaigns/enums.ts";
import { type Sender } from "../../src/campaigns/sending.ts";
import { Worker } from "../../src/campaigns/worker.ts";
import { perProvider } from "../../src/platform/config/push-config.ts";
import { type Sql, openDatabase } from "../../src/platform/database/database.ts";
import { WorkMetrics } from "../../src/platform/telemetry/work-metrics.ts";
import { type CampaignMessage } from "../../src/push/message.ts";
import { type Outcome } from "../../src/push/outcome.ts";
import { type PushTarget } from "../../src/push/provider.ts";
import { eventually } from "./eventually.ts";
import { freshDatabase } from "./postgres.ts";

const LOG = pino({ level: "silent" });

/** Answers each send as the test configures, and records it. */
export class FakeProvider implements Sender<CampaignMessage> {
  readonly canSend = perProvider(() => true);
  readonly concurrency = 50;
  readonly sent: { target: PushTarget; message: CampaignMessage }[] = [];
  answer: (target: PushTarget, signal: AbortSignal) => Outcome | Promise<Outcome> = () => ({
    kind: "sent",
  });

  prepare(message: CampaignMessage): CampaignMessage {
    return message;
  }

  async send(target: PushTarget, message: CampaignMessage, signal: AbortSignal): Promise<Outcome> {
    this.sent.push({ target, message });
    await Bun.sleep(1);
    return await this.answer(target, signal);
  }

  /** Number of sends that were repeated. */
  get repeated(): number {
    return this.sent.length - new Set(this.sent.map(({ target }) => target.messageId)).size;
  }
}

/** Answer of a provider that takes that long. */
export function sentAfter(ms: number): () => Promise<Outcome> {
  return async () => {
    await Bun.sleep(ms);
    return { kind: "sent" };
  };
}

export type Kind = { send: number; device: number; invalid?: boolean };
export const ANDROID: Kind = { send: 1, device: 1 };
export const IPHONE: Kind = { send: 2, device: 2 };

/** Database with devices and campaigns, and workers on it. */
export class CampaignDatabase {
  sql!: Sql;
  databaseUrl = "";

  /**
   * Returns the database of the tests of a file or `describe`, which is opened before them and empty
   * before each.
   */
  static forTests(): CampaignDatabase {
    const database = new CampaignDatabase();
    beforeAll(async () => {
      database.databaseUrl = await freshDatabase();
      database.sql = openDatabase(database.databaseUrl, { connections: 4 });
    });
    beforeEach(async () => await database.empty());
    afterAll(async () => await database.sql.end());
    return database;
  }

  async empty(): Promise<void> {
    await this.sql`truncate devices, device_numbers, notifications, device_events restart identity`;
  }

  /** Runs a worker until it is disposed of, which throws if the worker does not stop in time. */
  working(provider: FakeProvider, sql = this.sql) {
    const stopping = new AbortController();
    const worker = new Worker({
      sql,
      sender: provider,
      filter: (queryable, recipients) => recipientsSql(queryable, recipients, "filter"),
      recipientsOf: readRecipients,
      markInvalid: markInvalidSql,
      metrics: new WorkMetrics(),
      log: LOG,
    });
    const done = worker.run(stopping.signal);
    return {
      [Symbol.asyncDispose]: async () => {
        stopping.abort();
        const late = Bun.sleep(5000).then(() => "late");
        if ((await Promise.race([done, late])) === "late")
          throw new Error("the worker does not stop");
      },
    };
  }

  async devices(count: number, kind: Kind = ANDROID, properties = {}): Promise<void> {
    await this.sql`
      insert into devices (external_id, push_token, send_platform, device_platform, properties, token_invalid)
      select gen_random_uuid()::text, 'token-' || (select count(*) from devices) + nth, ${kind.send}, ${kind.device},
        ${JSON.stringify(properties)}::text::jsonb, ${kind.invalid ?? false}
      from generate_series(1, ${count}) as nth`;
  }

  /** Launches a campaign and returns its id. */
  async launch(
    conditions: unknown = {},
    scheduledIn = "0 s",
    externalIds?: string[],
  ): Promise<number> {
    const recipients = parseRecipients({ conditions, external_ids: externalIds });
    const stored = JSON.stringify(storeRecipients(recipients));
    const [row] = await this.sql<[{ id: number }]>`
      insert into notifications (title, body, conditions, scheduled_at, status, launch)
      values ('Hello', 'There is news.', ${stored}::text::jsonb, now() + ${scheduledIn}::interval, ${STATUS.queued}, 1)
      returning id::integer`;
    return row.id;
  }

  async stateOf(id: number) {
    const [row] = await this.sql<
      {
        status: number;
        targeted: number;
        failed: number;
        android: number;
        ios: number;
        web: number;
        error: string | null;
      }[]
    >`
      select status, targeted::integer, failed::integer, sent_android::integer as android, sent_ios::integer as ios,
        sent_web::integer as web, error
      from notifications where id = ${id}`;
    return row;
  }

  async reaches(id: number, status: number, ms = 10_000): Promise<void> {
    await eventually(
      `status ${status}`,
      async () => (await this.stateOf(id))?.status === status,
      ms,
    );
  }

  async eventsOf(id: number): Promise<Record<string, number>> {
    const rows = await this.sql<{ event: number; count: number }[]>`
      select event, count(*)::integer from device_events where notification_id = ${id} group by event`;
    return Object.fromEntries(
      rows.map(({ event, count }) => [
        Object.entries(DEVICE_EVENT).find(([, number]) => number === event)?.[0],
        count,
      ]),
    );
  }
}
