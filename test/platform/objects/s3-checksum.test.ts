import { randomBytes } from "node:crypto";
import { describe, expect, test } from "bun:test";

import { type PutObjectCommand } from "@aws-sdk/client-s3";

import { Checksums } from "../../../src/platform/objects/s3-checksum.ts";
import { S3Failure } from "../../../src/platform/objects/s3-deadline.ts";
import { S3Objects } from "../../../src/platform/objects/s3-objects.ts";
import { failure } from "../../support/failure.ts";

const BODY = randomBytes(3_000_000);
const CRC32 = "x-amz-checksum-crc32";
const OTHER = "AAAAAA==";

type Answer = (request: Request, isRight: boolean) => Response | undefined;

describe("uploads are verified by", () => {
  test("CRC-32 where the store refuses a wrong one and answers with the right one", async () => {
    await using store = fakeStore((_request, isRight) => (isRight ? undefined : refusal(400)));
    await store.objects.put("one", BODY);
    await store.objects.put("two", BODY);
    expect(store.probes).toEqual([OTHER_SUM, RIGHT_SUM]);
    expect(store.uploads).toEqual([
      { crc32: sumOf(BODY), sha256: "UNSIGNED-PAYLOAD" },
      { crc32: sumOf(BODY), sha256: "UNSIGNED-PAYLOAD" },
    ]);
  });

  test.each<[string, Answer, number]>([
    ["ignores a CRC-32", () => plain(), 1],
    ["refuses the header", ({ headers }) => (headers.has(CRC32) ? refusal(501) : plain()), 2],
    ["refuses wrong ones and confirms nothing", (_, right) => (right ? plain() : refusal(400)), 2],
    ["miscomputes it", (_, right) => (right ? confirmed(OTHER) : refusal(400)), 2],
  ])("a signed SHA-256 where the store %s", async (_what, answer, probes) => {
    await using store = fakeStore(answer);
    await store.objects.put("one", BODY);
    await store.objects.put("two", BODY);
    expect(store.probes).toHaveLength(probes);
    const sha256 = new Bun.CryptoHasher("sha256").update(BODY).digest("hex");
    expect(store.uploads).toEqual([
      { crc32: null, sha256 },
      { crc32: null, sha256 },
    ]);
  });

  test("a signed SHA-256 while the store does not tell, and CRC-32 once it is asked again and does", async () => {
    let nowMs = 0;
    let isAway = true;
    let asked = 0;
    const checksums = new Checksums({ Bucket: "b", Key: "k", Body: PROBE }, () => nowMs);
    const send = async ({ input }: PutObjectCommand) => {
      asked++;
      await Bun.sleep(1);
      if (isAway) throw new Error("reset");
      if (input.ChecksumCRC32 !== RIGHT_SUM) throw new S3Failure("PUT", badDigest());
      return { ETag: "1", ChecksumCRC32: RIGHT_SUM };
    };
    const kind = async () => {
      const { input } = await checksums.of(BODY, new AbortController().signal, send);
      return input.ChecksumCRC32 === undefined ? "sha256" : "crc32";
    };
    expect(await Promise.all([kind(), kind(), kind()])).toEqual(["sha256", "sha256", "sha256"]);
    isAway = false;
    expect(await kind()).toBe("sha256");
    expect(asked).toBe(1);
    nowMs += 60_000;
    expect(await Promise.all([kind(), kind()])).toEqual(["crc32", "crc32"]);
    expect(asked).toBe(3);
  });
});

test("a PUT whose answer has the CRC-32 of other bytes is no success", async () => {
  await using store = fakeStore(({ url }, isRight) => {
    if (!isRight) return refusal(400);
    return url.includes("/health/probe") ? undefined : confirmed(OTHER);
  });
  expect(String(await failure(store.objects.put("key", BODY)))).toContain("other bytes");
});

const PROBE = Buffer.from("Written now and then to see whether the store takes writes.\n");
const RIGHT_SUM = sumOf(PROBE);
const OTHER_SUM = sumOf(Buffer.concat([PROBE, Buffer.from("x")]));

function sumOf(body: Uint8Array): string {
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(Bun.hash.crc32(body));
  return sum.toString("base64");
}

/** A store that confirms a CRC-32, unless `answer` says something else. */
function fakeStore(answer: Answer) {
  const probes: (string | null)[] = [];
  const uploads: { crc32: string | null; sha256: string | null }[] = [];
  const server = Bun.serve({
    port: 0,
    async fetch(request) {
      const body = await request.bytes();
      const crc32 = request.headers.get(CRC32);
      const isRight = crc32 === null || crc32 === sumOf(body);
      if (request.url.includes("/health/probe")) probes.push(crc32);
      else uploads.push({ crc32, sha256: request.headers.get("x-amz-content-sha256") });
      return answer(request, isRight) ?? (crc32 === null ? plain() : confirmed(crc32));
    },
  });
  const objects = new S3Objects({
    bucket: "bucket",
    region: "us-east-1",
    endpoint: server.url.origin,
    accessKeyId: "key",
    secretAccessKey: "secret",
  });
  return { objects, probes, uploads, [Symbol.asyncDispose]: () => server.stop(true) };
}

function plain(): Response {
  return new Response(null, { headers: { etag: '"1"' } });
}

function confirmed(crc32: string): Response {
  return new Response(null, { headers: { etag: '"1"', [CRC32]: crc32 } });
}

function refusal(status: number): Response {
  return new Response("<Error><Code>Refused</Code><Message>x</Message></Error>", { status });
}

function badDigest(): Error {
  return Object.assign(new Error("bad"), { name: "BadDigest", $metadata: { httpStatusCode: 400 } });
}
