import * as fc from "fast-check";
import { base58 } from "@scure/base";
import { describe, expect, test } from "bun:test";
import { Tokens } from "../../src/sessions/token.ts";

const SESSION_ID = 3523215360000131335n;
const EXPIRES_AT = 1_760_007_200_000;
const SAMPLE = "qrmzm0576vpj.0.mgjaueww.BLFF5p9sXZy6cpBNFGpcH4Ld3SK1GKh714ifrJ4SQpP3";

const tokens = new Tokens(["test-secret"]);

describe("a token of the published secret", () => {
  test.each([
    [0, SAMPLE],
    [-123, "qrmzm0576vpj.-3f.mgjaueww.3ZXBnKU5Hv2NnaSDqSpAf42MPyHntKYW54RhcaCcCvEi"],
    [4567, "qrmzm0576vpj.3iv.mgjaueww.65gT8CkaS5UJHKDE2qHcyLh9XswGajkJrcAaGcFX6bAU"],
  ])("with a delay of %d ms is signed and verified", (delay, token) => {
    const claims = { sessionId: SESSION_ID, delay, expiresAt: EXPIRES_AT };
    expect(tokens.sign(claims)).toBe(token);
    expect(tokens.verify(token, EXPIRES_AT - 1)).toEqual({ kind: "valid", ...claims });
  });
});

test.each([
  [-1, "valid"],
  [0, "just_expired"],
  [29_999, "just_expired"],
  [30_000, "expired"],
  [86_400_000, "expired"],
] as const)("%d ms after its expiry a token is %s and still says whose it is", (after, kind) => {
  expect(tokens.verify(SAMPLE, EXPIRES_AT + after)).toMatchObject({ kind, sessionId: SESSION_ID });
});

test("a token that was read before expires all the same", () => {
  const claims = { sessionId: 7n, delay: 0, expiresAt: 1_000_000 };
  const token = tokens.sign(claims);
  const kinds = [999_999, 1_000_000, 1_029_999, 1_030_000, 1].map(
    (now) => tokens.verify(token, now)?.kind,
  );
  expect(kinds).toEqual(["valid", "just_expired", "just_expired", "expired", "valid"]);
});

test("any claims come back from their token", () => {
  const claims = fc.record({
    sessionId: fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }),
    delay: fc.maxSafeInteger(),
    expiresAt: fc.maxSafeNat(),
  });
  fc.assert(
    fc.property(claims, (sent) => {
      expect(tokens.verify(tokens.sign(sent), 0)).toMatchObject(sent);
    }),
    { examples: [[{ sessionId: 2n ** 63n - 1n, delay: -Number.MAX_SAFE_INTEGER, expiresAt: 1 }]] },
  );
});

describe("what the server did not sign is refused", () => {
  const character = fc.string({ unit: "binary-ascii", minLength: 1, maxLength: 1 });

  test("a token with any character changed, added or removed", () => {
    fc.assert(
      fc.property(fc.nat(SAMPLE.length), fc.nat(2), character, (at, removed, added) => {
        const mutated = SAMPLE.slice(0, at) + added + SAMPLE.slice(at + removed);
        fc.pre(mutated !== SAMPLE);
        expect(tokens.verify(mutated, 0)).toBeUndefined();
      }),
      { numRuns: 5_000 },
    );
    for (let at = 0; at < SAMPLE.length; at++)
      expect(tokens.verify(SAMPLE.slice(0, at) + SAMPLE.slice(at + 1), 0)).toBeUndefined();
  });

  test("the claims of one token with the signature of another", () => {
    const other = tokens.sign({ sessionId: SESSION_ID + 1n, delay: 0, expiresAt: EXPIRES_AT });
    const signature = SAMPLE.slice(SAMPLE.lastIndexOf("."));
    expect(tokens.verify(other.slice(0, other.lastIndexOf(".")) + signature, 0)).toBeUndefined();
  });

  test("a token of another secret", () => {
    expect(new Tokens(["test-secreT"]).verify(SAMPLE, 0)).toBeUndefined();
  });

  test("arbitrary text, of any length", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(tokens.verify(text, 0)).toBeUndefined();
      }),
      { examples: [[""], ["..."], ["a.b.c.d"], [".".repeat(1e6)], ["1".repeat(1e6)]] },
    );
  });
});

describe("a signature over anything but canonical fields is worthless", () => {
  test.each([
    ["an id of 2^63", "1y2p0ij32e8e8.0.mgjaueww"],
    ["an id of 2^64", "3w5e11264sgsg.0.mgjaueww"],
    ["a leading zero", "0qrmzm0576vpj.0.mgjaueww"],
    ["upper case", "QRMZM0576VPJ.0.mgjaueww"],
    ["a delay of -0", "qrmzm0576vpj.-0.mgjaueww"],
    ["a negative id", "-qrmzm0576vpj.0.mgjaueww"],
    ["an expiry above 2^53", "qrmzm0576vpj.0.zzzzzzzzzzz"],
    ["three fields of the tokens of 2021", "qrmzm0576vpj.mgjaueww"],
    ["a field more", "qrmzm0576vpj.0.mgjaueww.0"],
    ["a line break", "qrmzm0576vpj.0.mgjaueww\n"],
  ])("%s", (_what, fields) => {
    expect(tokens.verify(signed(fields), 0)).toBeUndefined();
  });

  test("the same helper signs canonical fields well", () => {
    expect(signed("qrmzm0576vpj.0.mgjaueww")).toBe(SAMPLE);
    expect(tokens.verify(signed("1y2p0ij32e8e7.0.mgjaueww"), 0)?.sessionId).toBe(2n ** 63n - 1n);
  });
});

describe("secrets rotate", () => {
  const rotated = new Tokens(["new", "test-secret"]);
  const claims = { sessionId: SESSION_ID, delay: 0, expiresAt: EXPIRES_AT };

  test("the first one signs", () => {
    expect(rotated.sign(claims)).toBe(new Tokens(["new"]).sign(claims));
  });

  test("all of them verify", () => {
    expect(rotated.verify(SAMPLE, 0)?.sessionId).toBe(SESSION_ID);
    expect(rotated.verify(rotated.sign(claims), 0)?.sessionId).toBe(SESSION_ID);
    expect(new Tokens(["new"]).verify(SAMPLE, 0)).toBeUndefined();
  });

  test.each([[[]], [[""]], [["new", ""]]])("%j is refused", (secrets: string[]) => {
    expect(() => new Tokens(secrets)).toThrow("secret");
  });
});

test("no token holds what clients use as separators", () => {
  for (let id = 0n; id < 200n; id++)
    expect(tokens.sign({ sessionId: id, delay: -1, expiresAt: 1 })).toMatch(/^[0-9A-Za-z.-]+$/);
});

/** Signs any text with the sample's secret, as the server never would. */
function signed(fields: string): string {
  const hmac = new Bun.CryptoHasher("sha256", "test-secret").update(fields).digest();
  return `${fields}.${base58.encode(hmac)}`;
}
