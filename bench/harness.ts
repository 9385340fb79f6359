import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";

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
import { type Store, Stores } from "./stores.ts";
import { countRows, emptyTables } from "./tables.ts";

const TOKEN_SECRET = "bench-token-secret";
export const SERVER_KEY = "bench-server-key";
// Long enough that no device goes offline in a measurement.
const PRESENCE_TTL_S = 3600;
// With --pin the measured server has a core of its own, and everything else shares the other.
export const SERVER_CORE = 0;
export const OTHER_CORE = 1;

const Project = Type.Object({ projectID: Type.Number(), projectKey: Type.String() });

export type { Running };

/** A server that is being measured: Floodgate, the floor or a baseline. */
export type Subject = Running & {
  projectKey?: string;
  projectID: number;
  /** Process ids of PostgreSQL and of a proxy in front. */
  postgres?: number;
  proxy?: number;
  /** Certificate of the proxy, in PEM. */
  ca?: string;
};

/** Owns the folder, PostgreSQL and every process of a bench run. */
export class Harness implements AsyncDisposable {
  readonly options: Options;
  readonly progress = new Progress();
  readonly load: LoadProcesses;
  readonly folder: string;
  readonly processes: Processes;
  readonly stores: Stores;
  /** Disposed of before everything else. */
  readonly owned = new AsyncDisposableStack();
  #database: EmbeddedPostgres | undefined;
  #databaseUrl = "";
  #sql: postgres.Sql | undefined;
  #project = { projectID: 1, projectKey: "" };
  #names = 0;

  constructor(options: Options) {
    this.options = options;
    mkdirSync(options.dataDir, { recursive: true });
    this.folder = mkdtempSync(join(options.dataDir, "bench-"));
    this.processes = new Processes(this.folder);
    this.stores = new Stores(options, this.processes, this.folder, this.core(OTHER_CORE));
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
    await this.emptyTables();
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

  async startFloor(): Promise<Subject> {
    return this.startBaseline("floor.ts", [], {});
  }

  async startOnePut(store: Store, mode: "default" | "tuned"): Promise<Subject> {
    return this.startBaseline("baselines/one-put.ts", [mode], store.env);
  }

  async startFormData(store: Store): Promise<Subject> {
    return this.startBaseline("baselines/form-data.ts", [], store.env);
  }

  /** Counts the batches or images in PostgreSQL, among which must be all that were acknowledged. */
  async countRows(what: "batches" | "images"): Promise<number> {
    return await countRows(this.database, what);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.owned.disposeAsync();
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
  async emptyTables(): Promise<void> {
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
