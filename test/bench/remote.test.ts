import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { Type } from "typebox";
import { Value } from "typebox/value";

const BENCH = join(import.meta.dir, "../../bench/run.ts");
const TOKEN = "a-session-token";

const Report = Type.Object({
  sections: Type.Array(
    Type.Object({ title: Type.String(), rows: Type.Array(Type.Array(Type.String())) }),
  ),
  failures: Type.Array(Type.String()),
});

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "floodgate-bench-"));
});

afterAll(() => {
  rmSync(folder, { recursive: true });
});

/** Runs the bench against a server; returns its report, exit code and whole output. */
async function bench(url: string, line: string) {
  const common = ["--json", "--data-dir", join(folder, "data"), "--out", join(folder, "out")];
  const child = Bun.spawn([process.execPath, BENCH, "--url", url, ...line.split(" "), ...common], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [stdout, code] = await Promise.all([child.stdout.text(), child.exited]);
  return { report: Value.Parse(Report, JSON.parse(stdout)), code, stdout };
}

/** Answers each batch by its number, from 1 on. */
function serve(answer: (nth: number, request: Request) => Response) {
  const seen = { batches: 0, starts: 0, paths: new Set<string>(), tokens: new Set<string>() };
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: async (request) => {
      const path = new URL(request.url).pathname;
      await request.bytes();
      seen.paths.add(path);
      if (path.endsWith("/start")) return Response.json({ token: `session-${++seen.starts}` });
      seen.tokens.add(request.headers.get("authorization") ?? "");
      return answer(++seen.batches, request);
    },
  });
  return { url: `http://127.0.0.1:${server.port}`, seen, stop: async () => server.stop(true) };
}

describe("a server that runs elsewhere", () => {
  test("gets no more batches than allowed, and its refusals are told by status", async () => {
    const statuses = [200, 200, 429, 503];
    const server = serve((nth) => new Response(null, { status: statuses[(nth - 1) % 4] ?? 200 }));
    const { report, code } = await bench(
      `${server.url}/ingest/`,
      `--token ${TOKEN} --requests 40 --connections 4 --bytes 1000`,
    );
    await server.stop();
    expect(code).toBe(0);
    // One batch more, which went ahead of the load.
    expect(server.seen.batches).toBe(41);
    expect([...server.seen.paths]).toEqual(["/ingest/v1/ios/append"]);
    expect([...server.seen.tokens]).toEqual([`Bearer ${TOKEN}`]);
    const answers = report.sections.find(({ title }) => title === "Answers by status");
    expect(answers?.rows).toEqual([
      ["200", "20", "50.00 %"],
      ["429", "10", "25.00 %"],
      ["503", "10", "25.00 %"],
    ]);
  });

  test("is loaded for no longer than asked", async () => {
    const server = serve(() => new Response());
    const startedAt = performance.now();
    const { report, code } = await bench(
      server.url,
      `--token ${TOKEN} --seconds 1 --rate 20 --connections 2`,
    );
    await server.stop();
    expect(code).toBe(0);
    expect(performance.now() - startedAt).toBeGreaterThan(1000);
    // A busy machine starts late and sends what is due at once.
    expect(server.seen.batches).toBeLessThanOrEqual(1 + 20 + 20);
    const [load] = report.sections;
    expect(load?.title).toContain("20/s arriving");
  });

  test("starts a session for each connection in a project", async () => {
    const server = serve(() => new Response());
    const { code } = await bench(
      server.url,
      "--project-key a-project-key --requests 60 --connections 3",
    );
    await server.stop();
    expect(code).toBe(0);
    expect(server.seen.starts).toBe(1 + 3);
    expect(server.seen.tokens.size).toBe(1 + 3);
  });

  test("is not loaded if it refuses the first batch", async () => {
    const server = serve(() => new Response(null, { status: 401 }));
    const { report, code } = await bench(server.url, `--token ${TOKEN}`);
    await server.stop();
    expect(code).toBe(1);
    expect(server.seen.batches).toBe(1);
    expect(report.failures).toEqual(["the first batch was answered 401"]);
  });

  test("is not found in results by its token or key", async () => {
    const server = serve(() => new Response());
    const { stdout } = await bench(server.url, `--token ${TOKEN} --requests 5`);
    await server.stop();
    const written = readdirSync(join(folder, "out")).map((name) => join(folder, "out", name));
    expect(written.length).toBeGreaterThan(0);
    const texts = await Promise.all(written.map(async (path) => Bun.file(path).text()));
    expect([stdout, ...texts].join("").includes(TOKEN)).toBe(false);
  });
});
