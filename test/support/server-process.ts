import { join } from "node:path";

import { type TestApp } from "./app.ts";
import { MAIN } from "./program.ts";

const ROOT = join(import.meta.dir, "../..");
const START_MS_MAX = 45_000;
const LINES_KEPT = 40;
// Log message of each command when it is ready.
const READY: Record<string, string> = { start: "started", serve: "listening", work: "working" };

/** Server in a process of its own, which can be killed. */
export class ServerProcess implements AsyncDisposable {
  readonly url: string;
  /** Resolves with the exit code; null if a signal ended the process. */
  readonly exited: Promise<number | null>;
  readonly #child: Child;

  private constructor(child: Child, url: string) {
    this.#child = child;
    this.url = url;
    this.exited = child.exited.then(() => child.exitCode);
  }

  /** Starts the server; resolves when it listens. `env` is that of `testEnv`; bun runs `script`. */
  static async start(
    env: Record<string, string>,
    script: string[] = [MAIN, "serve"],
  ): Promise<ServerProcess> {
    const child = Bun.spawn([process.execPath, ...script], {
      cwd: ROOT,
      env: { ...process.env, ...env, LOG_LEVEL: "info" },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    const late = Bun.sleep(START_MS_MAX);
    const url = await Promise.race([readyUrl(child, script), late]);
    if (url !== undefined) return new ServerProcess(child, url.replace(/\/$/, ""));
    child.kill("SIGKILL");
    throw new Error(`the server did not listen within ${START_MS_MAX} ms`);
  }

  get pid(): number {
    return this.#child.pid;
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Kills the server, like a crash. */
  async kill(): Promise<void> {
    this.signal("SIGKILL");
    await this.#child.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.isRunning) await this.kill();
  }
}

/** Returns the environment of a process on the database and object store of a test's server. */
export function envOf({
  config,
  databaseUrl,
}: Pick<TestApp, "config" | "databaseUrl">): Record<string, string> {
  const { s3, redis } = config;
  return {
    PORT: "0",
    HOST: config.host,
    DATA_DIR: config.dataDir,
    DATABASE_URL: databaseUrl,
    TOKEN_SECRET: config.tokenSecrets.join(","),
    SERVER_KEYS: config.serverKeys.join(","),
    COMMIT_BYTES: String(config.commit.bytes),
    PRESENCE_TTL_S: String(config.presenceTtlMs / 1000),
    TRUSTED_PROXIES: config.trustedProxies.join(","),
    REDIS: "",
    REDIS_URL: redis?.url ?? "",
    REDIS_PREFIX: redis?.prefix ?? "",
    S3_BUCKET: s3?.bucket ?? "",
    ...(s3 !== undefined && {
      S3_ENDPOINT: s3.endpoint ?? "",
      S3_REGION: s3.region ?? "",
      AWS_ACCESS_KEY_ID: s3.accessKeyId ?? "",
      AWS_SECRET_ACCESS_KEY: s3.secretAccessKey ?? "",
    }),
  };
}

type Child = Bun.Subprocess<"ignore", "ignore", "pipe">;

/**
 * Returns the URL in the log, "" for a process without one. Keeps reading the log, because a full
 * pipe would stop the server.
 */
async function readyUrl(child: Child, script: string[]): Promise<string> {
  const found = Promise.withResolvers<string>();
  const ready = ["start", "work"].find((command) => script.includes(command)) ?? "serve";
  void readLines(child, (line, lines) => {
    if (line === undefined) found.reject(new Error(`the server ended: ${lines.join("\n")}`));
    else if (line.includes(`"msg":"${READY[ready]}"`)) found.resolve(addressIn(line));
  });
  return await found.promise;
}

async function readLines(
  { stderr }: Child,
  take: (line: string | undefined, lines: string[]) => void,
): Promise<void> {
  const lines: string[] = [];
  let rest = "";
  for await (const text of stderr.pipeThrough(new TextDecoderStream())) {
    const [...parts] = (rest + text).split("\n");
    rest = parts.pop() ?? "";
    for (const line of parts) {
      lines.push(line);
      if (lines.length > LINES_KEPT) lines.shift();
      take(line, lines);
    }
  }
  take(undefined, [...lines, rest]);
}

function addressIn(line: string): string {
  const { url = "" }: { url?: string } = JSON.parse(line);
  return url;
}
