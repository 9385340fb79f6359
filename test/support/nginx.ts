import { join } from "node:path";

import { codeBlock } from "./markdown.ts";
import { needPrograms } from "./packages.ts";
import { type Deployed, ProxyProcess, replaced } from "./proxy-process.ts";

export const DEPLOYED = join(import.meta.dir, "../../deploy/nginx.conf");
const NEED = {
  programs: ["nginx"],
  packages: ["nginx"],
  otherwise: "The tests need nginx: install it",
};

/** Installs nginx if it is missing. */
export async function needNginx(): Promise<void> {
  await needPrograms(NEED);
}

export type Nginx = ProxyProcess;
export const Nginx = {
  /**
   * Starts nginx with forward authentication alone: it asks `auth` about every request and gets an
   * X-User-Claim.
   */
  async start(addresses: { upstream: string; auth: string }): Promise<ProxyProcess> {
    return await run((port) => server({ ...addresses, port }));
  },

  /** Starts nginx with only `proxy_pass`, which adds no header with the client's address. */
  async plain(upstream: string): Promise<ProxyProcess> {
    return await run(
      (port) => `
        server {
          listen 127.0.0.1:${port};
          location = /nginx {
            return 204;
          }
          location / {
            proxy_pass ${upstream};
          }
        }`,
    );
  },

  /** Starts nginx in front of a site, with what docs/websites.md adds to that. */
  async site({ site, floodgate }: { site: string; floodgate: string }): Promise<ProxyProcess> {
    const added = replaced(codeBlock("docs/websites.md", "nginx"), {
      "http://127.0.0.1:8080": floodgate,
    });
    return await run(
      (port) => `
        server {
          listen 127.0.0.1:${port};
          location = /nginx {
            return 204;
          }
          location / {
            proxy_pass ${site};
          }
          ${added}
        }`,
    );
  },

  /** Starts nginx with deploy/nginx.conf. */
  async deployed({ upstreams, auth, edit = (text) => text }: Deployed): Promise<ProxyProcess> {
    const text = edit(await Bun.file(DEPLOYED).text());
    return await run((port) =>
      deployedServers(text, { upstreams, auth, listen: `127.0.0.1:${port}` }),
    );
  },
};

/** Returns deploy/nginx.conf with these addresses. */
export function deployedServers(
  text: string,
  { upstreams, auth, listen }: Omit<Deployed, "edit"> & { listen: string },
): string {
  return replaced(text, {
    "server 127.0.0.1:8081 max_fails=0;": upstreams
      .map(({ url }) => `server ${new URL(url).host} max_fails=0;`)
      .join("\n"),
    "server 127.0.0.1:8082 max_fails=0;": "",
    "127.0.0.1:9000": new URL(auth.url).host,
    "listen 80;": `listen ${listen};`,
  });
}

async function run(servers: (port: number) => string): Promise<ProxyProcess> {
  await needNginx();
  return await ProxyProcess.start({
    name: "nginx",
    args: (folder, path) => ["-e", "stderr", "-p", folder, "-c", path],
    config: (folder, port) => configuration(folder, servers(port)),
    probe: "/nginx",
  });
}

/** Returns a configuration of one process in the foreground, so that no worker outlives it. */
export const configuration = (folder: string, servers: string, connections = 512) => `
daemon off;
master_process off;
pid ${folder}/pid;
events {
  worker_connections ${connections};
}
http {
  access_log off;
  client_body_temp_path ${folder}/body;
  proxy_temp_path ${folder}/proxy;
  fastcgi_temp_path ${folder}/fastcgi;
  uwsgi_temp_path ${folder}/uwsgi;
  scgi_temp_path ${folder}/scgi;
  ${servers}
}
`;

// Keeps nginx's defaults: HTTP/1.0 and buffering, which would hold a stream back until it ends.
const server = ({ upstream, auth, port }: { upstream: string; auth: string; port: number }) => `
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
`;
