import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";

import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";

import type { Options } from "./options.ts";
import { BENCH_DIR, type Processes, type Running } from "./processes.ts";

const SIMULATOR_BUCKET = "bench";
const SIMULATOR_LABEL = "S3 simulator";

export type StoreKind = "files" | "s3";
export const STORE_KINDS = ["files", "s3"] as const;

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

/** Opens an empty object store for each measurement. */
export class Stores {
  readonly #options: Options;
  readonly #processes: Processes;
  readonly #folder: string;
  readonly #core: number | undefined;
  #opened = 0;

  constructor(options: Options, processes: Processes, folder: string, core: number | undefined) {
    this.#options = options;
    this.#processes = processes;
    this.#folder = folder;
    this.#core = core;
  }

  /** Returns the name of a store in every output: a simulator must not be taken for S3. */
  label(kind: StoreKind): string {
    if (kind === "files") return "files";
    return this.#options.s3 === undefined
      ? SIMULATOR_LABEL
      : `S3 at ${new URL(this.#options.s3).host}`;
  }

  async open(kind: StoreKind, curve: Curve = RECORDED_CURVE): Promise<Store> {
    if (kind === "files") return this.#openFolder();
    return this.#options.s3 === undefined
      ? this.openSimulator(curve)
      : this.#openS3(this.#options.s3);
  }

  async openSimulator({ p50Ms, p99Ms, putsPerSecond = 0 }: Curve): Promise<Store> {
    const running = await this.#processes.startHelper({
      script: join(BENCH_DIR, "s3-simulator.ts"),
      args: [`--p50-ms=${p50Ms}`, `--p99-ms=${p99Ms}`, `--puts-per-second=${putsPerSecond}`],
      core: this.#core,
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

  #openFolder(): Store {
    const folder = join(this.#folder, `store-${this.#opened++}`);
    mkdirSync(folder);
    return {
      label: this.label("files"),
      env: { DATA_DIR: folder },
      [Symbol.asyncDispose]: async () => rmSync(folder, { recursive: true, force: true }),
    };
  }

  /** Creates the bucket if it is missing, and keeps it afterwards. */
  async #openS3(endpoint: string): Promise<Store> {
    const { AWS_ACCESS_KEY_ID = "", AWS_SECRET_ACCESS_KEY = "" } = process.env;
    const region = process.env["S3_REGION"] ?? "us-east-1";
    const bucket = this.#options.bucket;
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
      label: this.label("s3"),
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
}
