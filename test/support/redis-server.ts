import { RedisClient } from "bun";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { eventually } from "./eventually.ts";
import { freePort } from "./free-port.ts";
import { needPrograms, programPath } from "./packages.ts";

const NEED = {
  programs: ["redis-server"],
  packages: ["redis-server"],
  otherwise: "The tests need a Redis server: set TEST_REDIS_URL",
};
const START_MS_MAX = 30_000;
const CONNECT_MS_MAX = 2000;

let shared: Promise<{ url: string }> | undefined;

/** Makes sure that redis-server is there. */
export async function needRedis(): Promise<void> {
  if (!process.env["TEST_REDIS_URL"]) await needPrograms(NEED);
}

/**
 * Returns the Redis that all tests of a process share: that of TEST_REDIS_URL, or one started here.
 */
export async function testRedis(): Promise<{ url: string }> {
  shared ??= fromEnvironment() ?? RedisServer.start();
  return await shared;
}

function fromEnvironment(): Promise<{ url: string }> | undefined {
  const url = process.env["TEST_REDIS_URL"];
  return url ? ask(url, "PING").then(() => ({ url })) : undefined;
}

/** Returns the environment for a server on the shared Redis, with keys and channels of its own. */
export async function redisEnv(): Promise<{ REDIS_URL: string; REDIS_PREFIX: string }> {
  const { url } = await testRedis();
  return { REDIS_URL: url, REDIS_PREFIX: `t-${crypto.randomUUID()}:` };
}

/** Redis without persistence that can be killed, frozen and restarted on the same port. */
export class RedisServer implements AsyncDisposable {
  readonly port: number;
  readonly #folder = mkdtempSync(join(tmpdir(), "floodgate-redis-"));
  #child: Bun.Subprocess | undefined;

  private constructor(port: number) {
    this.port = port;
  }

  /** Starts a server; resolves when it answers. */
  static async start(): Promise<RedisServer> {
    await needRedis();
    const server = new RedisServer(await freePort());
    await server.restart();
    return server;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Starts the server again on the same port, without data. */
  async restart(): Promise<void> {
    const output = Bun.file(join(this.#folder, "output"));
    const settings = {
      bind: "127.0.0.1",
      port: this.port,
      dir: this.#folder,
      appendonly: "no",
      save: "",
      // A title would replace the environment, by which the end of the run finds this process.
      "set-proc-title": "no",
    };
    const args = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, `${value}`]);
    const child = Bun.spawn([programPath("redis-server") ?? "", ...args], {
      env: process.env,
      stdin: "ignore",
      stdout: output,
      stderr: output,
    });
    this.#child = child;
    await eventually(
      "redis-server answers",
      async () => {
        if (child.exitCode !== null) throw new Error(`redis-server: ${await output.text()}`);
        return await ask(this.url, "PING").then(
          () => true,
          () => false,
        );
      },
      START_MS_MAX,
    );
  }

  /** Kills the server, frozen or not, like a crash. */
  async kill(): Promise<void> {
    this.#child?.kill("SIGKILL");
    await this.#child?.exited;
  }

  /** Stops answering until `thaw`; connections stay open, and the kernel accepts new ones. */
  freeze(): void {
    this.#child?.kill("SIGSTOP");
  }

  thaw(): void {
    this.#child?.kill("SIGCONT");
  }

  /** Deletes all keys; subscriptions stay. */
  async flush(): Promise<void> {
    await this.run("FLUSHALL");
  }

  /** Runs a command as the user with all permissions. */
  async run(command: string, ...args: string[]): Promise<void> {
    await ask(this.url, command, args);
  }

  /** Returns the number of connections of a kind, without the one that asks. */
  async clients(kind: "normal" | "pubsub"): Promise<number> {
    const client = new RedisClient(this.url, { autoReconnect: false });
    try {
      const list: unknown = await client.send("CLIENT", ["LIST", "TYPE", kind]);
      return String(list)
        .trim()
        .split("\n")
        .filter((line) => line.includes("name=floodgate")).length;
    } finally {
      client.close();
    }
  }

  /** Returns a URL for a user who may do everything except what the ACL `rules` revoke. */
  async urlFor(user: string, password: string, ...rules: string[]): Promise<string> {
    const all = ["reset", "on", `>${password}`, "~*", "&*", "+@all"];
    await this.run("ACL", "SETUSER", user, ...all, ...rules);
    return `redis://${user}:${password}@127.0.0.1:${this.port}`;
  }

  /** Makes the server a replica, as after a failover, or a primary if `primary` is undefined. */
  async follow(primary: RedisServer | undefined): Promise<void> {
    const [host, port] = primary === undefined ? ["NO", "ONE"] : ["127.0.0.1", `${primary.port}`];
    await this.run("REPLICAOF", host, port);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

async function ask(url: string, command: string, args: string[] = []): Promise<void> {
  const client = new RedisClient(url, { autoReconnect: false, connectionTimeout: CONNECT_MS_MAX });
  try {
    await client.send(command, args);
  } finally {
    client.close();
  }
}
