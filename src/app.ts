import { type KeyObject } from "node:crypto";

import {
  EstimateBody,
  RECIPIENTS,
  type Recipients,
  parseRecipients,
  storeRecipients,
} from "./devices/recipients.ts";
import { deviceRoutes } from "./devices/routes.ts";
import { Devices } from "./devices/service.ts";
import { countImages } from "./images/reading.ts";
import { imageRoutes, uploadRoutes } from "./images/routes.ts";
import { ImageNames, Images } from "./images/service.ts";
import { Unhashed } from "./images/unhashed.ts";
import { archiveNameOf } from "./archives/archive-key.ts";
import { Batches } from "./ingest/batches.ts";
import { FactsBuffer } from "./ingest/facts-buffer.ts";
import { CommitLog } from "./log/commit-log.ts";
import { InflightBytes } from "./log/inflight-bytes.ts";
import { Quotas } from "./projects/quotas.ts";
import { batchRoutes, ingestRoutes } from "./ingest/routes.ts";
import { indexSegment } from "./log/segment-index.ts";
import { SegmentReader } from "./log/segment-reader.ts";
import { type Segment, segmentIdOf } from "./log/segment.ts";
import { Ingest } from "./ingest/service.ts";
import { campaignRoutes, eventRoutes, internalRoutes } from "./campaigns/routes.ts";
import { Campaigns } from "./campaigns/service.ts";
import { Scrapes } from "./platform/telemetry/metrics-relay.ts";
import { Clients } from "./platform/http/clients.ts";
import { markUnreadable } from "./log/unreadable.ts";
import { type Clock, SYSTEM_CLOCK } from "./platform/clock.ts";
import { type Config } from "./platform/config/config.ts";
import { type ProviderName, perProvider } from "./platform/config/push-config.ts";
import { Cors } from "./platform/http/cors.ts";
import { type Sql } from "./platform/database/database.ts";
import { docs } from "./platform/http/docs.ts";
import { Edge } from "./platform/http/edge.ts";
import { UsageError } from "./platform/errors.ts";
import { healthRoutes } from "./platform/http/health-routes.ts";
import { Health } from "./platform/http/health.ts";
import { type Log } from "./platform/logger.ts";
import { Metrics } from "./platform/telemetry/metrics.ts";
import { type ObjectStore } from "./platform/objects/objects.ts";
import { type OpenBus } from "./platform/bus/open-bus.ts";
import { ReadFaults } from "./platform/objects/read-faults.ts";
import { type RateLimits, openRateLimits } from "./platform/http/rate-limits.ts";
import { Router } from "./platform/http/router.ts";
import { StoreHealth } from "./platform/objects/store-health.ts";
import { ServerKeys } from "./platform/http/server-keys.ts";
import { buildPresence } from "./presence/slice.ts";
import { replayRoutes } from "./replay/routes.ts";
import { buildReplays } from "./replays.ts";
import { Projects } from "./projects/service.ts";
import { type Grace, bearer } from "./sessions/bearer.ts";
import { type Geo } from "./sessions/geo.ts";
import { getSession, parseSessionId } from "./sessions/list.ts";
import { oldTrackerRoutes } from "./sessions/old-tracker-routes.ts";
import { sessionRoutes, startRoutes } from "./sessions/routes.ts";
import { SessionIds } from "./sessions/session-id.ts";
import { Sessions } from "./sessions/service.ts";
import { StartAnswers } from "./sessions/start-answers.ts";
import { Starts } from "./sessions/starts.ts";
import { Tokens } from "./sessions/token.ts";
import { webRoutes } from "./sessions/web-routes.ts";
import { WorkerIdLease } from "./sessions/worker-id-lease.ts";
import { ApiKeys } from "./api-keys/service.ts";
import { buildUpdates } from "./updates/slice.ts";
import { installReportRoutes, installListRoutes } from "./updates/install-routes.ts";
import { Installs } from "./updates/installs.ts";

// Counts from the first record of a segment; any other has nearly 2 s less. The web SDK gives up
// after 13.75 s.
const COMMIT_DEADLINE_MS = 15_000;
// Bytes that a slow upload may hold in memory before they are in a segment.
const UPLOAD_BYTES = 64 * 1024;

