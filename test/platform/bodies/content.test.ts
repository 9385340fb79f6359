import * as zlib from "node:zlib";
import { describe, expect, test } from "bun:test";

import { bodyChunks } from "../../../src/platform/bodies/body.ts";
import { contentChunks, readContent, readEncoded } from "../../../src/platform/bodies/content.ts";
import { AppError } from "../../../src/platform/errors.ts";
import { release } from "../../../src/platform/gc.ts";
import { concat } from "../../support/batches.ts";
import { ENCODERS, codingName } from "../../support/codings.ts";
import { failure } from "../../support/failure.ts";
import { Random } from "../../support/random.ts";

const BYTES_MAX = 100_000;
const TEXT = Buffer.from(`{"text":"${"all of it, ".repeat(40)}"}`);
const NOISE = new Random(7).bytes(60_000);

function requestOf(body: Uint8Array, coding: string | undefined, chunkBytes: number): Request {
  let at = 0;
  const stream = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (at >= body.length) controller.close();
      else controller.enqueue(Uint8Array.from(body.subarray(at, (at += chunkBytes))));
    },
  });
  const headers = coding === undefined ? {} : { "content-encoding": coding };
  return new Request("http://localhost/", { method: "POST", body: stream, headers });
}

type Reader = (body: Uint8Array, coding?: string, chunkBytes?: number) => Promise<Uint8Array>;

async function whole(body: Uint8Array, coding?: string, chunkBytes = 1000): Promise<Uint8Array> {
  return await readContent(requestOf(body, coding, chunkBytes), BYTES_MAX);
}

async function streamed(body: Uint8Array, coding?: string, chunkBytes = 1000): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  const request = requestOf(body, coding, chunkBytes);
  for await (const chunk of await contentChunks(request, BYTES_MAX, bodyChunks(request.body))) {
    chunks.push(Uint8Array.from(chunk));
    release(chunk);
  }
  return concat(chunks);
}

const READERS: [string, Reader][] = [
  ["read whole", whole],
  ["read as it arrives", streamed],
];

async function refusal(reading: Promise<unknown>): Promise<string> {
  const error = await failure(reading);
  return error instanceof AppError
    ? `${error.code}: ${error.message}`
    : `no refusal: ${String(error)}`;
}

