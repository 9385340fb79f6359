import { describe, expect, test } from "bun:test";

import { metric } from "../../support/answers.ts";
import { TestApp } from "../../support/app.ts";
import { aBatch } from "../../support/batches.ts";
import { RawConnection, type RawResponse } from "../../support/raw-connection.ts";

const app = TestApp.forTests();

async function answerTo(head: string, body: string | Uint8Array = ""): Promise<RawResponse> {
  using connection = await RawConnection.open(app.url);
  connection.write(head.replaceAll("\n", "\r\n"), body);
  return await connection.response();
}

describe("a request", () => {
  test.each([
    "Host: a\nHost: b",
    "Host: a\nHost: a",
    "host: a\nHOST: a",
    "Host: a\nHost:",
    "Host: a b",
    "Host: a, b",
    "Host: a,b",
    "Host: a/b",
    "Host: a?b",
    "Host: a#b",
    "Host: a@b",
    "Host: user:pw@a",
    "Host: a\\b",
    "Host: ä",
    "Host: [::1",
    "Host: ::1",
    "Host: a:b",
    "Host: a:123456",
    `Host: ${"a".repeat(300)}`,
  ])("with %j is refused, wherever it goes, and its connection closed", async (host) => {
    for (const path of ["/livez", "/nowhere", "/v1/ios/start", "/api/v1/updates/1_01", "/presence"])
      for (const version of ["1.1", "1.0"]) {
        const { status, headers, body } = await answerTo(
          `GET ${path} HTTP/${version}\n${host}\n\n`,
        );
        expect([path, status]).toEqual([path, 400]);
        expect(headers.get("connection")).toBe("close");
        expect(body.toString()).toContain("the Host header is malformed");
      }
  });

  test.each([
    "a",
    "a:80",
    "a:",
    "A-b.example",
    "1.2.3.4:8080",
    "[::1]:8080",
    "[fe80::1]",
    "a_b",
    "%41",
    "",
  ])("with the host %j is answered", async (host) => {
    for (const path of ["/livez", "/livez/", "/docs?x"])
      expect((await answerTo(`GET ${path} HTTP/1.1\nHost: ${host}\n\n`)).status).toBe(200);
  });

  test("of HTTP/1.0 needs no host, and one of HTTP/1.1 does", async () => {
    expect((await answerTo("GET /livez HTTP/1.0\n\n")).status).toBe(200);
    expect((await answerTo("GET /livez HTTP/1.1\n\n")).status).toBe(400);
  });

  test.each([
    "Content-Length: 3\nContent-Length: 3",
    "Content-Length: 3\nContent-Length: 4",
    "Content-Length: 3, 3",
    "Content-Length: +3",
    "Content-Length: 3\nTransfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: identity",
    "Host : a",
  ])("with %j is refused", async (lines) => {
    const head = `POST /v1/ios/append HTTP/1.1\nHost: a\n${lines}\n\n`;
    expect((await answerTo(head, "abc")).status).toBe(400);
  });
});

test("two lengths of a body do not harm what is counted", async () => {
  const { token } = await app.aSession();
  const batch = aBatch();
  const length = `Content-Length: ${batch.length}\n`;
  const head = `POST /v1/ios/append HTTP/1.1\nHost: a\nAuthorization: Bearer ${token}\n${length}`;
  expect((await answerTo(`${head}${length}\n`, batch)).status).toBe(400);
  expect((await answerTo(`${head}\n`, batch)).status).toBe(200);
  expect(await metric(app, "floodgate_inflight_bytes")).toBe(0);
});
