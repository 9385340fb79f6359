import { describe, expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { createServer, type Socket } from "node:net";

import {
  ObjectConflict,
  ObjectDamaged,
  ObjectMissing,
} from "../../../src/platform/objects/objects.ts";
import { S3Objects, type S3Options } from "../../../src/platform/objects/s3-objects.ts";
import { failure } from "../../support/failure.ts";

const BODY = randomBytes(2_000_000);
const ETAG = `"${createHash("md5").update(BODY).digest("hex")}"`;
const SECRETS = { accessKeyId: "AKIAVERYPRIVATE", secretAccessKey: "a-very-secret-key" };

describe("a PUT is never a success", () => {
  test.each<[string, (request: Request) => Response]>([
    ["500", () => s3Error(500, "InternalError")],
    ["503 SlowDown", () => s3Error(503, "SlowDown")],
    ["403", () => s3Error(403, "SignatureDoesNotMatch")],
    ["404 for the bucket", () => s3Error(404, "NoSuchBucket")],
    [
      "409 for a race that the store could not settle",
      () => s3Error(409, "ConditionalRequestConflict"),
    ],
    ["501 whatever is asked", () => s3Error(501, "NotImplemented")],
    ["a proxy's page", () => new Response("<html>no upstream<br>", { status: 502 })],
    [
      "a redirect",
      ({ url }) =>
        url.endsWith("/elsewhere") ? stored(ETAG) : Response.redirect("/elsewhere", 307),
    ],
    ["200 without an ETag, as no store answers", () => new Response("hello")],
  ])("when the answer is %s", async (_answer, answer) => {
    await using store = fakeStore(answer);
    const error = await failure(store.objects.put("key", BODY));
    expect(error).toBeInstanceOf(Error);
    expect(error).not.toBeInstanceOf(ObjectConflict);
    expect(error).not.toBeInstanceOf(ObjectMissing);
  });

  test.each<[string, (socket: Socket) => unknown]>([
    ["resets the connection", (socket) => socket.resetAndDestroy()],
    ["closes it without an answer", (socket) => socket.end()],
    ["closes it within the answer", (socket) => socket.end(`HTTP/1.1 200 OK\r\nETag: ${ETAG}\r\n`)],
    ["stalls", () => undefined],
    ["stalls within the answer", (socket) => socket.write("HTTP/1.1 200 OK\r\nETag: ")],
  ])("when the store %s", async (_fault, fault) => {
    await using store = await rawStore(fault, { putTimeoutMs: 300 });
    expect(await failure(store.objects.put("key", BODY))).toBeInstanceOf(Error);
  });

  test("when nobody listens", async () => {
    const objects = new S3Objects(options("http://127.0.0.1:1"));
    expect(await failure(objects.put("key", BODY))).toBeInstanceOf(Error);
  });
});

describe("412 is settled by what the store holds", () => {
  test("our own bytes: an earlier attempt succeeded", async () => {
    await using store = taken({ etag: ETAG }, whole(BODY));
    await store.objects.put("key", BODY);
  });

  test("other bytes of the same length: a conflict", async () => {
    await using store = taken({ etag: ETAG }, whole(randomBytes(BODY.length)));
    expect(await failure(store.objects.put("key", BODY))).toBeInstanceOf(ObjectConflict);
  });

  test("a longer object that begins with our bytes: a conflict", async () => {
    const beginning = BODY.subarray(0, 1_000_000);
    await using store = taken({ etag: ETAG }, whole(beginning));
    expect(await failure(store.objects.put("key", beginning))).toBeInstanceOf(ObjectConflict);
  });

  test("a store that refuses HEAD is asked with GET alone", async () => {
    await using same = refusing(BODY);
    await same.objects.put("key", BODY);
    await using other = refusing(randomBytes(BODY.length));
    expect(await failure(other.objects.put("key", BODY))).toBeInstanceOf(ObjectConflict);
  });

  test("the store cannot tell now: neither success nor conflict", async () => {
    await using store = taken({ etag: ETAG });
    expect(await failure(store.objects.put("key", BODY))).not.toBeInstanceOf(ObjectConflict);
    expect(await failure(store.objects.put("key", BODY))).toBeInstanceOf(Error);
  });
});

test("a PUT asks for a new name and lets the store check the bytes", async () => {
  await using store = fakeStore(() => stored(ETAG));
  await store.objects.put("a/key", BODY);
  const [request] = store.requests;
  expect(request?.url).toEndWith("/bucket/a/key?x-id=PutObject");
  expect(request?.headers.get("if-none-match")).toBe("*");
  expect(request?.headers.get("x-amz-content-sha256")).toBe(
    createHash("sha256").update(BODY).digest("hex"),
  );
  expect(request?.headers.get("authorization")).toContain("x-amz-content-sha256");
});

test("a store without conditional PUT is asked without it from then on", async () => {
  await using store = fakeStore(({ headers }) =>
    headers.has("if-none-match") ? s3Error(501, "NotImplemented") : stored(ETAG),
  );
  await store.objects.put("one", BODY);
  await store.objects.put("two", BODY);
  expect(store.requests.map(({ headers }) => headers.get("if-none-match"))).toEqual([
    "*",
    null,
    null,
  ]);
});

describe("a read is never short", () => {
  test.each<[string, (socket: Socket) => unknown]>([
    ["is cut", (socket) => socket.end(partial(100) + "x".repeat(50))],
    [
      "is reset",
      (socket) => socket.write(partial(100) + "x".repeat(50), () => socket.resetAndDestroy()),
    ],
    ["is shorter than its range", (socket) => socket.end(partial(50) + "x".repeat(50))],
    ["is longer than its range", (socket) => socket.end(partial(150) + "x".repeat(150))],
    ["is another range", (socket) => socket.end(partial(100, "bytes 1-100/500") + "x".repeat(100))],
    [
      "names a smaller range",
      (socket) => socket.end(partial(50, "bytes 0-49/50") + "x".repeat(50)),
    ],
    [
      "is the whole object",
      (socket) => socket.end(`HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n${"x".repeat(500)}`),
    ],
    ["never begins", () => undefined],
    ["stalls", (socket) => socket.write(partial(100) + "x".repeat(50))],
  ])("when the answer %s", async (_fault, fault) => {
    await using store = await rawStore(fault, { stallTimeoutMs: 300 });
    const error = await failure(store.objects.read("key", 0, 100));
    expect(error).toBeInstanceOf(Error);
    expect(error).not.toBeInstanceOf(ObjectMissing);
  });

  test("but may take long, as long as bytes arrive", async () => {
    await using store = await rawStore(
      async (socket) => {
        socket.write(partial(100));
        for (let i = 0; i < 10; i++) {
          await Bun.sleep(60);
          socket.write("x".repeat(10));
        }
      },
      { stallTimeoutMs: 300 },
    );
    expect(await store.objects.read("key", 0, 100)).toEqual(Buffer.alloc(100, "x"));
  });
});

test("only a missing key is ObjectMissing, not a missing bucket", async () => {
  await using noKey = fakeStore(() => s3Error(404, "NoSuchKey"));
  expect(await failure(noKey.objects.read("key", 0, 1))).toBeInstanceOf(ObjectMissing);
  await using noBucket = fakeStore(() => s3Error(404, "NoSuchBucket"));
  expect(await failure(noBucket.objects.read("key", 0, 1))).not.toBeInstanceOf(ObjectMissing);
});

test("an object that the store denies is damaged, if others can be read", async () => {
  let isWritten = false;
  await using store = fakeStore(({ url, method }) => {
    if (!url.includes("/health/probe")) return denied();
    if (method !== "PUT") return isWritten ? whole(BODY.subarray(0, 1)) : denied();
    isWritten = true;
    return stored(ETAG);
  });
  for (let nth = 0; nth < 2; nth++)
    expect(await failure(store.objects.read("key", 0, 1))).toBeInstanceOf(ObjectDamaged);
  // One to find out what the store verifies, and one that can then be read.
  expect(store.probes.filter(({ method }) => method === "PUT")).toHaveLength(2);
  await using shut = fakeStore(denied);
  expect(String(await failure(shut.objects.read("key", 0, 1)))).toContain("403 AccessDenied");
});

test("a list whose second page fails rejects", async () => {
  const page = `<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>next</NextContinuationToken><Contents><Key>a</Key><Size>1</Size></Contents></ListBucketResult>`;
  await using store = fakeStore(({ url }) =>
    url.includes("continuation-token") ? s3Error(503, "SlowDown") : new Response(page),
  );
  expect(await failure(Array.fromAsync(store.objects.list("")))).toBeInstanceOf(Error);
});

test("an abort in the middle of an upload ends it at once, with the caller's reason", async () => {
  await using store = await rawStore(() => undefined);
  const [reason, abort] = [new Error("shutting down"), new AbortController()];
  setTimeout(() => abort.abort(reason), 100);
  const began = performance.now();
  expect(await failure(store.objects.put("key", BODY, abort.signal))).toBe(reason);
  expect(performance.now() - began).toBeLessThan(8_000);
});

test("errors say what failed and hold no credentials", async () => {
  await using store = fakeStore(() => s3Error(403, "InvalidAccessKeyId"));
  for (const error of [
    await failure(store.objects.put("some/key", BODY)),
    await failure(store.objects.read("some/key", 0, 1)),
  ]) {
    expect(String(error)).toMatch(/(PUT|GET) some\/key: 403 InvalidAccessKeyId/);
    const shown = Bun.inspect(error, { depth: 10 });
    for (const secret of Object.values(SECRETS)) expect(shown).not.toContain(secret);
  }
});

function options(endpoint: string): S3Options {
  return { bucket: "bucket", region: "us-east-1", endpoint, ...SECRETS };
}

/** An S3 endpoint that takes whole requests and answers as told. */
function fakeStore(answer: (request: Request) => Response) {
  const requests: Request[] = [];
  const probes: Request[] = [];
  const server = Bun.serve({
    port: 0,
    async fetch(request) {
      await request.arrayBuffer();
      // The client writes it to find out what the store verifies.
      (request.url.includes("/health/probe") ? probes : requests).push(request);
      return answer(request);
    },
  });
  return {
    objects: new S3Objects(options(server.url.origin)),
    requests,
    probes,
    [Symbol.asyncDispose]: () => server.stop(true),
  };
}

/** One that does as told with the bare connection, in the middle of an upload. */
async function rawStore(fault: (socket: Socket) => unknown, limits: Partial<S3Options> = {}) {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => fault(socket));
  });
  const { promise: listening, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await listening;
  const address = server.address();
  const port = typeof address === "object" ? address?.port : undefined;
  return {
    objects: new S3Objects({ ...options(`http://127.0.0.1:${port}`), ...limits }),
    [Symbol.asyncDispose]: async () => void server.close(),
  };
}

