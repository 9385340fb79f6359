import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { eventually } from "./eventually.ts";
import { freePort } from "./free-port.ts";
import { programPath } from "./packages.ts";

const START_MS_MAX = 30_000;

export type ProxyProgram = {
  name: string;
  args: (folder: string, configPath: string) => string[];
  /** contents of the configuration file; `folder` is the proxy's own */
  config: (folder: string, port: number) => string | Promise<string>;
  /** a path that the proxy answers by itself */
  probe: string;
};

/** Upstreams and auth service of a proxy of deploy/, and changes to its file. */
export type Deployed = {
  upstreams: { url: string }[];
  auth: { url: string };
  edit?: (text: string) => string;
};

/** Proxy in the foreground on a port of its own. */
export class ProxyProcess implements AsyncDisposable {
  readonly url: string;
  readonly #child: Bun.Subprocess;
  readonly #folder: string;

  private constructor(parts: { url: string; child: Bun.Subprocess; folder: string }) {
    this.url = parts.url;
    this.#child = parts.child;
    this.#folder = parts.folder;
  }

  /** Starts a proxy; resolves when it answers. */
  static async start({ name, args, config, probe }: ProxyProgram): Promise<ProxyProcess> {
    const folder = mkdtempSync(join(tmpdir(), `floodgate-${name}-`));
    const [port, path] = [await freePort(), join(folder, `${name}.conf`)];
    await Bun.write(path, await config(folder, port));
    const output = Bun.file(join(folder, "output"));
    const child = Bun.spawn([programPath(name) ?? "", ...args(folder, path)], {
      env: { ...process.env, HOME: folder },
      stdin: "ignore",
      stdout: output,
      stderr: output,
    });
    const proxy = new ProxyProcess({ url: `http://127.0.0.1:${port}`, child, folder });
    await eventually(
      `${name} answers`,
      async () => {
        if (child.exitCode !== null) throw new Error(`${name}: ${await output.text()}`);
        return await fetch(proxy.url + probe).then(
          () => true,
          () => false,
        );
      },
      START_MS_MAX,
    );
    return proxy;
  }

  /** Reads the proxy's output. */
  async log(): Promise<string> {
    return await Bun.file(join(this.#folder, "output")).text();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGTERM");
    await this.#child.exited;
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Replaces texts; fails if one is missing, so that a test runs the configuration that it means. */
export function replaced(text: string, changes: Record<string, string>): string {
  return Object.entries(changes).reduce((changed, [from, to]) => {
    if (!changed.includes(from)) throw new Error(`no "${from}" in the configuration`);
    return changed.replaceAll(from, to);
  }, text);
}
