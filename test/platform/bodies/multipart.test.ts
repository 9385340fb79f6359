import * as fc from "fast-check";
import { describe, expect, test } from "bun:test";

import { AppError } from "../../../src/platform/errors.ts";
import { failure } from "../../support/failure.ts";
import { chunksOf, partsOf } from "../../support/form-reading.ts";
import { BOUNDARY, type FormPart, encodeForm } from "../../support/forms.ts";

const TYPE = `multipart/form-data; boundary=${BOUNDARY}`;

/** Bytes that resemble what separates parts, without ever being it. */
const fragment = fc.oneof(
  fc.constantFrom("\r", "\n", "-", "--", "\r\n", "\r\n--", `\r\n--${BOUNDARY.slice(0, -1)}`, "\0"),
  fc.constantFrom(`--${BOUNDARY}`, `\r\n-${BOUNDARY}`, `\n--${BOUNDARY}--`, "\r\n\r\n"),
  fc.string({ maxLength: 5 }),
);
const content = fc
  .array(fragment, { maxLength: 12 })
  .map((pieces) => Buffer.from(pieces.join("")))
  .filter((bytes) => !bytes.includes(`\r\n--${BOUNDARY}`))
  // What begins a part is preceded by the end of a line.
  .filter((bytes) => !bytes.toString("latin1").startsWith(`--${BOUNDARY}`));
const name = fc.stringMatching(/^[\w .;=+%'()-]{1,20}$/);
const part: fc.Arbitrary<FormPart> = fc.oneof(
  fc.record({ field: name, value: content.map((bytes) => bytes.toString("latin1")) }),
  fc.record({ file: name, bytes: content.map((bytes) => new Uint8Array(bytes)) }),
);
const form = fc.array(part, { minLength: 1, maxLength: 6 });

function read(parts: FormPart[]): FormPart[] {
  return parts.map((one) => ("file" in one ? { type: "image/png", ...one } : one));
}

describe("a form", () => {
  test("is read as it was written, however its bytes are cut into chunks", async () => {
    await fc.assert(
      fc.asyncProperty(form, fc.array(fc.nat(), { maxLength: 8 }), async (parts, cuts) => {
        expect(await partsOf(chunksOf(encodeForm(parts), cuts))).toEqual(read(parts));
      }),
      { numRuns: 2000 },
    );
  });

  test("is read from two chunks, wherever they meet", async () => {
    const parts: FormPart[] = [
      { field: "projectID", value: "1" },
      { file: "a", bytes: Buffer.from("--\r\n--\r\r\n") },
      { file: "empty", bytes: new Uint8Array() },
      { file: "截图 😀", bytes: Buffer.from(`--${BOUNDARY}`.slice(1)) },
    ];
    for (const end of [`--${BOUNDARY}--\r\n`, `--${BOUNDARY}--`, `--${BOUNDARY}--\r\nepilogue--`]) {
      const bytes = encodeForm(parts, end);
      for (let cut = 0; cut <= bytes.length; cut++)
        expect(await partsOf(chunksOf(bytes, [cut]))).toEqual(
          read(parts).map((one) =>
            "file" in one ? { ...one, bytes: Uint8Array.from(one.bytes) } : one,
          ),
        );
    }
  });

  test("is read from chunks of every small size", async () => {
    const parts: FormPart[] = [
      { field: "type", value: "frames" },
      { file: "a-b--c", bytes: Buffer.from("-".repeat(50)) },
      { file: "z", bytes: Buffer.from("\r\n".repeat(20)) },
    ];
    const bytes = encodeForm(parts);
    for (let size = 1; size <= 40; size++) {
      const cuts = Array.from({ length: Math.floor(bytes.length / size) }, (_, n) => n * size);
      expect(await partsOf(chunksOf(bytes, cuts))).toMatchObject(
        parts.map((one) => ("file" in one ? { ...one, bytes: Uint8Array.from(one.bytes) } : one)),
      );
    }
  });

  test("that ends early is cut short, wherever it ends", async () => {
    const bytes = encodeForm([
      { field: "projectID", value: "1" },
      { file: "a", bytes: Buffer.from("abc") },
    ]);
    for (let end = 0; end < bytes.length - 2; end++) {
      const error = await failure(partsOf([bytes.slice(0, end)]));
      expect(error).toMatchObject({ code: "invalid", message: "the form was cut short" });
    }
  });

  test("of arbitrary bytes is read or refused, and never anything else", async () => {
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 20 }),
      fragment.map((text) => new Uint8Array(Buffer.from(text))),
      fc
        .constantFrom(
          `\r\n--${BOUNDARY}\r\n`,
          `\r\n--${BOUNDARY}--`,
          'Content-Disposition: form-data; name="a"; filename="b"\r\n\r\n',
          'Content-Disposition: form-data; name="a"\r\n\r\n',
          "Content-Disposition: form-data; name*=UTF-8''%zz\r\n",
          ": \r\n",
        )
        .map((text) => new Uint8Array(Buffer.from(text))),
    );
    const outcomes = new Set<string>();
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 20 }), async (chunks) => {
        const error = await failure(partsOf(chunks));
        if (error !== undefined) expect(error).toBeInstanceOf(AppError);
        outcomes.add(error instanceof AppError ? error.code : "read");
      }),
      { numRuns: 3000 },
    );
    expect([...outcomes].toSorted()).toEqual(["invalid", "read"]);
  });
});

function partWith(headers: string): Uint8Array {
  return Buffer.from(`--${BOUNDARY}\r\n${headers}\r\n\r\nabc\r\n--${BOUNDARY}--\r\n`);
}