const stored = (etag: string) => new Response(null, { headers: { etag } });

const s3Error = (status: number, code: string) =>
  new Response(
    `<Error><Code>${code}</Code><Message>Told so.</Message><AWSAccessKeyId>${SECRETS.accessKeyId}</AWSAccessKeyId></Error>`,
    { status },
  );

const denied = () => s3Error(403, "AccessDenied");
/** A store that has the key with these bytes already, and refuses HEAD. */
const refusing = (bytes: Uint8Array) =>
  fakeStore(({ method, headers }) => {
    if (method === "PUT") return s3Error(412, "PreconditionFailed");
    if (method === "HEAD") return s3Error(403, "Forbidden");
    const end = headers.get("range") === "bytes=0-0" ? 1 : bytes.length;
    return new Response(bytes.subarray(0, end), {
      status: 206,
      headers: { etag: ETAG, "content-range": `bytes 0-${end - 1}/${bytes.length}` },
    });
  });

/** A store that has the key already, with these headers, and answers a GET as given. */
const taken = (headers: Record<string, string>, get?: Response) =>
  fakeStore(({ method }) => {
    if (method === "PUT") return s3Error(412, "PreconditionFailed");
    return method === "HEAD"
      ? new Response(BODY, { headers })
      : (get ?? s3Error(500, "InternalError"));
  });

const whole = (body: Uint8Array<ArrayBuffer>) =>
  new Response(body, {
    status: 206,
    headers: { "content-range": `bytes 0-${body.length - 1}/${BODY.length}` },
  });

const partial = (bytes: number, range = "bytes 0-99/500") =>
  `HTTP/1.1 206 Partial Content\r\nContent-Length: ${bytes}\r\nContent-Range: ${range}\r\n\r\n`;