/** Dependencies that all services are built on; tests inject faults here. */
export type Platform = {
  config: Config;
  sql: Sql;
  objects: ObjectStore;
  log: Log;
  index?: typeof indexSegment;
  commitDeadlineMs?: number;
  clock?: Clock;
};

/** Builds the write path alone, which the command line needs, too. */
export function buildWrite({
  config,
  sql,
  objects,
  log,
  index = indexSegment,
  commitDeadlineMs = COMMIT_DEADLINE_MS,
  clock = SYSTEM_CLOCK,
}: Platform) {
  const metrics = new Metrics();
  const inflight = new InflightBytes(config.inflightBytesMax, config.commit.bytes);
  const commitLog = new CommitLog(
    {
      objects,
      index: async (segment: Segment) => {
        const indexed = await index(sql, segment);
        metrics.batches.inc({ outcome: "stored" }, indexed.stored);
        metrics.batches.inc({ outcome: "duplicate" }, indexed.duplicates);
        quotas.count(segment);
        return indexed;
      },
      inflight,
      outage: sql.outage,
      clock,
      metrics,
      log,
    },
    { ...config.commit, deadlineMs: commitDeadlineMs },
  );
  metrics.watchIngest(inflight, commitLog);
  const projects = new Projects({ sql, commitLog, log });
  const quotas = new Quotas({ sql, projects, clock, metrics, log }, config.quotaBytesPerDay);
  return { commitLog, inflight, metrics, projects, quotas };
}

export type App = Awaited<ReturnType<typeof buildApp>>;

/** Contents of files that the configuration names. */
export type ConfigFiles = { geo: Geo; publicKey: KeyObject | undefined };
type Serving = Platform & { open: OpenBus; files: ConfigFiles };
type Write = ReturnType<typeof buildWrite>;
type IngestDeps = {
  clients: Clients;
  rateLimits: RateLimits;
  workerId: WorkerIdLease;
  faults: ReadFaults;
  facts: FactsBuffer;
  geo: Geo;
};

/** Builds every service and mounts every route. */
export async function buildApp(given: Serving) {
  const objects = new StoreHealth(given.objects);
  const platform = { ...given, objects };
  const { config, sql, log, open, files, clock = SYSTEM_CLOCK } = platform;
  const write = buildWrite(platform);
  const { commitLog, inflight, metrics, projects, quotas } = write;
  const clients = new Clients(config.trustedProxies);
  const faults = new ReadFaults(metrics, log, async (key) => {
    const id = segmentIdOf(key) ?? archiveNameOf(key)?.id;
    if (id !== undefined) await markUnreadable(sql, [id]);
  });
  const workerId = new WorkerIdLease(sql, log);
  const rateLimits = await openRateLimits(config, open.redis, metrics, log);
  const { rows } = rateLimits;
  const health = new Health({ sql, objects, bus: open.bus, clock, metrics, log });
  const apiKeys = new ApiKeys({ sql, log });
  const { offers, routes: updatesSlice } = buildUpdates({
    ...platform,
    ...files,
    bus: open.bus,
    clock,
    metrics,
    clients,
    apiKeys,
    faults,
  });
  const { presence, routes: presenceSlice } = buildPresence({
    ...platform,
    clients,
    metrics,
    limit: rows.presence_users,
  });

  const facts = new FactsBuffer(sql, log);
  const installs = new Installs(sql);
  const slices = [
    healthRoutes(health, new Scrapes(metrics.registry)),
    ...buildIngest(platform, write, { clients, ...files, rateLimits, workerId, faults, facts }),
    ...presenceSlice,
    ...buildPush(platform),
    installReportRoutes({ installs, apiKeys, clients, inflight, limit: rows.installs }),
    installListRoutes({ installs, apiKeys }),
    ...updatesSlice,
    docs(),
  ];
  const edge = new Edge({
    router: new Router(slices, new ServerKeys(config.serverKeys)),
    clients,
    cors: new Cors(config.corsOrigins),
    metrics,
    log,
    rateLimit: rateLimits.address,
    requestsMax: config.requestsMax,
  });
  // Listed in the order of their start. The lease of a worker id comes last, because a start that
  // fails later could leave it behind in the database.
  const services = [projects, quotas, apiKeys, offers, presence, workerId];
  return { edge, clients, health, commitLog, presence, facts, services };
}

