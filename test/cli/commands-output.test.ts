import { expect, test } from "bun:test";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { TestApp } from "../support/app.ts";
import { envOf } from "../support/server-process.ts";
import { MAIN } from "../support/program.ts";

const Projects = Type.Object({ projects: Type.Array(Type.Object({ name: Type.String() })) });

const app = TestApp.forTests();

function run(args: string[], env: Record<string, string> = {}) {
  return Bun.spawn([process.execPath, MAIN, ...args], {
    env: { ...process.env, ...envOf(app), LOG_LEVEL: "error", ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
}

test("a list of any length reaches a reader who takes his time", async () => {
  await app.sql`insert into projects (name, project_key, platform)
    select 'project ' || n, 'key-' || n, 'ios' from generate_series(1, 10000) as n`;
  const child = run(["project", "list", "--json"]);
  // By then the program has filled the pipe.
  await Bun.sleep(1000);
  const text = await new Response(child.stdout).text();
  expect(text.length).toBeGreaterThan(500_000);
  expect(Value.Parse(Projects, JSON.parse(text)).projects).toHaveLength(10_001);
  expect(await child.exited).toBe(0);
});

test("files that cannot be used are named in one line, with a 2", async () => {
  const child = run(["serve"], { GEOIP_DB: "/no/such/file", UPDATE_PUBLIC_KEY: "/none" });
  expect(await child.exited).toBe(2);
  const text = await new Response(child.stderr).text();
  expect(text).toBe(
    "floodgate: the GeoIP database /no/such/file cannot be opened; UPDATE_PUBLIC_KEY names a file that cannot be read\n",
  );
});
