import { beforeAll, describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { Random } from "../support/random.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { type Update, UpdateApi, aVersion, hashesOf, plainOf } from "../support/updates.ts";

const NOTHING: [number, string] = [404, "no such file\n"];
const DIGITS = "0123456789";
const LARGE = new Random(9).bytes(9_000_000);
const NAMES = [
  "app.apk",
  "We Messe 1.0 (beta).apk",
  "сборка ✓.apk",
  "a+b&c=d;e.apk",
  "a#b?c=d%2fe%zz%.apk",
  "100%25.apk",
  "a'b(c)*!~@:$,[x]{y}|^`.apk",
  "e\u0301 \u{1f600}.apk",
  "-rf",
  "a".repeat(255),
];

describe.each(["files", "s3"] as const)("a build in %s", (store) => {
  const app = TestApp.forTests({ store });
  const api = UpdateApi.forTests(app);
  let digits: Update;
  let large: Update;

  beforeAll(async () => {
    digits = await api.published({ name: "digits.apk", bytes: Buffer.from(DIGITS) });
    large = await api.published({ name: "large.apk", bytes: LARGE });
  });

  const PATHS: [string, (update: Update) => string][] = [
    ["its ABI, version and name", (one) => `/source/arm64/${one.Version}/${one.Name}`],
    ["its name", (one) => `/source/${one.Name}`],
  ];

  test.each(PATHS)("comes whole by %s, to anybody", async (_by, path) => {
    const answer = await api.get(path(digits));
    expect([answer.status, await answer.text()]).toEqual([200, DIGITS]);
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      "content-length": "10",
      "accept-ranges": "bytes",
      etag: `"${digits.SHA256}"`,
      "x-build-sha256": digits.SHA256,
      "x-content-type-options": "nosniff",
    });
    expect(answer.headers.get("x-build-signature")).toBeNull();
    const whole = await api.get(path(large));
    expect(hashesOf(await whole.bytes()).SHA256).toBe(large.SHA256);
  });

  test.each(PATHS)("answers HEAD by %s, without the bytes", async (_by, path) => {
    using connection = await RawConnection.open(app.url);
    for (const build of [digits, large]) {
      connection.head(`HEAD ${path(build)}`);
      const { status, headers } = await connection.response({ bodyless: true });
      expect([status, headers.get("etag")]).toEqual([200, `"${build.SHA256}"`]);
      const { headers: got } = await api.get(path(build), { range: "bytes=0-0" });
      expect(`bytes 0-0/${headers.get("content-length")}`).toBe(String(got.get("content-range")));
    }
    connection.head("HEAD /source/unknown.apk");
    expect((await connection.response({ bodyless: true })).status).toBe(404);
    expect(connection.rest).toHaveLength(0);
  });

  test("refuses other methods", async () => {
    for (const method of ["POST", "PUT", "DELETE", "PATCH"])
      for (const [, path] of PATHS) {
        const { status } = await app.fetch(path(digits), { method });
        expect([method, status]).toEqual([method, 405]);
      }
  });

  test.each([
    ["bytes=0-0", "0", "0-0"],
    ["bytes=2-5", "2345", "2-5"],
    ["bytes=7-", "789", "7-9"],
    ["bytes=-3", "789", "7-9"],
    ["bytes=-99", DIGITS, "0-9"],
    ["bytes=9-99", "9", "9-9"],
    ["bytes=0-", DIGITS, "0-9"],
  ])("gives %s", async (range, text, place) => {
    const answer = await api.download(digits, { range });
    expect([answer.status, await answer.text()]).toEqual([206, text]);
    expect(answer.headers.get("content-range")).toBe(`bytes ${place}/10`);
    expect(answer.headers.get("content-length")).toBe(String(text.length));
    expect(answer.headers.get("etag")).toBe(`"${digits.SHA256}"`);
  });

  test("gives ranges of a large one", async () => {
    for (const [from, to] of [
      [0, 1],
      [1_000_000, 8_999_000],
      [8_388_600, 8_388_620],
      [8_999_990, 9_000_000],
    ] as const) {
      const answer = await api.download(large, { range: `bytes=${from}-${to - 1}` });
      expect(answer.headers.get("content-range")).toBe(`bytes ${from}-${to - 1}/${LARGE.length}`);
      const { SHA256 } = hashesOf(await answer.bytes());
      expect(SHA256).toBe(hashesOf(LARGE.subarray(from, to)).SHA256);
    }
  });

  test("tells its length before it comes", async () => {
    const [whole, part] = [
      await api.download(large),
      await api.download(large, { range: "bytes=1000000-7999999" }),
    ];
    const lengths = [whole, part].map(({ headers }) => headers.get("content-length"));
    // A body that nobody reads would hold up the server's end.
    await Promise.all([whole.bytes(), part.bytes()]);
    expect(lengths).toEqual([String(LARGE.length), "7000000"]);
  });

  test.each(["bytes=10-", "bytes=10-20", "bytes=99-100", "bytes=-0"])(
    "refuses %s and says how long it is",
    async (range) => {
      const answer = await api.download(digits, { range });
      expect(answer.headers.get("content-range")).toBe("bytes */10");
      expect((await plainOf(answer))[0]).toBe(416);
    },
  );

  test.each(["bytes=5-2", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b", "bytes=-", "bytes", "0-5"])(
    "comes whole for %s",
    async (range) => {
      const answer = await api.download(digits, { range });
      expect([answer.status, await answer.text()]).toEqual([200, DIGITS]);
    },
  );

  test("goes on where the client has the same bytes, and comes whole where it has others", async () => {
    const range = "bytes=7-";
    const etag = `"${digits.SHA256}"`;
    for (const [known, status] of [
      [etag, 206],
      [`"${large.SHA256}"`, 200],
      [`W/${etag}`, 200],
      [digits.SHA256, 200],
      ["Wed, 21 Oct 2015 07:28:00 GMT", 200],
    ] as const) {
      const answer = await api.download(digits, { range, "if-range": known });
      expect([known, answer.status]).toEqual([known, status]);
      expect(await answer.text()).toBe(status === 206 ? "789" : DIGITS);
    }
    const past = await api.download(digits, { range: "bytes=99-", "if-range": '"stale"' });
    expect(past.status).toBe(200);
  });

  test("need not come again to who has it", async () => {
    const etag = `"${digits.SHA256}"`;
    for (const known of [etag, `"other", ${etag}`, `W/${etag}`, "*"]) {
      const answer = await api.download(digits, { "if-none-match": known, range: "bytes=0-1" });
      expect([answer.status, await answer.text()]).toEqual([304, ""]);
      expect(answer.headers.get("etag")).toBe(etag);
    }
    expect((await api.download(digits, { "if-none-match": '"other"' })).status).toBe(200);
  });

  test("of no bytes is whole as it is", async () => {
    const empty = await api.published({ bytes: new Uint8Array(0) });
    const answer = await api.download(empty);
    expect([answer.status, await answer.text()]).toEqual([200, ""]);
    expect(answer.headers.get("content-length")).toBe("0");
    expect((await api.download(empty, { range: "bytes=0-" })).status).toBe(416);
  });
});

