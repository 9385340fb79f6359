import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { eventually } from "./eventually.ts";
import { freePort } from "./free-port.ts";
import { needPrograms, programPath } from "./packages.ts";

const NEED = {
  programs: ["nginx"],
  packages: ["nginx"],
  otherwise: "The tests need nginx: install it",
};
const START_MS_MAX = 10_000;

const running = new Set<Nginx>();

/** Makes sure that nginx is there. */
export async function needNginx(): Promise<void> {
  await needPrograms(NEED);
}

/** Ends what failed tests have left running. */
export async function stopNginx(): Promise<void> {
  await Promise.all([...running].map(async (nginx) => await nginx[Symbol.asyncDispose]()));
}

/** nginx in front of a server, as an operator would set it up for forward authentication. */
export class Nginx implements AsyncDisposable {
  readonly url: string;
  readonly #child: Bun.Subprocess;
  readonly #folder: string;

  private constructor(parts: { url: string; child: Bun.Subprocess; folder: string }) {
    this.url = parts.url;
    this.#child = parts.child;
    this.#folder = parts.folder;
  }

  /** In front of `upstream`; `auth` is asked about every request and answers with an X-User-Claim. */
  static async start(addresses: { upstream: string; auth: string }): Promise<Nginx> {
    await needNginx();
    const folder = mkdtempSync(join(tmpdir(), "floodgate-nginx-"));
    const [port, path] = [await freePort(), join(folder, "nginx.conf")];
    await Bun.write(path, configuration({ ...addresses, folder, port }));
    const output = Bun.file(join(folder, "output"));
    const command = [programPath("nginx") ?? "", "-e", "stderr", "-p", folder, "-c", path];
    const child = Bun.spawn(command, { stdin: "ignore", stdout: output, stderr: output });
    const nginx = new Nginx({ url: `http://127.0.0.1:${port}`, child, folder });
    running.add(nginx);
    await eventually(
      "nginx answers",
      async () => {
        if (child.exitCode !== null) throw new Error(`nginx: ${await output.text()}`);
        return await fetch(`${nginx.url}/nginx`).then(
          ({ status }) => status === 204,
          () => false,
        );
      },
      START_MS_MAX,
    );
    return nginx;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    running.delete(this);
    this.#child.kill("SIGTERM");
    await this.#child.exited;
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

// One process in the foreground, so that no worker outlives it. Where nginx has defaults they stay: HTTP/1.0 and buffering, which would hold
// a stream back until it ends.
const configuration = ({
  upstream,
  auth,
  folder,
  port,
}: Record<"upstream" | "auth" | "folder", string> & { port: number }) => `
daemon off;
master_process off;
pid ${folder}/pid;
events {}
http {
  access_log off;
  client_body_temp_path ${folder}/body;
  proxy_temp_path ${folder}/proxy;
  fastcgi_temp_path ${folder}/fastcgi;
  uwsgi_temp_path ${folder}/uwsgi;
  scgi_temp_path ${folder}/scgi;
  server {
    listen 127.0.0.1:${port};
    location = /nginx {
      return 204;
    }
    location = /auth {
      internal;
      proxy_pass ${auth};
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
    }
    auth_request /auth;
    auth_request_set $claim $upstream_http_x_user_claim;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-User-Claim $claim;
    location / {
      proxy_pass ${upstream};
    }
    location = /presence/ws {
      proxy_pass ${upstream};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-User-Claim $claim;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
    }
  }
}
`;
