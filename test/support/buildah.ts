import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Type } from "typebox";
import { Value } from "typebox/value";

import { eventually } from "./eventually.ts";
import { needPrograms, programPath } from "./packages.ts";

const ROOT = join(import.meta.dir, "../..");
const NEED = {
  programs: ["buildah", "debootstrap"],
  packages: ["buildah", "debootstrap"],
  otherwise: "The tests of the image need buildah and debootstrap: install them",
};
const ISOLATED = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c"];
const BASE = "localhost/floodgate-test-base";
const IMAGE = "localhost/floodgate-test";

const ImageConfig = Type.Object({
  Docker: Type.Object({
    config: Type.Object({
      User: Type.String(),
      WorkingDir: Type.String(),
      Env: Type.Array(Type.String()),
      Entrypoint: Type.Array(Type.String()),
      Cmd: Type.Array(Type.String()),
      Healthcheck: Type.Object({ Test: Type.Array(Type.String()) }),
    }),
  }),
});
export type ImageConfig = Type.Static<typeof ImageConfig>["Docker"]["config"];

/** The project's image, built like `docker build`, with its files. Needs root, but no engine. */
export class Image implements AsyncDisposable {
  readonly config: ImageConfig;
  /** folder of the image's files */
  readonly root: string;
  /** size of the files that it adds to its base */
  readonly addedBytes: number;
  readonly #containers: string[];

  private constructor(
    parts: Pick<Image, "config" | "root" | "addedBytes"> & { containers: string[] },
  ) {
    this.config = parts.config;
    this.root = parts.root;
    this.addedBytes = parts.addedBytes;
    this.#containers = parts.containers;
  }

  /** Builds the image in half a minute, and its base once per machine, in a minute. */
  static async build(): Promise<Image> {
    await needPrograms(NEED);
    if ((await buildah("images", "--quiet", "--filter", `reference=${BASE}`)) === "")
      await buildBase();
    // The default format has no health checks.
    const options = ["--isolation=chroot", "--format=docker", "--build-arg", `BASE_IMAGE=${BASE}`];
    await buildah("build", ...options, "--tag", IMAGE, ROOT);
    const inspected: unknown = JSON.parse(await buildah("inspect", "--type=image", IMAGE));
    Value.Assert(ImageConfig, inspected);
    const containers = [await unpacked(IMAGE), await unpacked(BASE)];
    const [root = "", base = ""] = await Promise.all(containers.map((id) => buildah("mount", id)));
    const addedBytes = (await bytesIn(root)) - (await bytesIn(base));
    return new Image({ config: inspected.Docker.config, root, addedBytes, containers });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await buildah("rm", ...this.#containers);
    await buildah("rmi", IMAGE);
  }
}

/**
 * A process in the image's files, as a container engine with `--read-only` would start it: with the
 * image's user, without privileges, as process 1.
 */
export class Container implements AsyncDisposable {
  readonly #child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly #output: Promise<string>;
  readonly #errors: Promise<string>;

  private constructor(child: Bun.Subprocess<"ignore", "pipe", "pipe">) {
    this.#child = child;
    this.#output = child.stdout.text();
    this.#errors = child.stderr.text();
  }

  /** Runs the image's command and entrypoint, or those that are given. */
  static run(
    { root, config }: Pick<Image, "root" | "config">,
    env: Record<string, string>,
    { entrypoint = config.Entrypoint, command = config.Cmd }: Partial<CommandLine> = {},
  ): Container {
    const { User: user, WorkingDir: folder, Env } = config;
    const variables = [...Env, ...Object.entries(env).map(([name, value]) => `${name}=${value}`)];
    const privileges = `--reuid=${user} --regid=${user} --clear-groups --no-new-privs --bounding-set=-all`;
    const script = `set -e
      mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"
      mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev"
      root=$1 folder=$2; shift 2
      exec chroot "$root" setpriv ${privileges} env -i -C "$folder" "$@"`;
    const child = Bun.spawn(
      [...ISOLATED, script, "sh", root, folder, ...variables, ...entrypoint, ...command],
      { stdin: "ignore", stdout: "pipe", stderr: "pipe" },
    );
    return new Container(child);
  }

  /** Resolves with the exit code and the output. */
  async ended(): Promise<{ code: number; output: string; errors: string }> {
    const [code, output, errors] = await Promise.all([
      this.#child.exited,
      this.#output,
      this.#errors,
    ]);
    return { code, output, errors };
  }

  /** Returns the id of the process outside of the container. */
  async pid(): Promise<number> {
    const path = `/proc/${this.#child.pid}/task/${this.#child.pid}/children`;
    let pid = 0;
    await eventually("the process runs", async () => {
      pid = Number(await Bun.file(path).text());
      return pid > 0;
    });
    return pid;
  }

  async signal(signal: NodeJS.Signals): Promise<void> {
    process.kill(await this.pid(), signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
  }
}

type CommandLine = { entrypoint: string[]; command: string[] };

/** Builds a minimal Debian with this machine's additional certificate authorities. */
async function buildBase(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "floodgate-base-"));
  const [root, archive] = [join(folder, "root"), join(folder, "root.tar")];
  try {
    await run("debootstrap", "--variant=minbase", "bookworm", root);
    const trusted = "usr/local/share/ca-certificates";
    await cp(`/${trusted}`, join(root, trusted), { recursive: true }).catch(() => undefined);
    await run("tar", "-C", root, "--exclude=./dev/*", "-cf", archive, ".");
    const container = await buildah("from", "scratch");
    await buildah("add", "--quiet", container, archive, "/");
    await buildah("commit", "--quiet", container, BASE);
    await buildah("rm", container);
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function unpacked(image: string): Promise<string> {
  return await buildah("from", "--pull-never", image);
}

async function bytesIn(folder: string): Promise<number> {
  return Number.parseInt(await run("du", "--bytes", "--one-file-system", "--summarize", folder));
}

async function buildah(...args: string[]): Promise<string> {
  return await run("buildah", "--storage-driver=vfs", ...args);
}

/** Runs a command and returns its output. */
async function run(name: string, ...args: string[]): Promise<string> {
  const child = Bun.spawn([programPath(name) ?? name, ...args], {
    stdin: "ignore",
    stderr: "pipe",
  });
  const [output, errors] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  if ((await child.exited) !== 0)
    throw new Error(`${name} ${args.join(" ")} failed: ${(errors || output).slice(-2000)}`);
  return output.trim();
}
