import * as fc from "fast-check";
import { describe, expect, test } from "bun:test";

import { LINE_BYTES_MAX, linesOf } from "../../src/devices/lines.ts";
import { undelayedMs } from "../support/eventually.ts";

const TOO_LONG = `AppError: a line must have at most ${LINE_BYTES_MAX} bytes`;

async function* chunksOf(bytes: Uint8Array, size: number) {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function read(text: string | Uint8Array, size = 7): Promise<string[]> {
  const lines: string[] = [];
  for await (const line of linesOf(chunksOf(Buffer.from(text), size))) lines.push(String(line));
  return lines;
}

describe("lines", () => {
  test("are those of the text, however it is cut", async () => {
    const character = fc.constantFrom("a", "\n", "\r", "é", "键", "😀", "\u2028", "\0", " ");
    await fc.assert(
      fc.asyncProperty(
        fc.array(character, { maxLength: 30 }),
        fc.integer({ min: 1, max: 9 }),
        async (characters, size) => {
          const text = characters.join("");
          const lines = text.split("\n");
          if (lines.at(-1) === "") lines.pop();
          expect(await read(text, size)).toEqual(lines);
        },
      ),
    );
  });

  test("of the greatest length are read, longer ones are not, and those after them are", async () => {
    const longest = "x".repeat(LINE_BYTES_MAX);
    const text = `${longest}\n${longest}y\n${longest.repeat(3)}\n\nend\n${longest}z`;
    expect(await read(text, 65_536)).toEqual([longest, TOO_LONG, TOO_LONG, "", "end", TOO_LONG]);
  });

  test("that never end take time as they are long, and no memory", async () => {
    const chunk = Buffer.alloc(65_536, "x");
    async function* endless() {
      for (let nth = 0; nth < 4096; nth++) yield chunk.slice();
    }
    const startedMs = undelayedMs();
    const beforeBytes = process.memoryUsage.rss();
    const lines: string[] = [];
    for await (const line of linesOf(endless())) lines.push(String(line));
    expect(lines).toEqual([TOO_LONG]);
    expect(process.memoryUsage.rss() - beforeBytes).toBeLessThan(64 * 2 ** 20);
    expect(undelayedMs() - startedMs).toBeLessThan(2000);
  });

  test.each([
    [[0xff]],
    [[0xc3]],
    [[0xed, 0xa0, 0x80]],
    [[0xc0, 0x80]],
    [[0x61, 0x80, 0x62]],
    [[0xf0, 0x9f, 0x98]],
  ])("that are no UTF-8 are told alone: %j", async (bytes) => {
    const text = Buffer.concat([Buffer.from("é\n"), Buffer.from(bytes), Buffer.from("\né")]);
    for (const size of [1, 100])
      expect(await read(text, size)).toEqual(["é", "AppError: not UTF-8", "é"]);
  });

  test("begin after a byte order mark, which has no meaning elsewhere", async () => {
    for (const size of [1, 2, 100]) {
      expect(await read("\ufeff{}\n\ufeff{}", size)).toEqual(["{}", "\ufeff{}"]);
      expect(await read("\ufeff", size)).toEqual([""]);
    }
  });
});
