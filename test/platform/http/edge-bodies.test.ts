import { describe, expect, test } from "bun:test";

import { TestApp } from "../../support/app.ts";
import { RawConnection } from "../../support/raw-connection.ts";
import { ServerProcess, envOf } from "../../support/server-process.ts";
import { UpdateApi } from "../../support/updates.ts";

const LARGE = 3_000_000;

const app = TestApp.forTests({ env: { BEACON_SIZE_LIMIT: "100000" } });
const api = UpdateApi.forTests(app);

/** A large form that says at its beginning what is wrong with it. */
function badForm(): FormData {
  const form = new FormData();
  form.set("appVersion", "bad");
  form.set("tmpFile", new File([new Uint8Array(LARGE)], "app.apk"));
  return form;
}

async function* chunks() {
  for (let i = 0; i < 30; i++) yield new Uint8Array(100_000);
}

describe("a body that is refused early is answered at once", () => {
  test.each(["/api/v1/updates", "//api/v1/updates", "/ingest/api/v1/updates"])(
    "as a form to %s",
    async (path) => {
      const answer = await fetch(app.url + path, {
        method: "POST",
        headers: { signature: api.signature },
        body: badForm(),
      });
      expect(answer.status).toBe(400);
      const leased = await app.sql`select 1 from build_garbage where due_at > now()`;
      expect(leased.length).toBe(0);
    },
  );

  test.each(["/v1/ios/append", "/ingest/v1/ios/append", "//v1/ios/append"])(
    "as chunks to %s",
    async (path) => {
      const { token } = await app.aSession();
      const answer = await fetch(app.url + path, {
        method: "POST",
        headers: { authorization: `Bearer ${token}` },
        body: chunks(),
      });
      expect(answer.status).toBe(413);
    },
  );

  test("with a short host, too", async () => {
    const connection = await RawConnection.open(app.url);
    connection.head("POST /v1/ios/append", {
      host: "h",
      authorization: `Bearer ${(await app.aSession()).token}`,
      "content-length": String(LARGE),
    });
    expect((await connection.response()).status).toBe(413);
    connection[Symbol.dispose]();
  });
});

test("an upload by a path that is not normal is not held in memory", async () => {
  await using server = await ServerProcess.start(envOf(app));
  const peak = async () => {
    const status = await Bun.file(`/proc/${server.pid}/status`).text();
    return Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) * 1024;
  };
  const before = await peak();
  const form = new FormData();
  form.set("appVersion", "2300_01");
  form.set("tmpFile", new File([new Uint8Array(150_000_000)], "app.apk"));
  const answer = await fetch(`${server.url}//api/v1/updates`, {
    method: "POST",
    headers: { signature: api.signature },
    body: form,
  });
  expect(answer.status).toBe(200);
  expect((await peak()) - before).toBeLessThan(80_000_000);
});
