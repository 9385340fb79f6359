import { readdirSync, statSync } from "node:fs";
import { builtinModules } from "node:module";
import { join, relative, resolve } from "node:path";
import { Type } from "typebox";
import { Value } from "typebox/value";
import { describe, expect, test } from "bun:test";

import { VARIABLES, readConfig } from "../../src/platform/config/config.ts";
import { openObjects } from "../../src/platform/objects/open-objects.ts";
import { testEnv } from "../support/app.ts";

const ROOT = join(import.meta.dir, "../..");
// Unpacked and pruned they are 31 MB; this is what lies in node_modules here, types and maps included.
const MODULES_BYTES_MAX = 70_000_000;
const GRACE_S_MIN = 10;

const Service = Type.Object({
  build: Type.Optional(Type.String()),
  image: Type.String(),
  command: Type.Optional(Type.Array(Type.String())),
  entrypoint: Type.Optional(Type.Array(Type.String())),
  environment: Type.Optional(Type.Record(Type.String(), Type.String())),
  healthcheck: Type.Optional(Type.Object({ disable: Type.Optional(Type.Boolean()) })),
  depends_on: Type.Optional(
    Type.Record(Type.String(), Type.Object({ condition: Type.String() }), { default: {} }),
  ),
  restart: Type.String(),
  read_only: Type.Literal(true),
  mem_limit: Type.String(),
  stop_grace_period: Type.Optional(Type.String({ pattern: String.raw`^\d+s$` })),
  volumes: Type.Optional(Type.Array(Type.String())),
  networks: Type.Union([Type.Array(Type.String()), Type.Record(Type.String(), Type.Unknown())]),
});
const Compose = Type.Object({
  services: Type.Record(Type.String(), Service),
  networks: Type.Record(Type.String(), Type.Unknown()),
  volumes: Type.Record(Type.String(), Type.Unknown()),
});

const Traefik = Type.Object({
  http: Type.Object({
    routers: Type.Record(
      Type.String(),
      Type.Object({
        rule: Type.String(),
        priority: Type.Integer(),
        entryPoints: Type.Array(Type.String()),
        middlewares: Type.Array(Type.String()),
        service: Type.String(),
      }),
    ),
    middlewares: Type.Record(Type.String(), Type.Record(Type.String(), Type.Unknown())),
    services: Type.Record(
      Type.String(),
      Type.Object({
        loadBalancer: Type.Object({
          servers: Type.Array(Type.Object({ url: Type.String() })),
          serversTransport: Type.String(),
        }),
      }),
    ),
    serversTransports: Type.Record(Type.String(), Type.Unknown()),
  }),
});
const TraefikStart = Type.Object({ entryPoints: Type.Record(Type.String(), Type.Unknown()) });

const read = async (path: string) => await Bun.file(join(ROOT, path)).text();
const sourceNames = () =>
  readdirSync(join(ROOT, "src"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => join("src", name));

async function yaml<Schema extends Type.TSchema>(
  path: string,
  schema: Schema,
): Promise<Type.Static<Schema>> {
  const value: unknown = Bun.YAML.parse(await read(path));
  Value.Assert(schema, value);
  return value;
}

/** A map as compose would have it with every setting of compose.env filled in. */
const filledIn = (environment: Record<string, string> = {}) =>
  Object.fromEntries(
    Object.entries(environment).map(([name, value]) => [
      name,
      value.replaceAll(/\$\{\w+[^}]*\}/g, "filled-in"),
    ]),
  );

