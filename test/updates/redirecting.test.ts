import { describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { OTHER_TAG, headOf, shifted } from "../support/downloads.ts";
import { UpdateApi, aVersion } from "../support/updates.ts";

const DIGITS = "0123456789";
const SECOND_MS = 1000;

describe("redirected downloads", () => {
  const app = TestApp.forTests({ store: "s3", env: { DOWNLOAD_REDIRECT: "true" } });
  const api = UpdateApi.forTests(app);

  test("are refused, or not sent again, before the redirect", async () => {
    const { URI } = await api.published({ bytes: Buffer.from(DIGITS) });
    const known = await headOf(URI);
    const range = "bytes=3-5";
    for (const [headers, status] of [
      [{}, 302],
      [{ range }, 302],
      [{ "if-match": OTHER_TAG, range }, 412],
      [{ "if-match": `W/${known.etag}` }, 412],
      [{ "if-unmodified-since": shifted(known.date, -3600), range }, 412],
      [{ "if-none-match": `W/${known.etag}` }, 304],
      [{ "if-modified-since": known.date }, 304],
      [{ "if-none-match": OTHER_TAG }, 302],
      // The store does not know this ETag.
      [{ "if-match": known.etag, range }, 206],
      [{ "if-match": "*", range }, 206],
      [{ "if-range": known.etag, range }, 206],
      [{ "if-range": OTHER_TAG, range }, 200],
    ] as const) {
      const answer = await fetch(URI, { headers, redirect: "manual" });
      expect([headers, answer.status]).toEqual([headers, status]);
    }
  });

  test("go on by what the store has told, and not with another build", async () => {
    const build = { version: aVersion(), name: "redirected.apk" };
    const { URI } = await api.published({ ...build, bytes: Buffer.from(DIGITS) });
    const { url, headers } = await fetch(URI);
    expect(url).toStartWith(String(app.config.s3?.endpoint));
    const known = {
      etag: headers.get("etag") ?? "",
      date: headers.get("last-modified") ?? "",
    };
    const resumed: [Record<string, string>, number][] = [
      [{ "if-match": known.etag }, 206],
      [{ "if-unmodified-since": known.date }, 206],
      [{ "if-none-match": known.etag }, 304],
    ];
    for (const [conditions, status] of resumed) {
      const answer = await fetch(URI, { headers: { ...conditions, range: "bytes=5-" } });
      expect([conditions, answer.status]).toEqual([conditions, status]);
    }
    await Bun.sleep(SECOND_MS);
    await api.published({ ...build, bytes: Buffer.from(DIGITS.replace("0", "x")) });
    for (const conditions of [
      { "if-match": known.etag },
      { "if-unmodified-since": known.date },
      { "if-range": known.etag },
    ]) {
      const answer = await fetch(URI, { headers: { ...conditions, range: "bytes=5-" } });
      expect([conditions, answer.status]).toEqual([
        conditions,
        "if-range" in conditions ? 200 : 412,
      ]);
    }
  });
});
