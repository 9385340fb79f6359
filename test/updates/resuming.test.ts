import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { Random } from "../support/random.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";
import { type Update, UpdateApi, aVersion, hashesOf } from "../support/updates.ts";

const BYTES = new Random(10).bytes(20_000_000);
const folder = mkdtempSync(join(tmpdir(), "floodgate-curl-"));

afterAll(() => rmSync(folder, { recursive: true, force: true }));

function curl(...args: string[]) {
  return Bun.spawn(["curl", "--silent", "--show-error", "--fail", ...args], {
    stdout: "pipe",
    stderr: "ignore",
  });
}

describe.each([
  ["files", {}],
  ["s3", {}],
  ["s3", { DOWNLOAD_REDIRECT: "true" }],
] as const)("curl from %s %p", (store, env: Record<string, string>) => {
  let app: TestApp;
  let api: UpdateApi;
  let proxy: TcpProxy;

  beforeAll(async () => {
    app = await TestApp.start({ store, env });
    api = await UpdateApi.of(app);
    proxy = await TcpProxy.open(app.url);
  });

  afterAll(async () => {
    await proxy[Symbol.asyncDispose]();
    await app[Symbol.asyncDispose]();
  });

  /** Cut after a part of the build, as a phone's connection is. */
  async function cutDownload({ URI }: Update, file: string): Promise<number> {
    const link = proxy.urlOf(URI);
    const child = curl("--location", "--limit-rate", "10M", "--output", file, link);
    await eventually("a part has come", () => Bun.file(file).size > 1_000_000);
    // A redirect leads past the proxy.
    if ("DOWNLOAD_REDIRECT" in env) child.kill("SIGKILL");
    else proxy.cut();
    expect(await child.exited).not.toBe(0);
    const got = Bun.file(file).size;
    expect(got).toBeLessThan(BYTES.length);
    return got;
  }

  test("goes on after a cut, and has the whole build", async () => {
    const update = await api.published({ version: aVersion(), bytes: BYTES });
    const file = join(folder, crypto.randomUUID());
    const had = await cutDownload(update, file);
    const format = "%{http_code} %{size_download}";
    const args = ["--location", "-C", "-", "--output", file, "--write-out", format, update.URI];
    const child = curl(...args);
    expect(await new Response(child.stdout).text()).toBe(`206 ${BYTES.length - had}`);
    expect(await child.exited).toBe(0);
    expect(hashesOf(await Bun.file(file).bytes())).toEqual({
      Checksum: update.Checksum,
      SHA256: update.SHA256,
    });
  });

  test("takes a build that was replaced from its beginning, when it says what it has", async () => {
    const version = aVersion();
    const update = await api.published({ version, bytes: BYTES });
    const file = join(folder, crypto.randomUUID());
    await cutDownload(update, file);
    const bytes = BYTES.toReversed();
    await api.published({ version, bytes });
    if ("DOWNLOAD_REDIRECT" in env) return;
    const ifRange = `If-Range: "${update.SHA256}"`;
    const child = curl("-H", ifRange, "-C", "-", "--output", file, update.URI);
    // What curl says of an answer that does not go on.
    expect(await child.exited).toBe(33);
    const again = curl("--output", file, update.URI);
    expect(await again.exited).toBe(0);
    expect(hashesOf(await Bun.file(file).bytes())).toEqual(hashesOf(bytes));
  });
});

describe("a redirect", () => {
  const app = TestApp.forTests({ store: "s3", env: { DOWNLOAD_REDIRECT: "true" } });
  const api = UpdateApi.forTests(app);

  test("leads to the store for a while, with the build's name and hash", async () => {
    const bytes = Buffer.from("a build elsewhere");
    const name = "We Messe ü.apk";
    const update = await api.published({ name, bytes });
    for (const path of [
      `/source/arm64/${update.Version}/${encodeURIComponent(name)}`,
      `/source/${encodeURIComponent(name)}`,
    ]) {
      const answer = await app.fetch(path, { redirect: "manual" });
      expect([answer.status, await answer.text()]).toEqual([302, ""]);
      expect(answer.headers.get("x-build-sha256")).toBe(update.SHA256);
      expect(answer.headers.get("cache-control")).toMatch(/no-store|no-cache|private/);
      const location = answer.headers.get("location") ?? "";
      expect(location.startsWith(String(app.config.s3?.endpoint))).toBe(true);
      const stored = await fetch(location);
      expect(await stored.text()).toBe("a build elsewhere");
      const disposition = stored.headers.get("content-disposition") ?? "";
      expect(decodeURIComponent(disposition)).toContain(name);
    }
    const { status } = await app.fetch("/source/unknown.apk", { redirect: "manual" });
    expect(status).toBe(404);
  });

  test("is not for who asks for the head, which a link to the store does not give", async () => {
    const { Name, SHA256 } = await api.published({ bytes: BYTES.subarray(0, 1234) });
    const child = curl("--head", "--location", `${app.url}/source/${Name}`);
    const text = (await new Response(child.stdout).text()).toLowerCase();
    expect(await child.exited).toBe(0);
    expect(text).toContain("content-length: 1234\r\n");
    expect(text).toContain(`x-build-sha256: ${SHA256}`);
  });

  test("is not what files answer", async () => {
    await using files = await TestApp.start({ env: { DOWNLOAD_REDIRECT: "true" } });
    const update = await (await UpdateApi.of(files)).published();
    const answer = await fetch(update.URI, { redirect: "manual" });
    expect(answer.status).toBe(200);
  });
});