describe("the parts' headers", () => {
  test.each<[string, string]>([
    ['Content-Disposition: form-data; name="f"; filename="a.png"', "a.png"],
    ["content-disposition:form-data;name=f;filename=a.png", "a.png"],
    ['CONTENT-DISPOSITION: FORM-DATA; NAME="f"; FILENAME="a.png"', "a.png"],
    ['Content-Disposition: form-data; filename="a.png"; name="f"', "a.png"],
    ['Content-Type: image/png\r\nContent-Disposition: form-data; name="f"; filename="a"', "a"],
    ["Content-Disposition: form-data; name=f; filename*=UTF-8''%e2%82%ac", "€"],
    ['Content-Disposition: form-data; name="f"; filename="käse"', "käse"],
    ['Content-Disposition: form-data; name="f"; filename="截图.png"', "截图.png"],
    ['Content-Disposition: form-data; name="f"; filename="😀"', "😀"],
    ['Content-Disposition: form-data; name="Bild №1"; filename="a"', "a"],
    ['Content-Disposition: form-data; name="f"; filename="a\tb"', "a\tb"],
    ['Content-Disposition: form-data; name="f"; filename=""', ""],
    ['Content-Disposition: form-data; name="f"; filename="a\\"b"', 'a"b'],
    ['Content-Disposition: form-data; name="f"; filename="C:\\dir\\a.png"', "C:\\dir\\a.png"],
    ['Content-Disposition: form-data; name="f"; filename="a.png";', "a.png"],
    ['Content-Disposition: form-data ;\tname = "f" ;filename= "a.png" ', "a.png"],
    ['Content-Disposition: form-data;\r\n name="f";\r\n\tfilename="a.png"', "a.png"],
    ['Content-Disposition:\r\n form-data; name="f"; filename="a.png"', "a.png"],
    ["Content-Disposition: form-data; name=f; filename=a; filename*=utf-8'en'%e2%82%ac", "€"],
    ["Content-Disposition: form-data; name=f; filename=a; filename*=latin9''%a4", "a"],
    [
      "Content-Disposition: form-data; name=f; filename*0=a; filename*1*=%2e; filename*2=png",
      "a.png",
    ],
    [
      'Content-Disposition: form-data; name="a"; filename="a"\r\nContent-Disposition: form-data; name="b"',
      "a",
    ],
  ])("%s name the file %p", async (headers, file) => {
    const [first] = await partsOf([partWith(headers)]);
    expect(first).toMatchObject({ file, bytes: Uint8Array.from(Buffer.from("abc")) });
  });

  test.each([
    "Content-Type: image/png",
    "X-Nothing: here",
    "Content-Disposition: ",
    'Content-Disposition: "form-data"; filename="a"',
    'Content-Disposition: form-data; filename="a"',
    "Content-Disposition: form-data; name=f; filename*=UTF-8''%zz",
    'Content-Disposition: form-data; name="f"; filename="a\u0001b"',
    'Content-Disposition form-data; name="f"; filename="a"',
  ])("%j make the form malformed, since nobody knows what the part is", async (headers) => {
    const error = await failure(partsOf([partWith(headers)]));
    expect(error).toMatchObject({ code: "invalid", message: "the form is malformed" });
  });

  test("are at most a hundred", async () => {
    const disposition = 'Content-Disposition: form-data; name="f"; filename="a"';
    const fits = partWith(disposition + "\r\nX: y".repeat(99));
    expect(await partsOf([fits])).toHaveLength(1);
    const over = partWith(disposition + "\r\nX: y".repeat(100));
    expect(await failure(partsOf([over]))).toMatchObject({ code: "invalid" });
  });

  test("may take up to 16 KiB", async () => {
    const disposition = 'Content-Disposition: form-data; name="f"; filename="a"';
    const fits = partWith(`${disposition}\r\nX-Padding: ${"x".repeat(16_000)}`);
    expect(await partsOf([fits])).toHaveLength(1);
    const over = partWith(`${disposition}\r\nX-Padding: ${"x".repeat(17_000)}`);
    expect(await failure(partsOf([over]))).toMatchObject({ code: "invalid" });
  });
});

describe("the request's content type", () => {
  const bytes = encodeForm([{ field: "a", value: "1" }]);

  test.each([
    TYPE,
    `multipart/form-data; boundary="${BOUNDARY}"`,
    `Multipart/Form-Data; charset=utf-8; boundary=${BOUNDARY}`,
    `multipart/form-data;boundary=${BOUNDARY}`,
    `multipart/form-data; boundary=${BOUNDARY};`,
    `multipart/form-data; boundary=${BOUNDARY} ; `,
    ` multipart/form-data ;\tBOUNDARY = ${BOUNDARY}`,
    `multipart/form-data; boundary=${BOUNDARY}; boundary=${BOUNDARY}`,
  ])("%s is read", async (contentType) => {
    expect(await partsOf([bytes], contentType)).toEqual([{ field: "a", value: "1" }]);
  });

  test.each([
    "application/json",
    "multipart/mixed; boundary=x",
    "multipart/form-dataX; boundary=x",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    'multipart/form-data; boundary=""',
    "multipart/form-data; charset=utf-8",
    `multipart/form-data; boundary=${"x".repeat(1001)}`,
    "",
  ])("%p is not supported", async (contentType) => {
    expect(await failure(partsOf([bytes], contentType))).toMatchObject({
      code: "unsupported_media",
    });
  });
});
