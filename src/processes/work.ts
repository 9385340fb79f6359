import { Archiver } from "../archives/archiver.ts";
import { Drop } from "../archives/drop.ts";
import { ImageArchiver } from "../archives/image-archiver.ts";
import { Merger, mergeEveryS } from "../archives/merge/merger.ts";
import { ObjectGarbage } from "../archives/object-garbage.ts";
import { markInvalidSql } from "../devices/invalid-tokens.ts";
import { readRecipients, recipientsSql } from "../devices/recipients.ts";
import { Unhashed } from "../images/unhashed.ts";
import { FactsCatchUp } from "../ingest/facts-catch-up.ts";
import { type SweepResult, Orphans } from "../log/recovery/orphans.ts";
import { SegmentReader } from "../log/segment-reader.ts";
import { Scrapes } from "../platform/telemetry/metrics-relay.ts";
import { Worker } from "../campaigns/worker.ts";
import { type Config } from "../platform/config/config.ts";
import { DatabaseClock } from "../platform/database/database-clock.ts";
import { openDatabase } from "../platform/database/database.ts";
import { Health } from "../platform/http/health.ts";
import { signalOf } from "../platform/lifecycle.ts";
import { openLog } from "../platform/logger.ts";
import { openObjects } from "../platform/objects/open-objects.ts";
import { StoreHealth } from "../platform/objects/store-health.ts";
import { WorkMetrics } from "../platform/telemetry/work-metrics.ts";
import { openSender } from "../push/open-sender.ts";
import { tellReady } from "./supervisor.ts";
import { BuildGarbage } from "../updates/garbage.ts";
import { listenForOperators } from "./work-listener.ts";

/**
 * Runs the background work until the signal: sends campaigns, deletes unreferenced builds, handles
 * orphans, hashes images of the previous version, writes facts about sessions that a process could
 * not write any more, and moves batches and images to archives. Everything opened is closed in
 * reverse order, also when a later step throws.
 */
export async function runWork(
  config: Config,
  databaseUrl: string,
  stopping: AbortSignal,
): Promise<void> {
  const log = openLog(config.logLevel);
  await using opened = new AsyncDisposableStack();
  const sql = opened.use(openDatabase(databaseUrl, { log }));
  const clock = new DatabaseClock(async () => await sql.outage.ping(), log);
  const metrics = new WorkMetrics();
  const sender = opened.use(await openSender(config.push, log));
  const worker = new Worker({
    sql,
    sender,
    filter: (transaction, recipients) => recipientsSql(transaction, recipients, "filter"),
    recipientsOf: readRecipients,
    markInvalid: markInvalidSql,
    metrics,
    log,
  });
  const objects = opened.use(new StoreHealth(await openObjects(config)));
  const garbage = new BuildGarbage({ sql, objects, clock, log });
  const onSwept = ({ adopted, deleted, damaged }: SweepResult) =>
    metrics.countOrphans({ adopted, deleted, damaged });
  const onUnknownArchives = (count: number) => void (metrics.unknownArchives = count);
  const orphans = new Orphans({ sql, objects, log, onSwept, onUnknownArchives });
  const unhashed = new Unhashed({ sql, reader: new SegmentReader(objects), log });
  const facts = new FactsCatchUp({ sql, objects, log });
  const archiveGarbage = new ObjectGarbage({ sql, objects, log }, config.archives);
  const archiving = { sql, objects, garbage: archiveGarbage, clock, metrics, log };
  const archiver = new Archiver(archiving, config.archives);
  const imageArchiver = new ImageArchiver(archiving, config.archives);
  const drop = new Drop({ sql, objects, log }, config.archives);
  const merger = new Merger(archiving, {
    everyS: mergeEveryS(config.archives.afterS),
    graceS: config.archives.graceS,
  });
  metrics.watchArchives(archiver, archiveGarbage);
  metrics.watchPushes(() => sender.counts);
  metrics.watchCampaigns(worker);
  metrics.watchGarbage(async () => await garbage.overdueSeconds());
  const health = new Health({ sql, objects, clock, metrics, log });
  const operators = opened.use(listenForOperators(config, health, new Scrapes(metrics.registry)));
  const signal = AbortSignal.any([stopping, signalOf(opened)]);
  // Uses this machine's time while the database is unavailable.
  clock.start(signal).catch(() => undefined);
  log.info({ ...sender.canSend, url: operators?.url }, "working");
  tellReady();
  await Promise.all([
    worker.run(signal),
    garbage.run(signal),
    orphans.run(signal),
    unhashed.run(signal),
    facts.run(signal),
    archiver.run(signal),
    imageArchiver.run(signal),
    archiveGarbage.run(signal),
    drop.run(signal),
    merger.run(signal),
  ]);
  await opened.disposeAsync();
  log.info("stopped");
}
