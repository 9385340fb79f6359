import { join } from "node:path";

import { IngestProxy } from "./ingest-proxy.ts";
import { type ProxyProcess } from "./proxy-process.ts";

const FOLDER = join(import.meta.dir, "site");
const TYPES = { html: "text/html; charset=utf-8", js: "text/javascript", css: "text/css" };

export type SiteProxy = {
  site: (addresses: { site: string; floodgate: string }) => Promise<ProxyProcess>;
};

export type SiteOptions = {
  projectKey: string;
  /** proxy in front of the site that passes the tracker's requests on; without it they go to another origin */
  through?: SiteProxy;
  /** further options of the tracker */
  tracker?: Record<string, unknown>;
};

type Served = { settings: Record<string, unknown>; policy: string; library: string };

/** Web site whose pages are recorded by OpenReplay's web tracker from npm, and sent to a server. */
export class Site implements AsyncDisposable {
  /** Address of the site for browsers */
  url = "";
  /** Everything that the site's pages send to the server */
  ingest!: IngestProxy;
  readonly #owned = new AsyncDisposableStack();

  static async open(
    server: { url: string },
    { projectKey, through, tracker = {} }: SiteOptions,
  ): Promise<Site> {
    const site = new Site();
    site.ingest = site.#owned.use(new IngestProxy(server));
    const ingestPoint = through ? "/ingest" : `${site.ingest.url}/ingest`;
    site.url = site.#serve({
      settings: { projectKey, ingestPoint, ...tracker },
      policy: pagePolicy(through ? [] : [site.ingest.url]),
      library: await bundledTracker(),
    });
    if (through) {
      const addresses = { site: site.url, floodgate: site.ingest.url };
      site.url = site.#owned.use(await through.site(addresses)).url;
    }
    return site;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned.disposeAsync();
  }

  #serve({ settings, policy, library }: Served): string {
    const file = (name: string, type: keyof typeof TYPES) =>
      new Response(Bun.file(join(FOLDER, name)), {
        headers: { "content-type": TYPES[type], "content-security-policy": policy },
      });
    const server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      routes: {
        "/": () => file("index.html", "html"),
        "/next": () => file("next.html", "html"),
        "/private": () => file("private.html", "html"),
        "/frame": () => file("frame.html", "html"),
        "/style.css": () => file("style.css", "css"),
        "/page.js": () => file("page.js", "js"),
        "/tracker.js": () => script(library),
        "/settings.js": () => script(`window.settings = ${JSON.stringify(settings)};`),
        "/api/order": () => Response.json({ order: 1 }, { status: 201 }),
      },
      fetch: () => new Response("no such page", { status: 404 }),
    });
    this.#owned.defer(async () => await server.stop(true));
    return server.url.origin;
  }
}

function script(text: string): Response {
  return new Response(text, { headers: { "content-type": TYPES.js } });
}

/**
 * Returns a strict Content-Security-Policy with what docs/websites.md asks for. Playwright needs
 * 'unsafe-eval'.
 */
function pagePolicy(ingestOrigins: string[]): string {
  return [
    "default-src 'self'",
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
    "style-src 'self' 'unsafe-inline'",
    "worker-src blob:",
    ["connect-src 'self'", ...ingestOrigins].join(" "),
  ].join("; ");
}

let bundle: Promise<string> | undefined;

/** Returns the tracker as one module for browsers. */
async function bundledTracker(): Promise<string> {
  bundle ??= Bun.build({
    entrypoints: [Bun.resolveSync("@openreplay/tracker", import.meta.dir)],
    target: "browser",
  }).then(async ({ outputs: [output] }) => (await output?.text()) ?? "");
  return await bundle;
}
