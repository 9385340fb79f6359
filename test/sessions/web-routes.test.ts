import { beforeAll, describe, expect, test } from "bun:test";

import { Tokens } from "../../src/sessions/token.ts";
import { objectOf, refusalOf } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { type TestProject, aProject } from "../support/projects.ts";

const BOTH = ["/v1/web/conditions", "/v1/mobile/conditions"];
const SIGNALS = ["/v1/web/uxt/signals/test", "/v1/web/uxt/signals/task"];

const app = TestApp.forTests();
let session: TestSession;
let other: TestProject;

beforeAll(async () => {
  session = await app.aSession();
  other = await aProject(app);
});

async function get(path: string, { token } = session): Promise<Response> {
  return await app.fetch(path, { headers: { authorization: `Bearer ${token}` } });
}

/** A token of the session with another expiry or signature. */
function tokenOf({ expiresInMs = 60_000, secret = "test-secret" }): string {
  const sessionId = BigInt(session.sessionID);
  return new Tokens([secret]).sign({ sessionId, delay: 0, expiresAt: Date.now() + expiresInMs });
}

describe.each(["/v1/web/tags", "/v1/web/conditions/1", "/v1/mobile/conditions/1", ...SIGNALS])(
  "%s is refused with 401",
  (path) => {
    const method = SIGNALS.includes(path) ? "POST" : "GET";

    test.each<[string, () => string, string]>([
      ["a forged token", () => tokenOf({ secret: "other" }), "wrong token sign"],
      ["garbage", () => "garbage", "wrong token format"],
      ["a token that just expired", () => tokenOf({ expiresInMs: -1000 }), "token just expired"],
      ["an expired token", () => tokenOf({ expiresInMs: -31_000 }), "token expired"],
    ])("for %s", async (_what, token, text) => {
      const headers = { authorization: `Bearer ${token()}` };
      expect(await refusalOf(app.fetch(path, { method, headers }))).toEqual([401, text]);
    });

    test("without a token", async () => {
      expect(await refusalOf(app.fetch(path, { method }))).toEqual([401, "missing token"]);
    });
  },
);

test("no elements are watched", async () => {
  expect(await objectOf(get("/v1/web/tags"))).toEqual({ tags: [] });
  expect(await objectOf(get("/ingest/v1/web/tags"))).toEqual({ tags: [] });
});

describe.each(BOTH)("%s", (path) => {
  test("has no conditions for the session's project", async () => {
    const answer = get(`${path}/${app.project.id}`);
    expect(await objectOf(answer)).toEqual({ conditions: [] });
  });

  test("refuses the sessions of other projects", async () => {
    const foreign = await app.aSession({ projectID: other.projectID });
    const text = "the session belongs to another project";
    expect(await refusalOf(get(`${path}/${app.project.id}`, foreign))).toEqual([403, text]);
  });

  test.each(["x", "-1", "1.0", "0x1", "%20", "1".repeat(30)])(
    "refuses %s, which is not the id of a project",
    async (id) => {
      const text = "projectID is not a whole number";
      expect(await refusalOf(get(`${path}/${id}`))).toEqual([400, text]);
    },
  );
});

describe("old trackers", () => {
  test.each(["/v1/web/not-started", "/ingest/v1/web/not-started", ...SIGNALS])(
    "get an empty 200 at %s for JSON that is text",
    async (path) => {
      const answer = await app.post(path, '{"projectKey":"x","reason":"dnt"}', {
        "content-type": "text/plain;charset=UTF-8",
        authorization: `Bearer ${session.token}`,
      });
      expect([answer.status, await answer.text()]).toEqual([200, ""]);
    },
  );

  test("get no feature flags", async () => {
    expect(await objectOf(app.post("/v1/web/feature-flags", "{}"))).toEqual({ flags: [] });
  });

  test.each(["/v1/web/not-started", "/v1/web/feature-flags"])(
    "are refused at %s with a body over the limit",
    async (path) => {
      const text = "the body is over the limit of 131072 bytes";
      expect(await refusalOf(app.post(path, "x".repeat(131_073)))).toEqual([413, text]);
    },
  );

  test.each(["/v1/web/uxt/test/7", "/v1/web/uxt/upload-url"])("get a 404 at %s", async (path) => {
    expect(await refusalOf(get(path))).toEqual([404, "no such route"]);
  });
});
