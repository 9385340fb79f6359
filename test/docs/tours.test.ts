import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterAll, beforeAll, expect, test } from "bun:test";

import { bareEnv } from "../support/command.ts";
import { needPrograms } from "../support/packages.ts";
import { freePort } from "../support/free-port.ts";
import { PAGES, ROOT, codeOf, readPage, tableRows } from "../support/markdown.ts";
import { Scrape } from "../support/scrape.ts";
import { ServerProcess } from "../support/server-process.ts";

const START_MS_MAX = 60_000;
const BLOCK = /^```console\n(.*?)^```$/gms;
const TOURS = PAGES.filter((page) => linesOf(page).length > 0);

let folder: string;
let server: ServerProcess;
let env: Record<string, string>;

/** Starts a fresh server, and a folder that looks like the checkout. */
beforeAll(async () => {
  await needPrograms({
    programs: ["curl", "xxd"],
    packages: ["curl", "xxd"],
    otherwise: "The tours need curl and xxd: install them",
  });
  folder = await mkdtemp(join(tmpdir(), "floodgate-tours-"));
  for (const name of ["node_modules", "src", "sql", "package.json"])
    await symlink(join(ROOT, name), join(folder, name));
  await writeFile(join(folder, "app-2267_01.apk"), "a build");

  env = { PORT: String(await freePort()), DATA_DIR: join(folder, "data"), DATABASE_URL: "" };
  server = await ServerProcess.start({ ...env, SERVER_KEYS: "", TRUSTED_PROXIES: "" }, [
    "src/main.ts",
    "start",
  ]);
}, START_MS_MAX);

afterAll(async () => {
  server.signal("SIGTERM");
  await server.exited;
  await rm(folder, { recursive: true });
}, START_MS_MAX);

test("the README and the pages about each service have a tour", () => {
  const pages = ["recording", "presence", "campaigns", "updates", "storage", "operations"];
  expect(TOURS).toEqual(
    expect.arrayContaining(["README.md", ...pages.map((name) => `docs/${name}.md`)]),
  );
});

test.each(TOURS)(
  "the tour of %s works on a fresh start when it is pasted, and answers what it shows",
  async (page) => {
    const lines = linesOf(page);
    const commands = lines.filter((line) => line.startsWith("$ ")).map((line) => line.slice(2));
    expect(commands).not.toEqual([]);
    const said = lines.filter((line) => line !== "" && !line.startsWith("$ ")).map(shapeOf);

    // Responses end without a line break.
    const script = commands
      .join("\necho\n")
      .replaceAll("localhost:8080", `localhost:${env["PORT"]}`);
    const shell = Bun.spawn(["bash", "-c", `${script}\n[ -z "$!" ] || kill $!\nwait`], {
      cwd: folder,
      env: { ...bareEnv(), HOME: folder, LOG_LEVEL: "error", ...env },
      stderr: "pipe",
    });
    const [out, err] = await Promise.all([shell.stdout.text(), shell.stderr.text()]);
    expect(err).toBe("");
    const answered = out.split("\n").map(shapeOf);
    for (const shape of said) expect(answered).toContain(shape);
  },
  START_MS_MAX,
);

test("the table of metrics names what serve and work answer with, no more and no less", async () => {
  const scrape = await Scrape.of(server);
  const labels = new Map(
    tableRows("docs/operations.md")
      .filter(([name]) => /^`(?:floodgate|process|nodejs)_/.test(name ?? ""))
      .map(([name, listed = ""]) => [codeOf(name) ?? "", listed.split(", ")]),
  );
  expect([...labels.keys()].toSorted()).toEqual([...scrape.families.keys()].toSorted());
  for (const series of scrape.series) {
    const [, name = "", own = ""] = /^(\w+?)(?:_bucket|_sum|_count)?(\{.*)?$/.exec(series) ?? [];
    const used = [...own.matchAll(/(\w+)="/g)].map(([, label = ""]) => label);
    for (const label of used.filter((one) => one !== "le"))
      expect([name, labels.get(name)]).toEqual([name, expect.arrayContaining([label])]);
  }
});

function linesOf(page: string): string[] {
  return [...readPage(page).matchAll(BLOCK)].flatMap(([, block = ""]) => block.split("\n"));
}

/**
 * Returns a line without the parts that differ between runs: only the field names of JSON, only the
 * words of other text.
 */
function shapeOf(line: string): string {
  const json = line.replace(/^data: /, "");
  try {
    return JSON.stringify(JSON.parse(json), (_name, value: unknown) =>
      typeof value === "object" ? value : typeof value,
    );
  } catch {
    return line
      .replace(/^id: .*/, "id")
      .replaceAll(/\b[\w-]{20,}/g, "key")
      .trim()
      .slice(0, 24);
  }
}