describe("the Dockerfile", () => {
  test("copies all that the sources import, and the context holds it", async () => {
    const [dockerfile, ignored, manifest] = await Promise.all(
      ["Dockerfile", ".dockerignore", "package.json"].map(read),
    );
    const copied = [...(dockerfile ?? "").matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(
      ([, names = ""]) => names.split(" "),
    );
    const inContext = [...(ignored ?? "").matchAll(/^!(.+)$/gm)].map(([, name]) => name);
    expect(new Set(inContext)).toEqual(new Set(copied));
    expect(copied).toContain("sql");
    const { dependencies }: { dependencies: Record<string, string> } = JSON.parse(manifest ?? "");
    for (const name of sourceNames()) {
      const transpiler = new Bun.Transpiler({ loader: "ts" });
      for (const { path } of transpiler.scanImports((await read(name)).replace(/^#!.*/, ""))) {
        if (/^(bun|node)(:|$)/.test(path) || builtinModules.includes(path)) continue;
        if (path.startsWith(".")) {
          const [top] = relative(ROOT, resolve(ROOT, name, "..", path)).split("/");
          expect(copied).toContain(top ?? "");
        } else {
          const packageName = path.split("/").slice(0, path.startsWith("@") ? 2 : 1);
          expect(Object.keys(dependencies)).toContain(packageName.join("/"));
        }
      }
    }
  });

  test.each([{}, { PORT: "9001" }, { LISTEN: ":9002" }, { LISTEN: "0.0.0.0:9003" }])(
    "listens and checks its health where %j says",
    async (env) => {
      const dockerfile = (await read("Dockerfile")).replaceAll("\\\n", "");
      const [, own = ""] = /^ENV (.+)$/m.exec(dockerfile) ?? [];
      const ofImage = Object.fromEntries(own.split(" ").map((pair) => pair.split("=")));
      const { port, host } = readConfig({ ...ofImage, ...env });
      const [, wanted = "8080"] = /(\d+)"/.exec(JSON.stringify(env)) ?? [];
      expect([host, port]).toEqual(["0.0.0.0", Number(wanted)]);
      const [, check = ""] = /^HEALTHCHECK .*CMD (.+)$/m.exec(dockerfile) ?? [];
      const [, ...args]: string[] = JSON.parse(check);
      // The check runs, and tells where it asks.
      const asks =
        'globalThis.fetch = async (url) => (console.log(url), new Response("", { status: 200 }));';
      const [option = "", script = ""] = args;
      const child = Bun.spawn([process.execPath, option, asks + script], {
        env: { PATH: process.env["PATH"] ?? "", ...ofImage, ...env },
        stdout: "pipe",
      });
      expect([await child.stdout.text(), await child.exited]).toEqual([
        `http://127.0.0.1:${wanted}/livez\n`,
        0,
      ]);
    },
  );

  test("has few bytes of packages to bring along", async () => {
    const bytes = new Map<string, number>();
    const visit = async (name: string): Promise<void> => {
      const folder = join(ROOT, "node_modules", name);
      const manifest = Bun.file(join(folder, "package.json"));
      if (bytes.has(name) || !(await manifest.exists())) return;
      bytes.set(name, bytesIn(folder));
      const { dependencies = {}, optionalDependencies = {} } = JSON.parse(await manifest.text());
      for (const next of Object.keys({ ...dependencies, ...optionalDependencies }))
        await visit(next);
    };
    const { dependencies }: { dependencies: Record<string, string> } = JSON.parse(
      await read("package.json"),
    );
    for (const name of Object.keys(dependencies)) await visit(name);
    const largest = [...bytes].toSorted(([, one], [, other]) => other - one).slice(0, 5);
    const total = [...bytes.values()].reduce((sum, size) => sum + size, 0);
    expect([total < MODULES_BYTES_MAX, total, largest]).toEqual([true, total, largest]);
  });
});

describe("compose.yaml", () => {
  test("gives Floodgate only variables that it reads, and all that it needs", async () => {
    const { services } = await yaml("compose.yaml", Compose);
    const own = Object.values(services).filter(({ build }) => build !== undefined);
    expect(own.length).toBeGreaterThanOrEqual(5);
    for (const { environment } of own) {
      expect(VARIABLES).toEqual(expect.arrayContaining(Object.keys(environment ?? {})));
      expect(readConfig(filledIn(environment))).toMatchObject({
        s3: { bucket: "floodgate" },
        redis: { url: "redis://redis:6379" },
        serverKeys: ["filled-in"],
        trustedProxies: ["172.30.38.2/32"],
      });
    }
  });

  test("asks for the settings that compose.env lists, no more and no less", async () => {
    const used = [...(await read("compose.yaml")).matchAll(/\$\{(\w+)/g)].map(([, name]) => name);
    const listed = [...(await read("deploy/compose.env")).matchAll(/^(\w+)=/gm)].map(
      ([, name]) => name,
    );
    expect(new Set(used)).toEqual(new Set(listed));
  });

  test("starts each service when what it needs is there", async () => {
    const { services, networks, volumes } = await yaml("compose.yaml", Compose);
    for (const [name, service] of Object.entries(services)) {
      for (const [needed, { condition }] of Object.entries(service.depends_on ?? {})) {
        const other = services[needed];
        if (condition === "service_completed_successfully") expect(other?.restart).toBe("no");
        else {
          expect([name, needed, condition]).toEqual([name, needed, "service_healthy"]);
          // Floodgate's image has a check of its own.
          expect(other?.healthcheck?.disable).not.toBe(true);
          expect(other?.healthcheck ?? other?.build).toBeDefined();
        }
      }
      const joined = Array.isArray(service.networks)
        ? service.networks
        : Object.keys(service.networks);
      expect(Object.keys(networks)).toEqual(expect.arrayContaining(joined));
      for (const volume of service.volumes ?? [])
        expect(volume).toMatch(
          new RegExp(`^(${Object.keys(volumes).join("|")}|\\./deploy/\\w+):/`),
        );
      if (service.build === undefined)
        expect(service.image).toMatch(/^[\w./-]+:(?!latest)[\w.-]+$/);
      else expect(Number.parseInt(service.stop_grace_period ?? "")).toBeGreaterThan(GRACE_S_MIN);
    }
  });

  test("makes the bucket, also when it is there", async () => {
    const { services } = await yaml("compose.yaml", Compose);
    const [, ...script] = services["bucket"]?.entrypoint ?? [];
    const env = { ...(await testEnv("s3", "postgres://unused")), S3_BUCKET: `b-${Date.now()}` };
    for (let times = 0; times < 2; times++) {
      const child = Bun.spawn([process.execPath, ...script], {
        cwd: ROOT,
        env: { ...process.env, ...env },
        stderr: "pipe",
      });
      expect([await child.exited, await child.stderr.text()]).toEqual([0, ""]);
    }
    await using objects = await openObjects(readConfig(env));
    await objects.ping(AbortSignal.timeout(5000));
  });
});

test("Traefik asks who it is for all of presence, strips what clients claim, and knows both servers", async () => {
  const { http } = await yaml("deploy/traefik/dynamic.yaml", Traefik);
  const { entryPoints } = await yaml("deploy/traefik/traefik.yaml", TraefikStart);
  const { services } = await yaml("compose.yaml", Compose);
  for (const router of Object.values(http.routers)) {
    expect(Object.keys(entryPoints)).toEqual(expect.arrayContaining(router.entryPoints));
    expect(Object.keys(http.middlewares)).toEqual(expect.arrayContaining(router.middlewares));
    expect(http.services).toHaveProperty(router.service);
    // Before the claim is set.
    expect(router.middlewares[0]).toBe("no-claim");
  }
  expect(http.middlewares).toMatchObject({
    "no-claim": { headers: { customRequestHeaders: { "X-User-Claim": "" } } },
    claim: {
      forwardAuth: { address: '{{ env "AUTH_URL" }}', authResponseHeaders: ["X-User-Claim"] },
    },
  });
  const { presence, floodgate } = http.routers;
  expect(presence?.middlewares).toContain("claim");
  expect(presence?.priority).toBeGreaterThan(floodgate?.priority ?? 0);
  const [, pattern = ""] = /PathRegexp\(`(.+?)`\)/.exec(presence?.rule ?? "") ?? [];
  for (const path of ["/ping", "/subscribe", "/subscribe/a/client/b", "/presence", "/presence/ws"])
    for (const prefix of ["", "/", "/ingest", "//ingest/"])
      expect(prefix + path).toMatch(new RegExp(pattern));
  for (const { loadBalancer } of Object.values(http.services)) {
    expect(http.serversTransports).toHaveProperty(loadBalancer.serversTransport);
    expect(loadBalancer.servers).toHaveLength(2);
    for (const { url } of loadBalancer.servers)
      expect(services[new URL(url).hostname]?.build).toBeDefined();
  }
});

function bytesIn(folder: string): number {
  return readdirSync(folder, { recursive: true, encoding: "utf8" }).reduce(
    (sum, name) => sum + statSync(join(folder, name)).size,
    0,
  );
}
