import { brotliCompressSync, constants, gzipSync, zstdCompressSync } from "node:zlib";

import { concat, encodeBatch, uint } from "./batches.ts";
import { BOUNDARY, type FormPart, encodePart } from "./forms.ts";
import { long } from "./hostile-heads.ts";

const MIB = 2 ** 20;
const FILE_BYTES_MAX = 10_000_000;
const FAST = { level: 1 };
const FAST_BROTLI = { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } };

/** Name of a body, its bytes, and its content coding. */
export type HostileBody = [name: string, body: Uint8Array, coding?: string];

/** JSON bodies of the maximum size in every shape. */
export function hostileJson(bytes: number): HostileBody[] {
  const pairs = (pair: (n: number) => string) => {
    const made: string[] = [];
    for (let [n, length] = [0, 0]; length < bytes - 100; n++) {
      made.push(pair(n));
      length += (made.at(-1)?.length ?? 0) + 1;
    }
    return made.join(",");
  };
  const half = Math.floor(bytes / 2) - 60;
  const sixth = Math.floor(bytes / 6) - 60;
  const texts: [string, string][] = [
    ["arrays in arrays", `{"performance":${"[".repeat(half)}${"]".repeat(half)}}`],
    ["arrays that do not end", "[".repeat(bytes)],
    ["objects in objects", `{"performance":${'{"a":'.repeat(sixth)}1${"}".repeat(sixth)}}`],
    ["numbers", `{"performance":[${pairs(() => "1")}]}`],
    ["one long number", `{"timestamp":${"9".repeat(bytes - 60)}}`],
    ["one long fraction", `{"timestamp":0.${"1".repeat(bytes - 60)}e-9}`],
    ["names", `{${pairs((n) => `"${n.toString(36)}":0`)}}`],
    ["the same name", `{${pairs(() => '"userID":""')}}`],
    ["empty texts", `{"performance":[${pairs(() => '""')}]}`],
    ["escapes", `{"userID":"${"\\u0000".repeat(sixth)}"}`],
    ["lone surrogates", `{"userID":"${"\\ud800".repeat(sixth)}"}`],
    ["spaces", `${" ".repeat(bytes - 2)}{}`],
    [
      "a long user agent's worth of text",
      `{"userDevice":"${"iPhone".repeat(sixth)}","userUUID":"${"a".repeat(200)}"}`,
    ],
    ["a version of many numbers", `{"trackerVersion":"${"1.".repeat(half)}"}`],
    ["a long token", `{"token":"${"z".repeat(half)}.0.z.z"}`],
  ];
  return texts.map(([name, json]) => [name, Buffer.from(json)]);
}

/** Returns batches of that many bytes, and compressed ones that inflate to that many or more. */
export function hostileBatches(bytes: number): HostileBody[] {
  const frame = concat([uint(1), uint(1), uint(0)]);
  const tiny = concat([encodeBatch([]), Buffer.alloc(Math.floor((bytes - 100) / 3) * 3, frame)]);
  const meta = encodeBatch([]);
  const varints = concat([meta, Buffer.alloc(bytes - 100, 0xff)]);
  const times = Buffer.alloc(
    Math.floor((bytes - 100) / 12) * 12,
    Buffer.from("64ffffffffffffff0f00", "hex").subarray(0, 10),
  );
  const zeros = concat([meta, new Uint8Array(bytes - 100)]);
  return [
    ["tiny frames", tiny],
    ["frames of large times", concat([meta, times])],
    ["bytes that are no frames", varints],
    ["zeros", zeros],
    ["tiny frames as gzip", gzipSync(tiny, FAST), "gzip"],
    ["tiny frames as gzip without a header", gzipSync(tiny, { level: 9 })],
    ["tiny frames as brotli", brotliCompressSync(tiny, FAST_BROTLI), "br"],
    ["tiny frames as zstd", zstdCompressSync(tiny), "zstd"],
    ["gzip in gzip", gzipSync(gzipSync(tiny, FAST), FAST), "gzip, gzip"],
    ["a bomb", gzipSync(new Uint8Array(100 * MIB), { level: 9 }), "gzip"],
    ["a bomb of brotli", brotliCompressSync(new Uint8Array(100 * MIB), FAST_BROTLI), "br"],
    ["a bomb of zstd", zstdCompressSync(new Uint8Array(100 * MIB)), "zstd"],
    ["a million members", Buffer.alloc(Math.floor((bytes - 100) / 20) * 20, gzipSync("")), "gzip"],
  ];
}

function file(name: string, bytes: Uint8Array): FormPart {
  return { file: name, bytes };
}

