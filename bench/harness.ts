import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";

import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import postgres from "postgres";
import { Type } from "typebox";
import { Value } from "typebox/value";

import {
  type EmbeddedPostgres,
  startEmbeddedPostgres,
} from "../src/platform/database/embedded-postgres.ts";
import { freePort } from "../test/support/free-port.ts";
import { LoadProcesses } from "./load-process.ts";
import type { Options } from "./options.ts";
import { BENCH_DIR, Processes, type Running } from "./processes.ts";
import { Progress } from "./progress.ts";
import { countRows, emptyTables } from "./tables.ts";

const TOKEN_SECRET = "bench-token-secret";
export const SERVER_KEY = "bench-server-key";
const SIMULATOR_BUCKET = "bench";
const SIMULATOR_LABEL = "S3 simulator";
// Long enough that no device goes offline in a measurement.
const PRESENCE_TTL_S = 3600;
// With --pin the measured server has a core of its own, and everything else shares the other.
export const SERVER_CORE = 0;
export const OTHER_CORE = 1;

const Project = Type.Object({ projectID: Type.Number(), projectKey: Type.String() });

export type StoreKind = "files" | "s3";

export type Curve = { p50Ms: number; p99Ms: number; putsPerSecond?: number };
export const RECORDED_CURVE: Curve = { p50Ms: 30, p99Ms: 400 };
export const FIXED_CURVE: Curve = { p50Ms: 30, p99Ms: 30 };

/** Object store of one measurement. */
export type Store = AsyncDisposable & {
  label: string;
  env: Record<string, string>;
  /** Absent for a real store, whose PUTs are not counted. */
  simulator?: Running;
};

export function isSimulated(store: Store): store is Store & { simulator: Running } {
  return store.simulator !== undefined;
}

export type { Running };

/** A server that is being measured: Floodgate, the floor or a baseline. */
export type Subject = Running & { projectKey?: string; projectID: number; postgres?: number };

/** Owns the folder, PostgreSQL and every process of a bench run. */
export class Harness implements AsyncDisposable {
  readonly options: Options;
  readonly progress = new Progress();
  readonly load: LoadProcesses;
  readonly folder: string;
  readonly processes: Processes;
  #database: EmbeddedPostgres | undefined;
  #databaseUrl = "";
  #sql: postgres.Sql | undefined;
  #project = { projectID: 1, projectKey: "" };
  #names = 0;

  constructor(options: Options) {
    this.options = options;
    this.folder = join(options.dataDir, `bench-${process.pid}-${Date.now()}`);
    mkdirSync(this.folder, { recursive: true });
    this.processes = new Processes(this.folder);
    this.load = new LoadProcesses(this.processes, this.progress, this.core(OTHER_CORE));
  }

  /** Prepares a migrated database with one project. */
  async prepare(): Promise<void> {
    this.progress.start("PostgreSQL, migrations, project");
    if (this.options.databaseUrl === undefined) {
      this.#database = await startEmbeddedPostgres(this.folder);
      this.#databaseUrl = this.#database.url;
    } else this.#databaseUrl = this.options.databaseUrl;
    const script = this.options.server;
    await this.processes.run({ script, args: ["migrate"], env: this.serverEnv() });
    const args = ["project", "create", "bench", "--platform", "ios", "--json"];
    const json = await this.processes.run({ script, args, env: this.serverEnv() });
    this.#project = Value.Parse(Project, JSON.parse(json));
    this.#sql = postgres(this.#databaseUrl, { max: 1, onnotice: () => {} });
    this.progress.stop();
  }

  /** Starts a fresh server process on a fresh store; `env` is added to its configuration. */
  async startFloodgate(
    store: Store,
    env: Record<string, string> = {},
    command: "serve" | "start" = "serve",
  ): Promise<Subject> {
    await this.#emptyTables();
    const port = await freePort();
    const running = await this.processes.startServer({
      script: this.options.server,
      args: [command],
      env: { ...this.serverEnv(), ...store.env, ...env, PORT: String(port), HOST: "127.0.0.1" },
      core: this.core(SERVER_CORE),
      port,
    });
    const postmaster = await this.postmaster();
    return {
      ...running,
      ...this.#project,
      ...(postmaster !== undefined && { postgres: postmaster }),
    };
  }

