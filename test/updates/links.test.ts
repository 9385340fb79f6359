import { describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { UpdateApi } from "../support/updates.ts";

describe("links", () => {
  const MIRROR = "https://mirror.example/wemesse/source";
  const OWN = "https://own.example/source";

  test("lead to a mirror flat, and without one by ABI and version", async () => {
    await using app = await TestApp.start({ env: { dest_uri: MIRROR, source_uri: OWN } });
    await using unmirrored = await TestApp.start({ env: { source_uri: `${OWN}/` } });
    const build = { version: "2267_01", name: "app.apk" };
    for (const [server, offered] of [
      [app, `${MIRROR}/app.apk`],
      [unmirrored, `${OWN}/arm64/2267_01/app.apk`],
    ] as const) {
      const api = await UpdateApi.of(server);
      const published = await api.published(build);
      expect(published.URI).toBe(`${OWN}/arm64/2267_01/app.apk`);
      expect((await api.list()).map(({ URI }) => URI)).toEqual([published.URI]);
      expect((await api.offered("2263_05")).URI).toBe(offered);
      const { URI } = await api.published({ ...build, abi: "" });
      expect(URI).toBe(`${OWN}//2267_01/app.apk`);
    }
  });

  test("are encoded on both", async () => {
    await using app = await TestApp.start({ env: { dest_uri: MIRROR, source_uri: OWN } });
    const api = await UpdateApi.of(app);
    const encoded = "My%20App%201.0%2B%C3%BC%23%3F%25.apk";
    const published = await api.published({ version: "2267_01", name: "My App 1.0+ü#?%.apk" });
    expect(published.URI).toBe(`${OWN}/arm64/2267_01/${encoded}`);
    expect((await api.offered("2263_05")).URI).toBe(`${MIRROR}/${encoded}`);
  });

  test("are taken by curl and by the strictest parsers", async () => {
    await using app = await TestApp.start();
    const api = await UpdateApi.of(app);
    const names = [
      "My App 1.0+ü#?%.apk",
      "a'b(c)*!~@:$,[x]{y}|^`;z=1&2.apk",
      "сборка \u{1f600}.apk",
    ];
    for (const name of names) {
      const { URI } = await api.published({ version: "2267_01", name });
      // Characters that RFC 2396 allows in a path, as checked by java.net.URI.
      expect(new URL(URI).pathname).toMatch(/^(?:[\w\-.~!'()*;/]|%[\dA-F]{2})+$/);
      expect(URI).toEndWith(new URL(URI).pathname);
      const curl = Bun.spawn(["curl", "-sS", "--fail", URI], { stdout: "pipe" });
      expect(await new Response(curl.stdout).text()).toBe("a build of 2267_01");
    }
  });

  test("lead to this server, as the client named it, where nothing is configured", async () => {
    await using app = await TestApp.start();
    const api = await UpdateApi.of(app);
    await api.published({ version: "2267_01" });
    const path = "/source/arm64/2267_01/app.apk";
    const [listed] = await api.list();
    for (const URI of [(await api.offered("2263_05")).URI, listed?.URI ?? ""]) {
      expect(URI).toBe(app.url + path);
      expect(await (await fetch(URI)).text()).toBe("a build of 2267_01");
    }
    using connection = await RawConnection.open(app.url);
    connection.head("GET /api/v1/updates/2263_05", { host: "updates.example:8443" });
    const { URI } = JSON.parse((await connection.response()).body.toString());
    expect(URI).toBe(`http://updates.example:8443${path}`);
  });

  test("of an offer lead to the build of the ABI, also when all builds have one name", async () => {
    await using app = await TestApp.start();
    const api = await UpdateApi.of(app);
    for (const [version, abi] of [
      ["2267_01", "arm64"],
      ["2267_01", "arm"],
      ["2266_01", "arm64"],
    ] as const)
      await api.published({ version, abi, bytes: Buffer.from(`${version} ${abi}`) });
    for (const abi of ["arm64", "arm"]) {
      const { URI, SHA256 } = await api.offered(`2263_05${abi}`);
      const answer = await fetch(URI);
      expect(await answer.text()).toBe(`2267_01 ${abi}`);
      expect(answer.headers.get("x-build-sha256")).toBe(SHA256);
    }
    const flat = await api.get("/source/app.apk");
    expect(await flat.text()).toBe("2266_01 arm64");
  });

  test("follow what a trusted proxy says of scheme and host, and nobody else", async () => {
    const forwarded = { "x-forwarded-proto": "https", "x-forwarded-host": "builds.example" };
    for (const proxies of ["127.0.0.0/8", "10.0.0.0/8"]) {
      await using app = await TestApp.start({ env: { TRUSTED_PROXIES: proxies } });
      const api = await UpdateApi.of(app);
      await api.published({ version: "2267_01" });
      const base = proxies.startsWith("127") ? "https://builds.example" : app.url;
      const { URI } = await api.offered("2263_05", "", forwarded);
      expect(URI).toBe(`${base}/source/arm64/2267_01/app.apk`);
    }
  });
});