/** Makes a part's head with that disposition. */
function head(disposition: string): Uint8Array {
  const line = `Content-Disposition: form-data${disposition}`;
  return Buffer.from(`--${BOUNDARY}\r\n${line}\r\n\r\nx\r\n`);
}

function gzipped(bytes: Uint8Array): Uint8Array {
  return gzipSync(bytes, FAST);
}

/** Forms with the maximum number of parts and bytes. */
export function hostileForms(fields: FormPart[]): HostileBody[] {
  const form = (parts: Uint8Array[]) =>
    concat([...fields.flatMap(encodePart), ...parts, Buffer.from(`--${BOUNDARY}--\r\n`)]);
  const files = (count: number, part: (n: number) => FormPart) =>
    form(Array.from({ length: count }, (_, n) => n).flatMap((n) => encodePart(part(n))));
  const nearly = (text: string) => Buffer.alloc(FILE_BYTES_MAX, text);
  const header = tarHeader("0", 0);
  return [
    ["a thousand fields", files(998, (n) => ({ field: `f${n}`, value: "x".repeat(4096) }))],
    ["a thousand files", files(998, (n) => file(`f${n}`, new Uint8Array(1)))],
    ["a thousand archives", files(998, (n) => file(`f${n}.gz`, gzipSync("")))],
    [
      "a thousand headers of 16 KB",
      form(Array.from({ length: 500 }, (_, n) => head(`; name=f; filename=h${n}${long("; a=b")}`))),
    ],
    [
      "backslashes",
      form(
        Array.from({ length: 500 }, (_, n) =>
          head(`; name=f; filename=b${n}; a="${long("\\\\")}"`),
        ),
      ),
    ],
    [
      "spaces",
      form(Array.from({ length: 500 }, (_, n) => head(`; name=f; filename=s${n};${long(" ")}a=b`))),
    ],
    ["folded headers", form([head(`; name=f; filename=x${"\r\n ".repeat(5000)}`)])],
    [
      "continuations",
      form([
        head(`; name=f; ${Array.from({ length: 900 }, (_, n) => `filename*${n}*=a`).join("; ")}`),
      ]),
    ],
    ["an image", files(1, () => file("image", new Uint8Array(FILE_BYTES_MAX)))],
    ["ends of lines", files(1, () => file("lines", nearly("\r\n")))],
    [
      "what is nearly a boundary",
      files(1, () => file("nearly", nearly(`\r\n--${BOUNDARY.slice(0, -1)}`))),
    ],
    ["what begins like a boundary", files(1, () => file("begins", nearly(`\r\n--${BOUNDARY}x`)))],
    [
      "lines before it",
      concat([
        Buffer.alloc(FILE_BYTES_MAX, "\r\n"),
        files(1, () => file("late", new Uint8Array(1))),
      ]),
    ],
    [
      "a bomb",
      gzipped(files(4, (n) => file(`bomb${n}`, new Uint8Array(FILE_BYTES_MAX - 1000)))),
      "gzip",
    ],
    ["a bomb of lines", gzipped(Buffer.alloc(100 * MIB, "\n")), "gzip"],
    [
      "frames without bytes",
      files(1, () => file("frames.gz", gzipped(new Uint8Array(4 * FILE_BYTES_MAX)))),
    ],
    [
      "a tar of empty files",
      files(1, () => file("empty.tar.gz", gzipped(Buffer.alloc(512 * 900, header)))),
    ],
    [
      "a tar of PAX headers",
      files(1, () =>
        file(
          "pax.tar.gz",
          gzipped(
            concat(
              Array.from({ length: 900 }, () =>
                concat([tarHeader("x", 16_384), Buffer.alloc(16_384, "6 a=b\n"), header]),
              ),
            ),
          ),
        ),
      ),
    ],
    [
      "a tar of large PAX headers",
      files(1, () =>
        file(
          "large.tar.gz",
          gzipped(
            concat(
              Array.from({ length: 8 }, () =>
                concat([tarHeader("x", 4 * MIB), Buffer.alloc(4 * MIB, "6 a=b\n")]),
              ),
            ),
          ),
        ),
      ),
    ],
    [
      "a tar of zeros",
      files(1, () => file("zeros.tar.gz", gzipped(new Uint8Array(4 * FILE_BYTES_MAX)))),
    ],
    [
      "an archive in gzip",
      gzipped(
        files(1, () => file("twice.gz", gzipped(gzipped(new Uint8Array(4 * FILE_BYTES_MAX))))),
      ),
      "gzip",
    ],
  ];
}

function tarHeader(type: string, size: number): Buffer {
  const block = Buffer.alloc(512);
  block.write("a");
  block.write(size.toString(8).padStart(11, "0"), 124);
  block.write("        ", 148);
  block.write(type, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}
