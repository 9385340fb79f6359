import { join } from "node:path";

import { codeBlock } from "./markdown.ts";
import { needPrograms } from "./packages.ts";
import { type Deployed, ProxyProcess, replaced } from "./proxy-process.ts";

const DEPLOYED = join(import.meta.dir, "../../deploy/Caddyfile");
const NEED = {
  programs: ["caddy"],
  packages: ["caddy"],
  otherwise: "The tests need Caddy: install it",
};
// Opens no port but the proxy's.
const OPTIONS = "{\n\tadmin off\n\tauto_https off\n\tdefault_bind 127.0.0.1\n}\n";

export const Caddy = {
  /** Starts Caddy in front of a site, with what docs/websites.md adds to that. */
  async site({ site, floodgate }: { site: string; floodgate: string }): Promise<ProxyProcess> {
    await needPrograms(NEED);
    const added = replaced(codeBlock("docs/websites.md", "caddyfile"), {
      "127.0.0.1:8080": new URL(floodgate).host,
    });
    return await ProxyProcess.start({
      name: "caddy",
      args: (_folder, path) => ["run", "--adapter", "caddyfile", "--config", path],
      config: (_folder, port) =>
        `${OPTIONS}:${port} {\n${added}\nhandle {\nreverse_proxy ${new URL(site).host}\n}\n}\n`,
      probe: "/next",
    });
  },

  /** Starts Caddy with deploy/Caddyfile. */
  async deployed({ upstreams, auth, edit = (text) => text }: Deployed): Promise<ProxyProcess> {
    await needPrograms(NEED);
    const text = await Bun.file(DEPLOYED).text();
    return await ProxyProcess.start({
      name: "caddy",
      args: (_folder, path) => ["run", "--adapter", "caddyfile", "--config", path],
      config: (_folder, port) =>
        OPTIONS +
        replaced(edit(text), {
          "127.0.0.1:8081 127.0.0.1:8082": upstreams.map(({ url }) => new URL(url).host).join(" "),
          "127.0.0.1:9000": new URL(auth.url).host,
          ":80 {": `:${port} {`,
        }),
      probe: "/metrics",
    });
  },
};
