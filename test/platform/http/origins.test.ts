import { expect, test } from "bun:test";

import { readConfig } from "../../../src/platform/config/config.ts";
import { UsageError } from "../../../src/platform/errors.ts";

function originsOf(CORS_ORIGINS: string): string[] {
  return readConfig({ CORS_ORIGINS }).corsOrigins;
}

test("origins become what browsers send, or stand for all", () => {
  expect(originsOf("*")).toEqual(["*"]);
  expect(originsOf("https://A.example/, HTTPS://b.example:443,http://c.example:80")).toEqual([
    "https://a.example",
    "https://b.example",
    "http://c.example",
  ]);
  expect(originsOf("https://d.example:8443, https://bücher.example, http://[::1]:3000")).toEqual([
    "https://d.example:8443",
    "https://xn--bcher-kva.example",
    "http://[::1]:3000",
  ]);
  expect(originsOf("capacitor://localhost, ionic://Local")).toEqual([
    "capacitor://localhost",
    "ionic://local",
  ]);
});

test.each([
  "foo",
  "foo.example",
  "foo.example:8080",
  "//foo.example",
  "https://",
  "https:foo.example",
  "https://foo.example/admin",
  "https://foo.example?x",
  "https://foo.example#x",
  "https://user@foo.example",
  "https://*.foo.example",
  "https://foo.example:99999",
  "https://foo example",
  "file:///",
  "null",
  "**",
])("%s is no origin, and refused beside a good one too", (origin) => {
  const problem = `CORS_ORIGINS "${origin}" is not an origin such as https://app.example, or *`;
  for (const text of [origin, `*, ${origin}, https://a.example`])
    expect(() => originsOf(text)).toThrow(new UsageError(`bad configuration: ${problem}`));
});
