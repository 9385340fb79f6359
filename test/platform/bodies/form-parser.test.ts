import { describe, expect, test } from "bun:test";

import { AppError } from "../../../src/platform/errors.ts";
import { failure } from "../../support/failure.ts";
import { chunksOf, partsOf } from "../../support/form-reading.ts";
import { BOUNDARY, type FormPart, encodeForm } from "../../support/forms.ts";
import GO_FORMS from "./go-forms.json" with { type: "json" };

async function answerTo(chunks: Uint8Array[], type: string): Promise<unknown> {
  try {
    const parts = await partsOf(chunks, type);
    return parts.map((one) =>
      "file" in one
        ? { file: one.file, type: one.type, content: Buffer.from(one.bytes).toString() }
        : one,
    );
  } catch (error) {
    return error instanceof AppError ? error.code : error;
  }
}

describe("a form that Go reads or refuses", () => {
  type Vector = { type: string; body: string; answer: unknown };

  /**
   * Results of `mime/multipart` of Go 1.26; a part that Go skips silently makes a form invalid
   * here.
   */
  const vectors: Vector[] = GO_FORMS;

  test.each([1, 5, 10_000])("is read or refused alike, in chunks of %d", async (chunkBytes) => {
    for (const { type, body, answer } of vectors) {
      const bytes = Buffer.from(body);
      const cuts = Array.from(
        { length: Math.ceil(bytes.length / chunkBytes) },
        (_, n) => n * chunkBytes,
      );
      expect({ type, body, answer: await answerTo(chunksOf(bytes, cuts), type) }).toEqual({
        type,
        body,
        answer,
      });
    }
  });
});

const IMAGE: FormPart = {
  file: "a",
  type: "image/png",
  bytes: Uint8Array.from(Buffer.from("abc")),
};

/** Makes a form; B stands for the boundary. */
function form(text: string): Uint8Array {
  return Buffer.from(text.replaceAll("B", BOUNDARY));
}

describe("a boundary", () => {
  const head = 'Content-Disposition: form-data; name="f"; filename="a"\r\nContent-Type: image/png';

  test.each([
    ["is padded", `--B \t\r\n${head}\r\n\r\nabc\r\n--B--  \r\n`],
    ["is preceded by a text", `a text\r\n--Bx\r\n--B\r\n${head}\r\n\r\nabc\r\n--B--`],
    ["ends in LF like every line", `--B\n${head.replace("\r", "")}\n\nabc\n--B--\n`],
    ["is followed by a text", `--B\r\n${head}\r\n\r\nabc\r\n--B--\r\n--B\r\nmore`],
  ])("that %s is one", async (_what, text) => {
    expect(await partsOf([form(text)])).toEqual([IMAGE]);
  });

  test("that goes on with other characters is none", async () => {
    const bytes = Buffer.from(`abc\r\n--${BOUNDARY}x\r\n--${BOUNDARY}-\r\n`);
    const encoded = encodeForm([{ file: "a", bytes }]);
    for (const size of [1, 3, encoded.length]) {
      const cuts = Array.from({ length: 200 }, (_, n) => n * size);
      const parts = await partsOf(chunksOf(encoded, cuts));
      expect(parts).toEqual([{ ...IMAGE, bytes: Uint8Array.from(bytes) }]);
    }
  });

  test("may be padded with up to 16 KiB, and a text before the first one may be as long as it likes", async () => {
    const rest = `${head}\r\n\r\nabc\r\n--B--\r\n`;
    const padded = (bytes: number) =>
      form(`--B\r\n${rest.replace("--\r", `--${" ".repeat(bytes)}\r`)}`);
    expect(await partsOf([padded(16_000)])).toHaveLength(1);
    expect(await failure(partsOf([padded(17_000)]))).toMatchObject({ code: "invalid" });
    const text = chunksOf(form(`${"x".repeat(100_000)}\r\n--B\r\n${rest}`), [30_000, 60_000]);
    expect(await partsOf(text)).toHaveLength(1);
  });
});
