import * as fc from "fast-check";
import { describe, expect, test } from "bun:test";

import { AppError } from "../../src/platform/errors.ts";
import { stringifyExact } from "../../src/wire/exact-json.ts";
import { type Install, parseInstall } from "../../src/updates/install-schema.ts";
import { USER } from "../support/users.ts";

const INTEGERS = ["ID", "SessionActivity", "SessionID", "SessionRegister"] as const;
const TEXTS = Object.entries(USER)
  .filter(([, value]) => typeof value === "string")
  .map(([name]) => name);
const ZERO = Object.fromEntries(
  Object.entries(USER).map(([name, value]) => [name, typeof value === "string" ? "" : 0n]),
);

const int64 = fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n);
const text = fc
  .string({ unit: "grapheme", maxLength: 100 })
  .filter((one) => !one.includes("\0") && one.isWellFormed() && Buffer.byteLength(one) <= 255);
const user = fc.record<Install>({
  ID: int64,
  AppLocale: text,
  AppVersion: text,
  DeviceLocale: text,
  DeviceMac: text,
  DeviceModel: text,
  DeviceSDK: text,
  SessionActivity: int64,
  SessionID: int64,
  SessionRegister: int64,
  TgVersion: text,
  TargetABI: text,
});

function parse(json: string): Install {
  return parseInstall(Buffer.from(json));
}

const REFUSED = "invalid CreateConfigHandler read invalid params";

function refusal(body: string | Uint8Array): string | undefined {
  try {
    parseInstall(typeof body === "string" ? Buffer.from(body) : body);
    return undefined;
  } catch (error) {
    return error instanceof AppError ? `${error.code} ${error.message}` : String(error);
  }
}

test("every user comes back as it was, in the order of the wire", () => {
  fc.assert(
    fc.property(user, fc.func(fc.integer()), (given, order) => {
      const shuffled = Object.entries(given).toSorted(([a], [b]) => order(a) - order(b));
      const parsed = parse(stringifyExact(Object.fromEntries(shuffled)));
      expect(Object.entries(parsed)).toEqual(Object.entries(given));
    }),
  );
});

test("names count in any case, unknown ones do not", () => {
  const upper = fc.array(fc.boolean(), { minLength: 15, maxLength: 15 });
  fc.assert(
    fc.property(user, upper, (given, cases) => {
      const renamed = Object.entries(given).map(([name, value]) => [
        Array.from(name, (c, i) => ((cases[i] ?? false) ? c.toUpperCase() : c.toLowerCase())).join(
          "",
        ),
        value,
      ]);
      const body = { ...Object.fromEntries(renamed), nested: { ID: 1.5, list: [1e9] }, "": null };
      expect(parse(stringifyExact(body))).toEqual(given);
    }),
  );
});

test("the exact name is preferred, wherever it stands", () => {
  expect(parse('{"SessionID":1,"sessionid":2,"SESSIONID":"x"}').SessionID).toBe(1n);
  expect(parse('{"sessionid":2,"SessionID":1}').SessionID).toBe(1n);
});

test("absent and null are zero values", () => {
  const nulls = Object.fromEntries(Object.keys(USER).map((name) => [name, null]));
  for (const given of [{}, nulls, ZERO])
    expect(Object.entries(parse(stringifyExact(given)))).toEqual(Object.entries(ZERO));
});

describe("refused in the words that clients know is", () => {
  test.each([
    "",
    " ",
    "null",
    "[]",
    "[{}]",
    "1",
    '"x"',
    "true",
    "{",
    "{}x",
    "{'ID':1}",
    '{"ID":01}',
    "\0",
    "[".repeat(65_536),
    "[".repeat(32_768) + "]".repeat(32_768),
    `{"a":${"[".repeat(32_000)}${"]".repeat(32_000)}}`,
  ])("the body %p", (body) => {
    expect(refusal(body)).toBe(REFUSED);
  });

  test("what is no UTF-8", () => {
    expect(refusal(Buffer.from('{"AppLocale":"\xff"}', "latin1"))).toBe(REFUSED);
  });

  test.each(INTEGERS)("%s that is no integer of 64 bits", (name) => {
    for (const value of [
      '"1"',
      "1.5",
      "1.0",
      "1e3",
      "true",
      "[]",
      "{}",
      "9223372036854775808",
      "-9223372036854775809",
      "1".repeat(60_000),
    ])
      expect([value, refusal(`{"${name}":${value}}`)]).toEqual([value, REFUSED]);
  });

  test.each(TEXTS)("%s that is no text, too long, or cannot be stored", (name) => {
    for (const value of [
      "1",
      "true",
      "[]",
      "{}",
      '"\\u0000"',
      '"\\ud800"',
      `"${"é".repeat(1025)}"`,
    ])
      expect([value, refusal(`{"${name}":${value}}`)]).toEqual([value, REFUSED]);
  });
});

test("a text may have 255 bytes", () => {
  for (const name of TEXTS) {
    for (const longest of ["x".repeat(255), `${"é".repeat(127)}x`, `${"😀".repeat(63)}xyz`])
      expect(parse(JSON.stringify({ [name]: longest }))).toMatchObject({ [name]: longest });
    for (const longer of ["x".repeat(256), "é".repeat(128), "😀".repeat(64)])
      expect(refusal(JSON.stringify({ [name]: longer }))).toEqual(REFUSED);
  }
});