describe.each(READERS)("a body that is %s", (_how, read) => {
  test.each(Object.entries(ENCODERS))("comes out of %s as it went in", async (encoder, encode) => {
    const name = codingName(encoder);
    for (const content of [TEXT, NOISE, new Uint8Array(BYTES_MAX), new Uint8Array(1)])
      for (const chunkBytes of content === TEXT ? [1, 2, 3, 7, 1000] : [900, 50_000])
        expect(Buffer.from(await read(encode(content), name, chunkBytes))).toEqual(
          Buffer.from(content),
        );
  });

  test.each(Object.entries(ENCODERS))(
    "is refused when its %s is cut short",
    async (encoder, encode) => {
      const name = codingName(encoder);
      const encoded = encode(TEXT);
      const said = `invalid: the body is not valid ${name.replace("x-", "")}`;
      for (let bytes = 1; bytes < encoded.length; bytes++)
        expect(await refusal(read(encoded.subarray(0, bytes), name, 40))).toBe(said);
    },
  );

  test.each(Object.entries(ENCODERS))(
    "may have zeros behind its %s, and nothing else",
    async (encoder, encode) => {
      const name = codingName(encoder);
      const encoded = encode(TEXT);
      const said = `invalid: the body is not valid ${name.replace("x-", "")}`;
      for (const chunkBytes of [1, 5, encoded.length, 10_000]) {
        for (const zeros of [1, 3, 4, 512, 3000])
          expect(await read(concat([encoded, new Uint8Array(zeros)]), name, chunkBytes)).toEqual(
            Uint8Array.from(TEXT),
          );
        for (const behind of ["a", "and more", "\0and more", `${"\0".repeat(40)}x`, "\x1f\x8b"]) {
          const body = concat([encoded, Buffer.from(behind, "latin1")]);
          expect(await refusal(read(body, name, chunkBytes))).toBe(said);
        }
      }
    },
  );

  test.each(Object.entries(ENCODERS))(
    "may not grow over the limit out of %s",
    async (encoder, encode) => {
      const said = `too_large: the inflated body is over the limit of ${BYTES_MAX} bytes`;
      for (const bytes of [BYTES_MAX + 1, 5_000_000]) {
        const encoded = encode(new Uint8Array(bytes));
        expect(await refusal(read(encoded, codingName(encoder)))).toBe(said);
      }
    },
  );

  test("may be of several gzip members or zstd frames", async () => {
    const pieces = [TEXT.subarray(0, 100), TEXT.subarray(100, 101), TEXT.subarray(101)];
    for (const name of ["gzip", "zstd"]) {
      const encoded = pieces.map((piece) => ENCODERS[name]?.(piece) ?? piece);
      for (const chunkBytes of [1, 10, encoded[0]?.length ?? 0, 1000])
        expect(await read(concat(encoded), name, chunkBytes)).toEqual(Uint8Array.from(TEXT));
    }
  });

  test.each([
    ["GZIP", "gzip"],
    ["X-GZip", "gzip"],
    [" gzip ", "gzip"],
    ["gzip, identity", "gzip"],
    ["identity,gzip", "gzip"],
    ["Identity, , BR", "br"],
    ["ZSTD", "zstd"],
    ["Deflate", "deflate"],
  ])("counts as %p by %s", async (header, name) => {
    expect(await read(ENCODERS[name]?.(TEXT) ?? TEXT, header)).toEqual(Uint8Array.from(TEXT));
  });

  test("may have two codings, of which the last is taken off first", async () => {
    const encoded = zlib.brotliCompressSync(zlib.gzipSync(TEXT));
    expect(await read(encoded, "gzip, br")).toEqual(Uint8Array.from(TEXT));
    expect(await refusal(read(encoded, "br, gzip"))).toBe("invalid: the body is not valid gzip");
  });

  test.each(["", "identity", "identity, identity", " , "])(
    "is plain with the coding %p",
    async (header) => {
      expect(await read(TEXT, header)).toEqual(Uint8Array.from(TEXT));
    },
  );

  test("is taken for gzip where it begins so and no header tells of it", async () => {
    expect(await read(zlib.gzipSync(TEXT))).toEqual(Uint8Array.from(TEXT));
    expect(await read(zlib.gzipSync(TEXT), "identity", 1)).toEqual(Uint8Array.from(TEXT));
    expect(await read(zlib.gzipSync(zlib.gzipSync(TEXT)), "gzip")).toEqual(Uint8Array.from(TEXT));
    expect(await refusal(read(zlib.gzipSync(new Uint8Array(BYTES_MAX + 1))))).toStartWith(
      "too_large",
    );
  });

  test("is refused with any other coding, and told which it may have", async () => {
    for (const header of [
      "utf-8",
      "compress",
      "gzip;q=1",
      "gzip br",
      "gzip,gzip,gzip",
      "x".repeat(9000),
      `${",".repeat(9000)}lzma`,
    ]) {
      const error = await failure(read(TEXT, header));
      expect(error).toMatchObject({
        code: "unsupported_coding",
        headers: { "accept-encoding": "gzip, deflate, br, zstd" },
      });
      expect(String(error).length).toBeLessThan(200);
    }
  });
});

test("a body is kept as it was sent, also when another thread inflates it", async () => {
  for (const [encoder, encode] of Object.entries(ENCODERS)) {
    const encoded = encode(NOISE);
    // In one chunk, which the inflating may not free.
    const request = requestOf(encoded, codingName(encoder), encoded.length);
    const { sent, content } = await readEncoded(request, BYTES_MAX);
    expect(Buffer.from(sent).equals(encoded)).toBe(true);
    expect(Buffer.from(content).equals(NOISE)).toBe(true);
  }
});

function frame(content: Uint8Array, params: Record<number, number>): Uint8Array {
  return zlib.zstdCompressSync(content, { params });
}

describe("a zstd frame", () => {
  const {
    ZSTD_c_windowLog: windowLog,
    ZSTD_c_checksumFlag: checksum,
    ZSTD_c_contentSizeFlag: size,
  } = zlib.constants;

  test.each(READERS)("of every kind is %s", async (_how, read) => {
    const skippable = Buffer.from("502a4d1803000000616263", "hex");
    for (const content of [TEXT, NOISE, new Uint8Array(90_000), new Uint8Array()])
      for (const params of [{}, { [checksum]: 1 }, { [size]: 0 }, { [size]: 0, [windowLog]: 10 }]) {
        const encoded = frame(content, params);
        for (const body of [encoded, concat([skippable, encoded]), concat([encoded, skippable])])
          expect(Buffer.from(await read(body, "zstd", body.length < 1000 ? 13 : 9001))).toEqual(
            Buffer.from(content),
          );
      }
  });

  test.each(READERS)(
    "that needs a window over 8 MiB is refused before it is inflated, %s",
    async (_how, read) => {
      // Magic number, descriptor, a window of 128 MiB, and an empty last block.
      const body = Buffer.from("28b52ffd008801000000", "hex");
      expect(await refusal(read(body, "zstd"))).toBe("invalid: the body is not valid zstd");
      const single = Buffer.from("28b52ffde0000000400000000001000000", "hex");
      expect(await refusal(read(single, "zstd"))).toBe("invalid: the body is not valid zstd");
    },
  );
});