describe("the name of a build", () => {
  const app = TestApp.forTests();
  const api = UpdateApi.forTests(app);

  test.each(NAMES)("may be %s", async (name) => {
    const bytes = Buffer.from(`the build ${name}`);
    const update = await api.published({ name, bytes });
    expect(update.Name).toBe(name);
    const links = [update.URI, `${app.url}/source/${encodeURIComponent(update.Name)}`];
    for (const link of links) {
      const answer = await fetch(link);
      expect([link, answer.status, await answer.text()]).toEqual([link, 200, bytes.toString()]);
    }
  });

  test("alone leads to what was uploaded last, whatever its version", async () => {
    const name = "newest.apk";
    const [older, newer] = [aVersion("05"), aVersion("01")];
    const body = async () => await (await api.get(`/source/${name}`)).text();
    await api.published({ name, version: newer, bytes: Buffer.from("1") });
    await api.published({ name, version: older, bytes: Buffer.from("2") });
    expect(await body()).toBe("2");
    // The first one again, which keeps its id.
    const { Id } = await api.published({ name, version: newer, bytes: Buffer.from("3") });
    expect(await body()).toBe("3");
    await api.patched(Id, { withdrawn: true });
    expect(await body()).toBe("2");
    await api.published({ name: "renamed.apk", version: older });
    expect(await plainOf(api.get(`/source/${name}`))).toEqual(NOTHING);
    await api.patched(Id, { withdrawn: false });
    expect(await body()).toBe("3");
  });

  test("without an ABI is found by the link that the answer has, with its doubled slash", async () => {
    const { URI, Version, Name } = await api.published({ abi: "", name: "none.apk" });
    expect(URI).toBe(`${app.url}/source//${Version}/none.apk`);
    for (const link of [URI, `${app.url}/source/${Version}/none.apk`]) {
      const answer = await fetch(link);
      expect(await answer.text()).toBe(`a build of ${Version}`);
    }
    expect((await api.download({ TargetABI: "arm", Version, Name })).status).toBe(404);
  });

  test("that is unknown, or of another build, is 404", async () => {
    const { Version } = await api.published({ abi: "arm", name: "known.apk" });
    for (const path of [
      "unknown.apk",
      `arm/${Version}/unknown.apk`,
      `arm64/${Version}/known.apk`,
      "arm/0001_01/known.apk",
      `${Version}/known.apk`,
      `ARM/${Version}/known.apk`,
      "KNOWN.apk",
    ])
      expect([path, await plainOf(api.get(`/source/${path}`))]).toEqual([path, NOTHING]);
  });

  test("leads nowhere else", async () => {
    for (const path of [
      "/source",
      "/source/",
      "/source/..%2f..%2fetc%2fpasswd",
      "/source/a%00b",
      "/source/%ff",
      "/source/arm64/..%2f..%2f/known.apk",
      "/source/a/b/c/d",
    ]) {
      using connection = await RawConnection.open(app.url);
      connection.head(`GET ${path}`);
      const { status } = await connection.response();
      expect([path, status]).toEqual([path, 404]);
    }
  });

  test("of a withdrawn build is 404", async () => {
    const update = await api.published({ name: "gone.apk", fields: { withdrawn: "true" } });
    expect(await plainOf(api.download(update))).toEqual(NOTHING);
    expect(await plainOf(api.get("/source/gone.apk"))).toEqual(NOTHING);
  });

  test("of a build for some is no secret from others", async () => {
    const update = await api.published({ fields: { channel: "beta", rollout: "0" } });
    expect((await api.download(update)).status).toBe(200);
  });
});