/** Builds the routes that record data of SDKs and those that read it back. */
function buildIngest(
  { config, sql, objects, log, clock = SYSTEM_CLOCK }: Platform,
  { commitLog, inflight, metrics, projects, quotas }: Write,
  { clients, rateLimits, workerId, faults, facts, geo }: IngestDeps,
) {
  const tokens = new Tokens(atLeastOne(config.tokenSecrets));
  const imageNames = new ImageNames(sql, { isOn: config.imagesHashList });
  const sessions = new Sessions({ sql, commitLog, projects, rateLimits, quotas }, config);
  const starts = new Starts({
    sessions,
    commitLog,
    projects,
    tokens,
    ids: new SessionIds(() => workerId.current, clock.epochMs),
    clock,
    geo,
    rateLimits,
    metrics,
  });
  const answers = new StartAnswers({
    config,
    beaconBytesMax: (projectId) => sessions.beaconBytesMax(projectId),
    imageNames: async (projectId) => await imageNames.of(projectId),
  });
  const ingest = new Ingest({ sessions, commitLog, inflight, facts, metrics }, config);
  const reader = new SegmentReader(objects, faults);
  const unhashed = new Unhashed({ sql, reader, log });
  const images = new Images(
    {
      sql,
      commitLog,
      inflight,
      sessions,
      projects,
      unhashed,
      clock,
      metrics,
      clients,
      limit: rateLimits.rows.image_names,
    },
    {
      fileBytesMax: config.fileBytesMax,
      uploadsMax: Math.floor(config.inflightBytesMax / UPLOAD_BYTES),
      wholeFormsBytesMax: config.inflightBytesMax / 8,
    },
  );
  const batches = new Batches({ sql, objects, faults });
  const authorize = (request: Request, grace?: Grace) =>
    bearer(request, tokens, grace, clock.epochMs());
  const findSession = async (sessionID: string) => {
    const id = parseSessionId(sessionID);
    await getSession(sql, id);
    return id;
  };
  const contents = async (id: bigint) => ({
    batches: await batches.summary(id),
    images: await countImages(sql, id),
  });
  return [
    startRoutes({ starts, answers, clients, inflight, jsonBytesMax: config.jsonBytesMax }),
    webRoutes({ sessions, authorize }),
    oldTrackerRoutes({ authorize, inflight, jsonBytesMax: config.jsonBytesMax }),
    ingestRoutes({ ingest, authorize }),
    uploadRoutes({ images, authorize }),
    sessionRoutes({ sql, contents }),
    batchRoutes({ batches, findSession }),
    imageRoutes({ sql, reader, findSession }),
    replayRoutes({ replays: buildReplays({ sql, objects, faults }), findSession }),
  ];
}

/** Builds the routes of devices and campaigns. A working process sends the campaigns. */
function buildPush({ config, sql, clock = SYSTEM_CLOCK }: Platform) {
  const devices = new Devices(sql);
  const audience = {
    parse: parseRecipients,
    store: storeRecipients,
    has: async (recipients: Recipients, provider: ProviderName) =>
      await devices.has(recipients, provider),
    deviceId: async (externalId: string) => (await devices.get(externalId)).id,
  };
  const canSend = perProvider((name) => config.push[name] !== undefined);
  const campaigns = new Campaigns({ sql, audience, canSend });
  const count = async (recipients: Recipients) => await devices.count(recipients);
  const estimate = { body: EstimateBody, count };
  return [
    deviceRoutes(devices),
    campaignRoutes({ campaigns, recipients: RECIPIENTS, estimate, clock }),
    eventRoutes({ campaigns }),
    internalRoutes({ campaigns }),
  ];
}

function atLeastOne(secrets: string[]): [string, ...string[]] {
  const [first, ...others] = secrets;
  if (first === undefined) throw new UsageError("TOKEN_SECRET is required");
  return [first, ...others];
}
