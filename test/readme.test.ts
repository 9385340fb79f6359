import { mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterAll, beforeAll, expect, test } from "bun:test";

import { needPrograms } from "./support/packages.ts";
import { freePort } from "./support/free-port.ts";
import { ServerProcess } from "./support/server-process.ts";

const ROOT = join(import.meta.dir, "..");
const START_MS_MAX = 60_000;

let folder: string;
let server: ServerProcess;
let env: Record<string, string>;

/** Starts a fresh server, and a folder that looks like the checkout. */
beforeAll(async () => {
  await needPrograms({
    programs: ["curl", "xxd"],
    packages: ["curl", "xxd"],
    otherwise: "The tour needs curl and xxd: install them",
  });
  folder = await mkdtemp(join(tmpdir(), "floodgate-readme-"));
  for (const name of ["node_modules", "src", "package.json"])
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

test(
  "the tours work on a fresh start when they are pasted, and answer what they show",
  async () => {
    const text = await readFile(join(ROOT, "README.md"), "utf8");
    const lines = [...text.matchAll(/^```console\n(.*?)^```$/gms)].flatMap(([, block = ""]) =>
      block.split("\n"),
    );
    const commands = lines.filter((line) => line.startsWith("$ ")).map((line) => line.slice(2));
    expect(commands.length).toBeGreaterThan(15);
    const said = lines.filter((line) => line !== "" && !line.startsWith("$ ")).map(shapeOf);

    // Responses end without a line break.
    const script = commands
      .join("\necho\n")
      .replaceAll("localhost:8080", `localhost:${env["PORT"]}`);
    const shell = Bun.spawn(["bash", "-c", `${script}\nkill $!\nwait`], {
      cwd: folder,
      env: { PATH: process.env["PATH"] ?? "", HOME: folder, LOG_LEVEL: "error", ...env },
      stderr: "pipe",
    });
    const [out, err] = await Promise.all([shell.stdout.text(), shell.stderr.text()]);
    expect(err).toBe("");
    const answered = out.split("\n").map(shapeOf);
    for (const shape of said) expect(answered).toContain(shape);
  },
  START_MS_MAX,
);

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
      .trim()
      .slice(0, 24);
  }
}
