import { needPrograms } from "./packages.ts";
import { ProxyProcess } from "./proxy-process.ts";

const NEED = {
  programs: ["haproxy"],
  packages: ["haproxy"],
  otherwise: "The tests need HAProxy: install it",
};

export const Haproxy = {
  /** Starts HAProxy with an upstream on localhost and without headers of its own. */
  async plain(upstream: string): Promise<ProxyProcess> {
    await needPrograms(NEED);
    return await ProxyProcess.start({
      name: "haproxy",
      args: (_folder, path) => ["-db", "-f", path],
      config: (_folder, port) => configuration(port, new URL(upstream).host),
      probe: "/haproxy",
    });
  },
};

const configuration = (port: number, upstream: string) => `
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend all
  bind 127.0.0.1:${port}
  http-request return status 204 if { path /haproxy }
  http-request set-header Host localhost
  default_backend floodgate
backend floodgate
  server one ${upstream}
`;