  /** Starts Floodgate without presence; with `apart` no other server's pings reach it. */
  async startPresence(store: Store, { apart }: { apart: boolean }): Promise<Subject> {
    const { redis } = this.options;
    return this.startFloodgate(store, {
      PRESENCE_TTL_S: PRESENCE_TTL_S.toString(),
      ...(redis !== undefined && { REDIS_URL: redis, REDIS_PREFIX: this.#redisPrefix() }),
      ...(apart && (await this.#createDatabase())),
    });
  }

  /** Name of the bus that carries pings from one server to the others. */
  get presenceBus(): string {
    return this.options.redis === undefined ? "PostgreSQL" : "Redis";
  }

  async startPresenceFloor(): Promise<Subject> {
    return this.startBaseline("floor-presence.ts", [], {});
  }

  get database(): postgres.Sql {
    if (this.#sql === undefined) throw new Error("the database is not ready");
    return this.#sql;
  }

  async startFloor(mode: "drain" | "buffer"): Promise<Subject> {
    return this.startBaseline("floor.ts", [mode], {});
  }

  async startOnePut(store: Store, mode: "default" | "tuned"): Promise<Subject> {
    return this.startBaseline("baselines/one-put.ts", [mode], store.env);
  }

  async startFormData(store: Store): Promise<Subject> {
    return this.startBaseline("baselines/form-data.ts", [], store.env);
  }

  /** Returns the name of a store in every output: a simulator must not be taken for S3. */
  storeLabel(kind: StoreKind): string {
    if (kind === "files") return "files";
    return this.options.s3 === undefined
      ? SIMULATOR_LABEL
      : `S3 at ${new URL(this.options.s3).host}`;
  }

  async openStore(kind: StoreKind, curve: Curve = RECORDED_CURVE): Promise<Store> {
    if (kind === "files") return this.#openFolder();
    return this.options.s3 === undefined
      ? this.openSimulator(curve)
      : this.#openS3(this.options.s3);
  }

  async openSimulator({ p50Ms, p99Ms, putsPerSecond = 0 }: Curve): Promise<Store> {
    const running = await this.processes.startHelper({
      script: join(BENCH_DIR, "s3-simulator.ts"),
      args: [`--p50-ms=${p50Ms}`, `--p99-ms=${p99Ms}`, `--puts-per-second=${putsPerSecond}`],
      core: this.core(OTHER_CORE),
    });
    return {
      label: SIMULATOR_LABEL,
      env: {
        S3_ENDPOINT: running.url,
        S3_BUCKET: SIMULATOR_BUCKET,
        S3_REGION: "us-east-1",
        AWS_ACCESS_KEY_ID: "simulator",
        AWS_SECRET_ACCESS_KEY: "simulator",
      },
      simulator: running,
      [Symbol.asyncDispose]: async () => running[Symbol.asyncDispose](),
    };
  }

  /** Counts the batches or images in PostgreSQL, among which must be all that were acknowledged. */
  async countRows(what: "batches" | "images"): Promise<number> {
    return await countRows(this.database, what);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sql?.end({ timeout: 1 });
    await this.#database?.[Symbol.asyncDispose]();
    await this.processes[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }

  async startBaseline(
    script: string,
    args: string[],
    env: Record<string, string>,
  ): Promise<Subject> {
    const core = this.core(SERVER_CORE);
    const running = await this.processes.startHelper({
      script: join(BENCH_DIR, script),
      args,
      env,
      core,
    });
    return { ...running, projectID: this.#project.projectID };
  }

  #openFolder(): Store {
    const folder = join(this.folder, `store-${this.#names++}`);
    mkdirSync(folder);
    return {
      label: this.storeLabel("files"),
      env: { DATA_DIR: folder },
      [Symbol.asyncDispose]: async () => rmSync(folder, { recursive: true, force: true }),
    };
  }

  /** Creates the bucket if it is missing, and keeps it afterwards. */
  async #openS3(endpoint: string): Promise<Store> {
    const { AWS_ACCESS_KEY_ID = "", AWS_SECRET_ACCESS_KEY = "" } = process.env;
    const region = process.env["S3_REGION"] ?? "us-east-1";
    const bucket = this.options.bucket;
    const client = new S3Client({ endpoint, region, forcePathStyle: true });
    try {
      await client.send(new CreateBucketCommand({ Bucket: bucket }));
    } catch (error) {
      const name = error instanceof Error ? error.name : "";
      if (name !== "BucketAlreadyOwnedByYou" && name !== "BucketAlreadyExists") throw error;
    } finally {
      client.destroy();
    }
    return {
      label: this.storeLabel("s3"),
      env: {
        S3_ENDPOINT: endpoint,
        S3_BUCKET: bucket,
        S3_REGION: region,
        AWS_ACCESS_KEY_ID,
        AWS_SECRET_ACCESS_KEY,
      },
      [Symbol.asyncDispose]: async () => {},
    };
  }

  /** Environment of every Floodgate process. */
  serverEnv(): Record<string, string> {
    return {
      DATABASE_URL: this.#databaseUrl,
      DATA_DIR: this.folder,
      TOKEN_SECRET,
      SERVER_KEYS: SERVER_KEY,
      // The load generator claims the identity of each user that it pings for, which only a trusted
      // proxy may.
      TRUSTED_PROXIES: "127.0.0.1/32",
      LOG_LEVEL: "warn",
    };
  }

  /** Empties the tables, whose rows would slow the next measurement; never the caller's. */
  async #emptyTables(): Promise<void> {
    if (this.#database === undefined || this.#sql === undefined) return;
    await emptyTables(this.#sql);
    await this.#sql`checkpoint`;
  }

  /** Creates a database of its own for a server; does nothing in a PostgreSQL of the caller's. */
  async #createDatabase(): Promise<Record<string, string>> {
    if (this.#database === undefined || this.#sql === undefined) return {};
    const name = `presence_${this.#names++}`;
    await this.#sql`create database ${this.#sql(name)}`;
    const url = new URL(this.#databaseUrl);
    url.pathname = `/${name}`;
    const env = { DATABASE_URL: url.href };
    const script = this.options.server;
    await this.processes.run({ script, args: ["migrate"], env: { ...this.serverEnv(), ...env } });
    return env;
  }

  #redisPrefix(): string {
    return `floodgate-bench-${process.pid}-${this.#names++}:`;
  }

  async postmaster(): Promise<number | undefined> {
    if (this.#database === undefined) return undefined;
    const text = await Bun.file(join(this.folder, "postgres/postmaster.pid")).text();
    return Number(text.split("\n")[0]);
  }

  core(core: number): number | undefined {
    return this.options.pin ? core : undefined;
  }
}
