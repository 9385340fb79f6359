import { constants, setPriority } from "node:os";

import { answerHeartbeats } from "../processes/heartbeat.ts";
import { type Config } from "../platform/config/config.ts";
import { type ServerKey, readServerKey } from "../platform/config/data-dir.ts";
import { type Sql, openDatabase } from "../platform/database/database.ts";
import { isAway } from "../platform/database/postgres-errors.ts";
import { DependencyAway, UsageError } from "../platform/errors.ts";
import { checkHost, untilFree } from "../platform/http/listener.ts";
import { untilAborted } from "../platform/lifecycle.ts";
import { type Log, openLog } from "../platform/logger.ts";
import { migrate } from "../platform/database/migrate.ts";
import { type Opened, ownDatabase, shareDatabase } from "../platform/database/open-database.ts";
import { openObjects } from "../platform/objects/open-objects.ts";
import { STDOUT } from "../platform/text-output.ts";
import { type Project, type Projects, describeProject } from "../projects/service.ts";
import { type Program, Supervisor, tellReady } from "../processes/supervisor.ts";

/**
 * Starts everything: the embedded database unless another one is configured, its schema, a demo
 * project, and the processes.
 */
export async function start(config: Config): Promise<void> {
  const signal = stopSignal();
  await checkHost(config.host);
  await using own = await ownDatabase(config);
  await migrateDatabase(own);
  const log = openLog(config.logLevel);
  const made = embeddedServerKey(config);
  if (made === undefined) warnWithoutKeys(config, log);
  // Created before `work` looks for projects of a lost database, so that neither takes the other's
  // id.
  const demo =
    config.databaseUrl === undefined ? await withProjects(config, demoProject) : undefined;
  await using supervisor = new Supervisor(log);
  const serverKeys = made === undefined ? config.serverKeys : [made.serverKey];
  const url = await startAll(supervisor, { ...own, config: { ...own.config, serverKeys } }, log);
  log.info({ url, workers: config.workers }, "started");
  if (demo !== undefined) STDOUT.write(greeting(url, demo, made));
  await Promise.race([untilAborted(signal), supervisor.failed]);
}

/** Starts the serving processes on one port and the working process; returns the URL. */
async function startAll(
  supervisor: Supervisor,
  { config, databaseUrl }: Pick<Opened, "config" | "databaseUrl">,
  log: Log,
): Promise<string> {
  // The processes of a killed `start` run on for some seconds, and processes that share a port
  // would not notice them.
  for (const port of [config.port, config.metricsPort])
    if (port !== undefined) await untilFree(config.host, port, log);
  const env: Program["env"] = {
    DATABASE_URL: databaseUrl,
    DATABASE_DIRECT_URL: config.databaseDirectUrl,
    TOKEN_SECRET: config.tokenSecrets.join(","),
    SERVER_KEYS: config.serverKeys.join(","),
  };
  const sharing = config.workers > 1 ? ["--reuse-port"] : [];
  const serving = { args: ["serve", "--kept", ...sharing], env };
  const url = (await supervisor.keep(serving)) ?? "";
  // With port 0 the first process has chosen a free port; the others share it.
  env["PORT"] = new URL(url).port || String(config.port);
  for (let nth = 1; nth < config.workers; nth++) await supervisor.keep(serving);
  await supervisor.keep({ args: ["work"], env });
  return url;
}

export type ServeOptions = { reusePort?: boolean; kept?: boolean };

/** Runs one serving process on a migrated database. */
export async function serve(config: Config, { kept, reusePort }: ServeOptions): Promise<void> {
  if (config.databaseUrl === undefined)
    throw new UsageError("serve needs DATABASE_URL; `start` brings a database of its own");
  const signal = stopSignal();
  await checkHost(config.host);
  const log = openLog(config.logLevel);
  // With `start`, the supervisor has already warned for all its processes.
  if (kept !== true) warnWithoutKeys(config, log);
  // Imported by the commands that need them: large modules slow the start of all others.
  const { startServer } = await import("../processes/server.ts");
  await using server = await startServer(config, config.databaseUrl, {
    log,
    ...(reusePort !== undefined && { reusePort }),
  }).catch(rethrow);
  tellReady(server.url);
  await untilAborted(signal);
  await server.leave();
}

/** Runs one working process, on a migrated database or beside a running `start`. */
export async function sendCampaigns(config: Config): Promise<void> {
  const signal = stopSignal();
  // Serving processes come first where both want the same core, because clients wait for them.
  setPriority(constants.priority.PRIORITY_BELOW_NORMAL);
  const { runWork } = await import("../processes/work.ts");
  await using shared = await shareDatabase(config);
  await runWork(shared.config, shared.databaseUrl, signal);
}

