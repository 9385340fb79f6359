import { Elysia, ValidationError } from "elysia";

import { countImages } from "./images/reading.ts";
import { imageRoutes, uploadRoutes } from "./images/routes.ts";
import { ImageNames, Images } from "./images/service.ts";
import { Batches } from "./ingest/batches.ts";
import { CommitLog } from "./ingest/commit-log.ts";
import { InflightBytes } from "./ingest/inflight-bytes.ts";
import { batchRoutes, ingestRoutes } from "./ingest/routes.ts";
import { indexSegment } from "./ingest/segment-index.ts";
import { SegmentReader } from "./ingest/segment-reader.ts";
import { type Segment } from "./ingest/segment.ts";
import { Ingest } from "./ingest/service.ts";
import { Clients } from "./platform/clients.ts";
import { type Config } from "./platform/config.ts";
import { Cors } from "./platform/cors.ts";
import { type Sql, isOutage } from "./platform/database.ts";
import { docs } from "./platform/docs.ts";
import { Edge } from "./platform/edge.ts";
import { AppError, UsageError, unavailable } from "./platform/errors.ts";
import { Health, healthRoutes } from "./platform/health.ts";
import { type Log } from "./platform/log.ts";
import { Metrics } from "./platform/metrics.ts";
import { type ObjectStore } from "./platform/objects.ts";
import { RouteTable } from "./platform/route-table.ts";
import { ServerKeys } from "./platform/server-keys.ts";
import { Projects } from "./projects/service.ts";
import { bearer } from "./sessions/bearer.ts";
import { Geo } from "./sessions/geo.ts";
import { getSession, parseSessionId } from "./sessions/list.ts";
import { sessionRoutes, startRoutes } from "./sessions/routes.ts";
import { SessionIds } from "./sessions/session-id.ts";
import { Sessions } from "./sessions/service.ts";
import { Tokens } from "./sessions/token.ts";

// The web SDK retries for 13.75 s; what a store cannot do by then is not worth holding memory for.
const COMMIT_DEADLINE_MS = 15_000;

/** What the outside world gives; tests put faults between. */
export type Platform = {
  config: Config;
  sql: Sql;
  objects: ObjectStore;
  log: Log;
  index?: typeof indexSegment;
  commitDeadlineMs?: number;
};

/** The write path alone, which the command line needs, too. */
export function buildWrite({
  config,
  sql,
  objects,
  log,
  index = indexSegment,
  commitDeadlineMs = COMMIT_DEADLINE_MS,
}: Platform) {
  const metrics = new Metrics();
  const inflight = new InflightBytes(config.inflightBytesMax, config.commit.bytes);
  metrics.watchInflight(() => inflight.bytes);
  const commitLog = new CommitLog(
    {
      objects,
      index: async (segment: Segment) => {
        const { stored, duplicates } = await index(sql, segment);
        metrics.batches.inc({ outcome: "stored" }, stored);
        metrics.batches.inc({ outcome: "duplicate" }, duplicates);
      },
      inflight,
      metrics,
      log,
    },
    { ...config.commit, deadlineMs: commitDeadlineMs },
  );
  return { commitLog, inflight, metrics, projects: new Projects({ sql, commitLog, log }) };
}

export type App = Awaited<ReturnType<typeof buildApp>>;

/** Builds every service and mounts every route. */
export async function buildApp(platform: Platform) {
  const { config, sql, objects, log } = platform;
  const write = buildWrite(platform);
  const { commitLog, inflight, metrics, projects } = write;
  const clients = new Clients(config.trustedProxies);
  const serverKeys = new ServerKeys(config.serverKeys, clients);
  const health = new Health({ sql, objects, log });
  const tokens = new Tokens(atLeastOne(config.tokenSecrets));
  const imageNames = new ImageNames(sql);
  const sessions = new Sessions(
    {
      sql,
      commitLog,
      projects,
      tokens,
      ids: new SessionIds(await nextWorker(sql)),
      geo: await Geo.open(config.geoipPath),
      imageNames: async (projectId) => await imageNames.of(projectId),
      metrics,
    },
    { beaconBytesMax: config.beaconBytesMax, ...config.mobile },
  );
  const ingest = new Ingest(
    { sessions, commitLog, inflight, metrics },
    { strictFraming: config.strictFraming },
  );
  const images = new Images(
    { sql, commitLog, inflight, sessions, projects, metrics },
    { fileBytesMax: config.fileBytesMax },
  );
  const reader = new SegmentReader(objects);
  const batches = new Batches(sql, reader);
  const authorize = (request: Request, late = false) => bearer(request, tokens, late);
  const findSession = async (sessionID: string) => {
    const id = parseSessionId(sessionID);
    await getSession(sql, id);
    return id;
  };
  const contents = async (id: bigint) => ({
    batches: await batches.summary(id),
    images: await countImages(sql, id),
  });

  // One holder, because the routes are mounted before the edge that renders their errors exists.
  const routes = new Elysia({ name: "floodgate" })
    .onError(({ code, error, request }) => edge.renderError(toAppError(code, error), request))
    .use(healthRoutes(health, metrics))
    .use(startRoutes({ sessions, clients, jsonBytesMax: config.jsonBytesMax }))
    .use(ingestRoutes({ ingest, authorize }))
    .use(uploadRoutes({ images, authorize }))
    .use(sessionRoutes({ sql, serverKeys, contents }))
    .use(batchRoutes({ batches, serverKeys, findSession }))
    .use(imageRoutes({ sql, reader, serverKeys, findSession }))
    .use(docs());
  const edge = new Edge({
    handle: (request) => routes.fetch(request),
    routes: new RouteTable(routes.routes),
    clients,
    cors: new Cors(config.corsOrigins),
    metrics,
    log,
  });
  return { edge, clients, health, commitLog, projects };
}

/** Elysia's own errors in our words. */
function toAppError(code: string | number, error: unknown): unknown {
  if (code === "VALIDATION")
    return new AppError("invalid", validationMessage(error), { cause: error });
  if (isOutage(error))
    return unavailable("the database is away, send it again", 2, { cause: error });
  return code === "NOT_FOUND" ? new AppError("not_found", "no such route") : error;
}

function validationMessage(error: unknown): string {
  if (!(error instanceof ValidationError)) return "the request is malformed";
  if (typeof error.customError === "string") return error.customError;
  const [first] = error.all;
  return first === undefined || !("path" in first)
    ? "the request is malformed"
    : `${first.path.slice(1)}: ${first.message}`;
}

async function nextWorker(sql: Sql): Promise<number> {
  const [row] = await sql<
    [{ worker: number }]
  >`select nextval('session_workers')::integer as worker`;
  return row.worker;
}

function atLeastOne(secrets: string[]): [string, ...string[]] {
  const [first, ...others] = secrets;
  if (first === undefined) throw new UsageError("TOKEN_SECRET is required");
  return [first, ...others];
}
