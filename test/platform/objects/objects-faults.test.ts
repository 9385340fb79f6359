import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { randomBytes } from "node:crypto";

import { S3Objects } from "../../../src/platform/objects/s3-objects.ts";
import { failure } from "../../support/failure.ts";
import {
  damages,
  passes,
  refuses,
  response,
  S3Proxy,
  type S3Script,
} from "../../support/s3-proxy.ts";
import { anS3Store, chunksOf } from "../../support/stores.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(300_000);

const MIB = 2 ** 20;
const BYTES = randomBytes(17 * MIB);

describe("an upload in parts through a faulty network", () => {
  test("goes on when a part, its beginning or its end fails once", async () => {
    await using t = await behindProxy(({ path }) => /uploads|partNumber|uploadId/.test(path));
    const { next } = t.proxy;
    next.push(refuses(503, "SlowDown"), passes);
    next.push(refuses(500, "InternalError"), async ({ cutRequest }) => await cutRequest(1_000_000));
    next.push(async ({ reset }) => reset());
    await t.upload();
    await t.expectStored();
  });

  test("notices a part that changed on its way, and sends it again", async () => {
    await using t = await behindProxy(({ path }) => path.includes("partNumber"));
    t.proxy.next.push(damages);
    await t.upload();
    await t.expectStored();
  });

  test.each<[string, (completed: Buffer) => Buffer | string | undefined]>([
    ["is lost", () => undefined],
    [
      "is 200 with an error",
      () => response(200, "<Error><Code>InternalError</Code><Message>x</Message></Error>"),
    ],
  ])("is stored when the answer to its completion %s", async (_what, told) => {
    await using t = await behindProxy(({ method, path }) => isComplete(method, path));
    t.proxy.next.push(async ({ forward, answer, reset }) => {
      const instead = told(await forward());
      if (instead === undefined) reset();
      else answer(instead);
    });
    await t.upload();
    await t.expectStored();
  });

  test("is completed again after 200 with an error, when nothing was stored", async () => {
    await using t = await behindProxy(({ method, path }) => isComplete(method, path));
    const error = "<Error><Code>InternalError</Code><Message>x</Message></Error>";
    t.proxy.next.push(async ({ body, answer }) => {
      await body();
      answer(response(200, error));
    });
    await t.upload();
    await t.expectStored();
  });

  test.each<[string, RegExp]>([
    ["a part", /partNumber=2/],
    ["the completion", /^(?!.*partNumber).*uploadId/],
  ])("rejects and leaves nothing when %s always fails", async (_what, which) => {
    await using t = await behindProxy(
      ({ method, path }) => method !== "DELETE" && which.test(path),
    );
    t.proxy.otherwise = refuses(503, "SlowDown");
    expect(String(await failure(t.upload()))).toContain("503 SlowDown");
    expect(t.proxy.seen.filter(({ path }) => which.test(path)).length).toBeGreaterThanOrEqual(4);
    await t.expectNothing();
  });

  test("takes back also an upload whose beginning was lost, and tries that more than once", async () => {
    await using t = await behindProxy(
      ({ method, path }) => method === "DELETE" || /\?uploads/.test(path),
    );
    t.proxy.next.push(lost, lost, lost, lost, refuses(500, "InternalError"));
    expect(await failure(t.upload())).toBeInstanceOf(Error);
    await t.expectNothing();
  });
});

test("a small upload is tried again, and stored once when only the answer was lost", async () => {
  await using t = await behindProxy(({ method }) => method === "PUT");
  t.proxy.next.push(refuses(500, "InternalError"), lost);
  await t.store.upload("small", chunksOf(BYTES.subarray(0, 1000), 10));
  expect(await Array.fromAsync(t.store.list(""))).toEqual([{ key: "small", bytes: 1000 }]);
});

test("a body that the store cuts short does not look whole to the client", async () => {
  await using t = await behindProxy(({ method }) => method === "GET");
  await t.store.put("one", BYTES.subarray(0, 4 * MIB));
  t.proxy.next.push(async ({ forward, answer }) => answer((await forward()).subarray(0, -5000)));
  using server = Bun.serve({
    port: 0,
    fetch: async () => new Response(await t.store.body("one", 0, 4 * MIB)),
  });
  const { code, bytes } = await curl(server.url.href);
  expect(code).not.toBe(0);
  expect(bytes).toBeLessThan(4 * MIB);
});

test("a link serves the object as a file of that name, without asking the store", async () => {
  await using fixture = await anS3Store();
  const { store } = fixture;
  await store.put("builds/one", Buffer.from("the bytes"));
  const name = `Überblick "1" (50%) 'x'; a=b\\.apk`;
  const url = await store.link?.("builds/one", { seconds: 60, filename: name });
  const { code, bytes, disposition } = await curl(url ?? "");
  expect({ code, bytes }).toEqual({ code: 0, bytes: 9 });
  expect(disposition).toBe(
    [
      `attachment; filename="_berblick _1_ (50_) 'x'; a=b_.apk"`,
      "filename*=UTF-8''%C3%9Cberblick%20%221%22%20%2850%25%29%20%27x%27%3B%20a%3Db%5C.apk",
    ].join("; "),
  );
  const forged = await fetch((url ?? "").replace("one?", "two?"));
  expect(forged.status).toBe(403);
  const away = new S3Objects({ ...fixture.open, endpoint: "http://127.0.0.1:1" });
  expect(await away.link("a", { seconds: 1, filename: "a" })).toStartWith(
    `http://127.0.0.1:1/${fixture.open.bucket}/floodgate/a?`,
  );
});

const lost: S3Script = async ({ forward, reset }) => {
  await forward();
  reset();
};

function isComplete(method: string, path: string): boolean {
  return method === "POST" && path.includes("uploadId");
}

async function curl(url: string) {
  const format = "%{size_download} %header{content-disposition}";
  const child = Bun.spawn(["curl", "-s", "-o", "/dev/null", "-w", format, url]);
  const [, bytes, disposition] = (await child.stdout.text()).match(/^(\d+) (.*)$/) ?? [];
  return { code: await child.exited, bytes: Number(bytes), disposition };
}

/** A store behind a proxy whose faults take the selected requests. */
async function behindProxy(selects: S3Proxy["selects"]) {
  const direct = await anS3Store();
  const proxy = await S3Proxy.open(direct.open.endpoint);
  proxy.selects = selects;
  const store = new S3Objects({ ...direct.open, endpoint: proxy.endpoint });
  return {
    proxy,
    store,
    upload: async () => await store.upload("builds/one", chunksOf(BYTES, 1_000_000)),
    expectStored: async () => {
      const stored = await direct.store.read("builds/one", 0, BYTES.length);
      expect(Buffer.from(stored).equals(BYTES)).toBe(true);
      expect(await direct.unfinished()).toEqual([]);
    },
    expectNothing: async () => {
      expect(await Array.fromAsync(direct.store.list(""))).toEqual([]);
      expect(await direct.unfinished()).toEqual([]);
    },
    [Symbol.asyncDispose]: async () => {
      await store[Symbol.asyncDispose]();
      await proxy[Symbol.asyncDispose]();
      await direct[Symbol.asyncDispose]();
    },
  };
}
