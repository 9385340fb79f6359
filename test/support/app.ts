import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll } from "bun:test";
import { pino } from "pino";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { buildWrite } from "../../src/app.ts";
import { type Config, readConfig } from "../../src/platform/config/config.ts";
import { type Sql, openDatabase } from "../../src/platform/database/database.ts";
import { type ObjectStore } from "../../src/platform/objects/objects.ts";
import { openObjects } from "../../src/platform/objects/open-objects.ts";
import { encodeProjectID } from "../../src/projects/codec.ts";
import { type Project } from "../../src/projects/service.ts";
import { type ServerOptions, startServer } from "../../src/processes/server.ts";
import { freshDatabase } from "./postgres.ts";
import { redisEnv } from "./redis-server.ts";
import { s3Server } from "./s3-server.ts";

const LOG = pino({ level: "silent" });

/**
 * Server key of the tests' servers, which a TestApp sends with every request unless its test sets
 * SERVER_KEYS.
 */
export const SERVER_KEY = "test-server-key";
/** Server key header for requests that do not go through a TestApp. */
export const KEYED = { "x-server-key": SERVER_KEY };

const TestSession = Type.Object({ token: Type.String(), sessionID: Type.String() });
export type TestSession = Type.Static<typeof TestSession>;

export type AppOptions = Pick<
  ServerOptions,
  "wrapObjects" | "index" | "commitDeadlineMs" | "clock" | "log"
> & {
  store?: "files" | "s3";
  /** use the shared Redis instead of PostgreSQL's notifications */
  redis?: boolean;
  /** environment variables that override the test's own */
  env?: Record<string, string>;
};

/**
 * A whole server on a free port with a database schema, an object store and a project of its own.
 */
export class TestApp implements AsyncDisposable {
  url = "";
  config!: Config;
  databaseUrl = "";
  sql!: Sql;
  objects!: ObjectStore;
  project!: Project;
  /** Stops the server like SIGTERM. */
  stop!: () => Promise<void>;
  readonly #owned = new AsyncDisposableStack();

  static async start(options: AppOptions = {}): Promise<TestApp> {
    const app = new TestApp();
    await app.#start(options);
    return app;
  }

  /** Returns the app of the tests of a file or `describe`, which is started before them and ends after them. */
  static forTests(options: AppOptions = {}): TestApp {
    const app = new TestApp();
    beforeAll(async () => await app.#start(options));
    afterAll(async () => await app[Symbol.asyncDispose]());
    return app;
  }

  async #start({
    store = "files",
    redis = false,
    env = {},
    ...options
  }: AppOptions): Promise<void> {
    this.databaseUrl = await freshDatabase();
    this.config = readConfig({
      ...(await testEnv(store, this.databaseUrl)),
      ...(redis && (await redisEnv())),
      ...env,
    });
    this.#owned.defer(() => rmSync(this.config.dataDir, { recursive: true, force: true }));
    this.sql = this.#owned.use(openDatabase(this.databaseUrl, { connections: 2 }));
    this.objects = this.#owned.use(await openObjects(this.config));
    this.project = await withProject(this);
    const server = await startServer(this.config, this.databaseUrl, { log: LOG, ...options });
    this.url = server.url.replace(/\/$/, "");
    this.stop = async () => await server[Symbol.asyncDispose]();
    this.#owned.defer(this.stop);
  }

  get projectID(): number {
    return encodeProjectID(this.project.id);
  }

  async fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    if (this.config.serverKeys.includes(SERVER_KEY) && !headers.has("x-server-key"))
      headers.set("x-server-key", SERVER_KEY);
    return await fetch(this.url + path, { ...init, headers });
  }

  async post(
    path: string,
    body: Bun.BodyInit,
    headers: Record<string, string> = {},
  ): Promise<Response> {
    return await this.fetch(path, { method: "POST", body, headers });
  }

  /** Sends a start request with these fields. */
  async start(
    fields: Record<string, unknown> = {},
    path = "/v1/ios/start",
    headers: Record<string, string> = {},
  ): Promise<Response> {
    const body = JSON.stringify({ projectID: this.projectID, trackerVersion: "1.0.14", ...fields });
    return await this.post(path, body, { "content-type": "application/json", ...headers });
  }

  async aSession(fields: Record<string, unknown> = {}): Promise<TestSession> {
    const response = await this.start(fields);
    if (response.status !== 200)
      throw new Error(`start answered ${response.status}: ${await response.text()}`);
    return Value.Parse(TestSession, await response.json());
  }

  async append(
    { token }: TestSession,
    batch: Uint8Array,
    path = "/v1/ios/append",
    headers: Record<string, string> = {},
  ): Promise<Response> {
    return await this.post(path, batch, { authorization: `Bearer ${token}`, ...headers });
  }

  /** Reads a session's batches back, as the client encoded them. */
  async batches({ sessionID }: { sessionID: string }, query = ""): Promise<Uint8Array[]> {
    const response = await this.fetch(`/v1/sessions/${sessionID}/batches${query}`, {
      headers: { accept: "application/octet-stream" },
    });
    if (response.status !== 200)
      throw new Error(`batches answered ${response.status}: ${await response.text()}`);
    return splitBatches(await response.bytes());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned.disposeAsync();
  }
}

/** Returns the environment of a test's server, with a new data folder. */
export async function testEnv(
  store: "files" | "s3",
  databaseUrl: string,
): Promise<Record<string, string>> {
  return {
    PORT: "0",
    HOST: "127.0.0.1",
    DATA_DIR: mkdtempSync(join(tmpdir(), "floodgate-app-")),
    DATABASE_URL: databaseUrl,
    TOKEN_SECRET: "test-secret",
    SERVER_KEYS: SERVER_KEY,
    TRUSTED_PROXIES: "127.0.0.0/8,::1/128",
    LOG_LEVEL: "silent",
    // The tester's own environment must not reach a server process.
    REDIS_URL: "",
    REDIS: "",
    ...(store === "s3" && (await s3Env())),
  };
}

/** Splits an `application/octet-stream` answer into batches. */
export function splitBatches(bytes: Uint8Array): Uint8Array[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const batches: Uint8Array[] = [];
  for (let at = 0; at < bytes.length;) {
    const length = view.getUint32(at, true);
    batches.push(bytes.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return batches;
}

async function s3Env(): Promise<Record<string, string>> {
  const { endpoint, region, accessKeyId, secretAccessKey, createBucket } = await s3Server();
  const bucket = `t-${crypto.randomUUID()}`;
  await createBucket(bucket);
  return {
    S3_BUCKET: bucket,
    S3_ENDPOINT: endpoint,
    S3_REGION: region,
    AWS_ACCESS_KEY_ID: accessKeyId,
    AWS_SECRET_ACCESS_KEY: secretAccessKey,
  };
}

async function withProject(parts: {
  config: Config;
  sql: Sql;
  objects: ObjectStore;
}): Promise<Project> {
  const { projects, commitLog } = buildWrite({ ...parts, log: LOG });
  const project = await projects.create({ name: "test", platform: "ios" });
  await commitLog.flush();
  return project;
}
