import { beforeAll, describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import {
  CHANGED,
  type Conditions,
  type Known,
  OTHER_TAG,
  knownOf,
  shifted,
} from "../support/downloads.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { serverBeside } from "../support/requests.ts";
import { type Update, UpdateApi, plainOf } from "../support/updates.ts";

const DIGITS = "0123456789";

const LINKS: [string, (update: Update) => string][] = [
  ["its own link", ({ URI }) => URI],
  ["its flat link", ({ URI, Name }) => new URL(`/source/${Name}`, URI).href],
];

describe.each(LINKS)("a build under %s", (_which, linkOf) => {
  const app = TestApp.forTests();
  const api = UpdateApi.forTests(app);
  let link: string;
  let known: Known;

  beforeAll(async () => {
    link = linkOf(await api.published({ bytes: Buffer.from(DIGITS) }));
    known = await knownOf(link);
  });

  test("tells the second of its publication, on every answer and process", async () => {
    const at = Date.parse(known.date);
    expect(new Date(at).toUTCString()).toBe(known.date);
    expect(Math.abs(Date.now() - at)).toBeLessThan(60_000);
    await using beside = await serverBeside(app);
    const elsewhere = new URL(new URL(link).pathname, beside.url);
    for (const [where, init] of [
      [link, { headers: { range: "bytes=1-2" } }],
      [link, { headers: { "if-none-match": "*" } }],
      [link, { method: "HEAD" }],
      [elsewhere, { method: "HEAD" }],
    ] as const) {
      const { headers } = await fetch(where, init);
      expect(headers.get("last-modified")).toBe(known.date);
    }
  });

  const PROCEEDS: [string, Conditions][] = [
    ["If-Match that names it", ({ etag }) => ({ "if-match": etag })],
    ["If-Match that lists it", ({ etag }) => ({ "if-match": `"a,b", W/"c" ,${etag},"d"` })],
    ["If-Match: *", () => ({ "if-match": "*" })],
    [
      "If-Match that names it, whatever the date",
      ({ etag, date }) => ({ "if-match": etag, "if-unmodified-since": shifted(date, -60) }),
    ],
    ["If-Unmodified-Since its date", ({ date }) => ({ "if-unmodified-since": date })],
    ["If-Unmodified-Since later", ({ date }) => ({ "if-unmodified-since": shifted(date, 60) })],
    ["If-Unmodified-Since no date", () => ({ "if-unmodified-since": "2020-01-01" })],
    [
      "If-Unmodified-Since two dates",
      ({ date }) => ({ "if-unmodified-since": `${shifted(date, -60)}, ${shifted(date, -60)}` }),
    ],
    ["If-None-Match of another", () => ({ "if-none-match": `${OTHER_TAG}, W/"x"` })],
    ["If-None-Match without quotes", ({ etag }) => ({ "if-none-match": etag.slice(1, -1) })],
    [
      "If-None-Match of another, whatever the date",
      ({ date }) => ({ "if-none-match": OTHER_TAG, "if-modified-since": date }),
    ],
    ["If-Modified-Since earlier", ({ date }) => ({ "if-modified-since": shifted(date, -1) })],
    ["If-Modified-Since no date", () => ({ "if-modified-since": "tomorrow" })],
  ];

  test.each(PROCEEDS)("comes with %s", async (_what, conditions) => {
    for (const [range, status, text] of [
      [{}, 200, DIGITS],
      [{ range: "bytes=3-5" }, 206, "345"],
      [{ range: "bytes=10-" }, 416, "the range is outside the file\n"],
    ] as const) {
      const answer = await fetch(link, { headers: { ...conditions(known), ...range } });
      expect([answer.status, await answer.text()]).toEqual([status, text]);
    }
    const head = await fetch(link, { method: "HEAD", headers: conditions(known) });
    expect([head.status, head.headers.get("content-length")]).toEqual([200, "10"]);
  });

  const HAD: [string, Conditions][] = [
    ["If-None-Match", ({ etag }) => ({ "if-none-match": etag })],
    ["a weak If-None-Match", ({ etag }) => ({ "if-none-match": `W/${etag}` })],
    ["If-None-Match that lists it", ({ etag }) => ({ "if-none-match": `"a,b", W/${etag}` })],
    ["If-None-Match: *", () => ({ "if-none-match": "*" })],
    [
      "If-None-Match, whatever the date",
      ({ etag, date }) => ({ "if-none-match": etag, "if-modified-since": shifted(date, -60) }),
    ],
    ["If-Modified-Since its date", ({ date }) => ({ "if-modified-since": date })],
    ["If-Modified-Since later", ({ date }) => ({ "if-modified-since": shifted(date, 60) })],
    [
      "If-Match and If-None-Match",
      ({ etag }) => ({ "if-match": etag, "if-none-match": etag, "if-range": OTHER_TAG }),
    ],
  ];

  test.each(HAD)("need not come with %s", async (_what, conditions) => {
    using connection = await RawConnection.open(app.url);
    const path = new URL(link).pathname;
    for (const method of ["GET", "HEAD"])
      for (const range of [{}, { range: "bytes=99-" }]) {
        connection.head(`${method} ${path}`, { ...conditions(known), ...range });
        const { status, headers } = await connection.response({ bodyless: true });
        expect(status).toBe(304);
        expect(Object.fromEntries(headers)).toMatchObject({
          etag: known.etag,
          "last-modified": known.date,
          "cache-control": "no-cache",
          date: expect.any(String),
        });
        for (const name of ["content-type", "content-range", "content-disposition"])
          expect([name, headers.get(name)]).toEqual([name, null]);
      }
    expect(connection.rest).toHaveLength(0);
  });

  const REFUSED: [string, Conditions][] = [
    ["If-Match of another", () => ({ "if-match": OTHER_TAG })],
    ["a weak If-Match", ({ etag }) => ({ "if-match": `W/${etag}` })],
    ["If-Match in small letters", ({ etag }) => ({ "if-match": `w/${etag}` })],
    ["If-Match without quotes", ({ etag }) => ({ "if-match": etag.slice(1, -1) })],
    ["If-Match of nothing", () => ({ "if-match": "" })],
    ["If-Match of others", () => ({ "if-match": `${OTHER_TAG}, "a", "*"` })],
    [
      "If-Match of another, though it has the date",
      ({ date }) => ({ "if-match": OTHER_TAG, "if-unmodified-since": date }),
    ],
    [
      "If-Match of another, though it has this one",
      ({ etag }) => ({ "if-match": OTHER_TAG, "if-none-match": etag }),
    ],
    [
      "If-Unmodified-Since earlier",
      ({ date }) => ({ "if-unmodified-since": shifted(date, -1), "if-modified-since": date }),
    ],
  ];

  test.each(REFUSED)("is refused with %s", async (_what, conditions) => {
    for (const range of [{}, { range: "bytes=3-5" }, { range: "bytes=99-" }]) {
      const headers = { ...conditions(known), ...range };
      expect(await plainOf(fetch(link, { headers }))).toEqual(CHANGED);
      expect((await fetch(link, { headers, method: "HEAD" })).status).toBe(412);
    }
  });

  test.each<[string, Conditions, number]>([
    ["its ETag", ({ etag }) => ({ "if-range": etag }), 206],
    ["its date", ({ date }) => ({ "if-range": date }), 206],
    ["a weak ETag", ({ etag }) => ({ "if-range": `W/${etag}` }), 200],
    ["another ETag", () => ({ "if-range": OTHER_TAG }), 200],
    ["an earlier date", ({ date }) => ({ "if-range": shifted(date, -1) }), 200],
    ["a later date", ({ date }) => ({ "if-range": shifted(date, 1) }), 200],
    ["no date", () => ({ "if-range": "yesterday" }), 200],
    ["*", () => ({ "if-range": "*" }), 200],
  ])("goes on by If-Range of %s: %p %d", async (_what, conditions, status) => {
    const headers = { ...conditions(known), range: "bytes=3-" };
    const answer = await fetch(link, { headers });
    expect([answer.status, await answer.text()]).toEqual([
      status,
      status === 206 ? DIGITS.slice(3) : DIGITS,
    ]);
  });

  test("has no ranges for a HEAD", async () => {
    for (const range of ["bytes=3-5", "bytes=99-"]) {
      const answer = await fetch(link, { method: "HEAD", headers: { range } });
      expect([answer.status, answer.headers.get("content-length")]).toEqual([200, "10"]);
    }
  });
});