export async function runMigrations(config: Config): Promise<void> {
  await using shared = await shareDatabase(config);
  const applied = await migrateDatabase(shared);
  print(applied.length === 0 ? "the database is up to date" : `applied ${applied.join(", ")}`);
}

/** Runs `work` on a migrated database, with the server running or not. */
export async function withDatabase<T>(
  config: Config,
  work: (sql: Sql, config: Config) => Promise<T>,
): Promise<T> {
  await using shared = await shareDatabase(config);
  await migrateDatabase(shared);
  await using sql = openDatabase(shared.databaseUrl, { connections: 2 });
  return await work(sql, shared.config);
}

/** Runs `work` with projects, whose changes go through the commit log. */
export async function withProjects<T>(
  config: Config,
  work: (projects: Projects) => Promise<T>,
): Promise<T> {
  return await withDatabase(config, async (sql, shared) => {
    const { buildWrite } = await import("../app.ts");
    await using objects = await openObjects(shared);
    const log = openLog(config.logLevel);
    const { projects, commitLog } = buildWrite({ config: shared, sql, objects, log });
    try {
      return await work(projects);
    } finally {
      await commitLog.flush();
    }
  });
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

async function migrateDatabase({ config, databaseUrl }: Opened): Promise<string[]> {
  const url = config.databaseDirectUrl ?? databaseUrl;
  await using sql = openDatabase(url, { connections: 1, unbounded: true });
  return await migrate(sql).catch(rethrow);
}

/** Names the database if it caused the error: the driver's own message does not. */
export function rethrow(error: unknown): never {
  if (!(error instanceof Error && isAway(error))) throw error;
  if (error.message.includes("startup parameter"))
    throw new UsageError(
      `a pooler stands before PostgreSQL, ${error.message}: ${
        error.message.includes("statement_timeout")
          ? "set DATABASE_POOLER=transaction"
          : "set it for the role instead, with ALTER ROLE"
      }`,
      { cause: error },
    );
  // The message is empty if a host name has several addresses.
  const cause = error.message || ("code" in error ? String(error.code) : error.name);
  throw new DependencyAway(`PostgreSQL (DATABASE_URL) is away: ${cause}`, { cause: error });
}

async function demoProject(projects: Projects): Promise<Project> {
  const [first] = await projects.list();
  return first ?? (await projects.create({ name: "demo", platform: "ios" }));
}

/**
 * Returns the key that `start` makes beside its own database, or undefined if the operator
 * configures the keys.
 */
function embeddedServerKey({ databaseUrl, serverKeys, dataDir }: Config): ServerKey | undefined {
  const isOperators = databaseUrl !== undefined || serverKeys.length > 0;
  return isOperators ? undefined : readServerKey(dataDir);
}

function warnWithoutKeys({ serverKeys }: Config, log: Log): void {
  if (serverKeys.length === 0)
    log.warn("SERVER_KEYS is not set: the management routes answer 403 to everybody");
}

function greeting(url: string, project: Project, made: ServerKey | undefined): string {
  const origin = url.replace(/\/$/, "").replace(/0\.0\.0\.0|\[::\]/, "localhost");
  const { projectID, projectKey, name } = describeProject(project);
  return `
Floodgate serves on ${origin}, API docs on ${origin}/docs
Project "${name}": projectID ${projectID}, projectKey ${projectKey}
${describeKey(made)}

Start a session:
  curl -s ${origin}/v1/ios/start -d '{"projectID":${projectID},"trackerVersion":"1.0.14"}'

`;
}

/** Shows the key itself only once. */
function describeKey(made: ServerKey | undefined): string {
  if (made === undefined) return "Server keys: those of SERVER_KEYS";
  return made.isNew
    ? `Server key, for the header X-Server-Key: ${made.serverKey}`
    : "Server key: `floodgate key show` prints it";
}

/**
 * Returns a signal that is aborted at the first request to stop. A second one must not cut the
 * drain short: npm forwards signals that the terminal has already sent.
 */
function stopSignal(): AbortSignal {
  const stopping = new AbortController();
  // The IPC channel closes ("disconnect") when the supervisor has exited.
  for (const event of ["SIGTERM", "SIGINT", "disconnect"])
    process.on(event, () => stopping.abort());
  answerHeartbeats();
  // The supervisor exited before this process could listen for "disconnect".
  if (process.send !== undefined && !process.connected) stopping.abort();
  return stopping.signal;
}
