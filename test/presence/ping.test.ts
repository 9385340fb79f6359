import { describe, expect, test } from "bun:test";

import { metric, refusalOf } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { EventStream } from "../support/event-stream.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { aUser, areWritten, claim, ping, pingAnswer, snapshot } from "../support/presence.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { serverBeside } from "../support/requests.ts";

const DAY_MS = 86_400_000;

const clock = new FakeClock();
const app = TestApp.forTests({ clock });

async function post(
  body: Bun.BodyInit,
  headers: Record<string, string> = claim("ann", "phone"),
): Promise<Response> {
  return await app.post("/ping", body, headers);
}

/** The status that a body leaves behind. */
async function statusAfter(body: string): Promise<string> {
  const userid = aUser();
  const answer = await post(body, claim(userid));
  if (answer.status !== 200) throw new Error(`answered ${answer.status}`);
  using stream = await EventStream.open(app, `/subscribe/${userid}`);
  return (await stream.presence()).status;
}

describe("a ping that is taken", () => {
  test("is answered 200 with an empty body", async () => {
    const answer = await pingAnswer(app, { userid: aUser(), clientid: "phone", status: "0" });
    expect([answer.status, await answer.text()]).toEqual([200, ""]);
    expect(answer.headers.get("content-length")).toBe("0");
  });

  test.each(["0", "1", "2", "brb", "out to lunch", "é€😀", "-1", "00", "x".repeat(64)])(
    "may have any text as its status: %p",
    async (status) => {
      expect(await statusAfter(JSON.stringify({ status }))).toBe(status);
    },
  );

  test.each([
    ["0", "0"],
    ["2", "2"],
    ["42", "42"],
    ["1.5", "1.5"],
    ["-7", "-7"],
    ["1e3", "1000"],
  ])("with the number %s has its decimal text as status", async (number, text) => {
    expect(await statusAfter(`{"status":${number}}`)).toBe(text);
  });

  test.each(["application/json", "text/plain", "application/x-www-form-urlencoded", "nonsense"])(
    "is JSON whatever its content type says: %s",
    async (type) => {
      const userid = aUser();
      const answer = await post('{"status":"2"}', { ...claim(userid), "content-type": type });
      expect(answer.status).toBe(200);
      expect(await snapshot(app, [userid])).toMatchObject({ [userid]: { status: "2" } });
    },
  );

  test("may come in chunks and with more fields than are known", async () => {
    const userid = aUser();
    const chunks = ['{"sta', 'tus":"1","battery":', "0.5}"].map((part) => Buffer.from(part));
    const body = new ReadableStream<Uint8Array>({
      pull: (controller) => {
        const chunk = chunks.shift();
        if (chunk === undefined) controller.close();
        else controller.enqueue(chunk);
      },
    });
    const given = JSON.stringify({ userid, clientid: "phone", name: "Ann", roles: ["admin"] });
    expect((await post(body, { "x-user-claim": given })).status).toBe(200);
    expect(await snapshot(app, [userid])).toMatchObject({ [userid]: { status: "1" } });
  });

  test("may be as large as 4 KiB", async () => {
    expect((await post('{"status":"0"}'.padEnd(4096))).status).toBe(200);
  });

  test("may have a claim of 4096 characters and ids of 128", async () => {
    const longest = { userid: "u".repeat(128), clientid: "c".repeat(128) };
    expect((await post("", { "x-user-claim": JSON.stringify(longest) })).status).toBe(200);
    const fields = JSON.stringify({ userid: "ann", pad: "" });
    const padded = fields.replace('""', `"${"x".repeat(4096 - fields.length)}"`);
    expect(padded).toHaveLength(4096);
    expect((await post("", { "x-user-claim": padded })).status).toBe(200);
  });

  test("may have a claim in plain UTF-8, as a proxy may write it", async () => {
    const userid = aUser("jürgen-€-😀");
    using connection = await RawConnection.open(app.url);
    connection.head("POST /ping", {
      "x-user-claim": JSON.stringify({ userid }),
      "content-length": 0,
    });
    expect((await connection.response()).status).toBe(200);
    expect(await snapshot(app, [userid])).toMatchObject({ [userid]: { online: true } });
  });

  test.each(["//ping", "/ping/", "//ping//", "/ping?x=1"])("may have the path %s", async (path) => {
    const userid = aUser();
    const answer = await app.post(path, '{"status":"1"}', claim(userid));
    expect(answer.status).toBe(200);
    expect(await snapshot(app, [userid])).toMatchObject({ [userid]: { status: "1" } });
  });

  test("is counted, and a refused one is not", async () => {
    const series = "floodgate_presence_pings_total";
    const before = await metric(app, series);
    await ping(app, { userid: aUser(), status: "0" });
    await ping(app, { userid: aUser() });
    await post("nonsense");
    expect(await metric(app, series)).toBe(before + 2);
  });
});

describe("a ping without a body keeps the status of its device", () => {
  test("while somebody watches", async () => {
    const userid = aUser();
    using stream = await EventStream.open(app, `/subscribe/${userid}`);
    await ping(app, { userid, status: "2" });
    expect((await stream.presence()).status).toBe("2");
    await ping(app, { userid });
    expect((await stream.presence()).status).toBe("2");
  });

  test("whatever its other devices do", async () => {
    const userid = aUser();
    await ping(app, { userid, clientid: "phone", status: "2" });
    await ping(app, { userid, clientid: "desk", status: "1" });
    await ping(app, { userid, clientid: "phone" });
    clock.advance(45_000);
    await ping(app, { userid, clientid: "desk" });
    expect(await snapshot(app, [userid])).toMatchObject({ [userid]: { status: "2" } });
    // The phone expires, so the desk's own status shows.
    clock.advance(20_000);
    await ping(app, { userid, clientid: "desk" });
    expect(await snapshot(app, [userid])).toMatchObject({ [userid]: { status: "1" } });
  });

  test.each([
    ["seconds", 5000],
    ["an expiry", 90_000],
    ["a day", DAY_MS],
  ])("when nobody has watched and after %s", async (_how, ms) => {
    const userid = aUser();
    await ping(app, { userid, clientid: "phone", status: "brb" });
    clock.advance(ms);
    // The server looks at the clock a few times a second, and may forget then.
    await Bun.sleep(ms > 60_000 ? 600 : 0);
    await ping(app, { userid, clientid: "phone" });
    expect(await snapshot(app, [userid])).toEqual({
      [userid]: { time: clock.epochS, status: "brb", online: true },
    });
  });

  test("on another process, seconds later", async () => {
    const userid = aUser();
    await ping(app, { userid, clientid: "phone", status: "dnd, please" });
    await areWritten(app.sql, [userid]);
    await using other = await serverBeside(app, { clock });
    await ping(other, { userid, clientid: "phone" });
    expect(await snapshot(other, [userid])).toMatchObject({
      [userid]: { status: "dnd, please", online: true },
    });
  });

  test("and the first ping of all needs none", async () => {
    const userid = aUser();
    await ping(app, { userid });
    using stream = await EventStream.open(app, `/subscribe/${userid}`);
    expect(await stream.presence()).toMatchObject({ userid, status: "0", online: true });
  });
});

describe("a ping is refused with 400", () => {
  test.each<[string, Record<string, string>]>([
    ["is missing", {}],
    ["is empty", { "x-user-claim": "" }],
    ["is not JSON", { "x-user-claim": "ann" }],
    ["is cut short", { "x-user-claim": '{"userid":"ann"' }],
    ["is text", { "x-user-claim": '"ann"' }],
    ["is a list", { "x-user-claim": '["ann"]' }],
    ["is null", { "x-user-claim": "null" }],
    ["has no userid", { "x-user-claim": '{"clientid":"phone"}' }],
    ["has an empty userid", { "x-user-claim": '{"userid":"","clientid":"phone"}' }],
    ["has a number as userid", { "x-user-claim": '{"userid":7,"clientid":"phone"}' }],
    ["has null as userid", { "x-user-claim": '{"userid":null}' }],
    ["has a userid of 129 characters", claim("u".repeat(129))],
    ["has a NUL in its userid", claim("ann\0")],
    ["has a number as clientid", { "x-user-claim": '{"userid":"ann","clientid":7}' }],
    ["has a clientid of 129 characters", claim("ann", "c".repeat(129))],
    ["has a NUL in its clientid", claim("ann", "\0")],
    [
      "has over 4096 characters",
      { "x-user-claim": JSON.stringify({ userid: "ann", pad: "x".repeat(4096) }) },
    ],
  ])("when its claim %s", async (_how, headers) => {
    const [status, text] = await refusalOf(post('{"status":"0"}', headers));
    expect(status).toBe(400);
    expect(text).not.toBe("");
  });

  test.each([
    ["no JSON", "status=0"],
    ["cut short", '{"status":"0"'],
    ["text", '"0"'],
    ["a list", '["0"]'],
    ["null", "null"],
    ["a status that is null", '{"status":null}'],
    ["a status that is true", '{"status":true}'],
    ["a status that is an object", '{"status":{}}'],
    ["a status that is a list", '{"status":["0"]}'],
    ["a status of 65 characters", JSON.stringify({ status: "x".repeat(65) })],
    ["a status of 65 characters in 130 bytes", JSON.stringify({ status: "é".repeat(65) })],
    ["a number of over 64 digits", '{"status":1e70}'],
    ["a number beyond all numbers", '{"status":1e400}'],
    ["a status with a NUL", '{"status":"a\\u0000"}'],
  ])("when its body is %s, and it changes nothing", async (_what, body) => {
    const userid = aUser();
    await ping(app, { userid, status: "1" });
    const time = clock.epochS;
    clock.advance(1000);
    expect((await refusalOf(post(body, claim(userid))))[0]).toBe(400);
    expect(await snapshot(app, [userid])).toMatchObject({ [userid]: { time, status: "1" } });
  });

  test("but with 413 when its body is over 4 KiB, declared or not", async () => {
    const body = '{"status":"0"}'.padEnd(4097);
    expect((await refusalOf(post(body)))[0]).toBe(413);
    const stream = new Response(body).body;
    if (stream === null) throw new Error("no body");
    expect((await refusalOf(post(stream)))[0]).toBe(413);
  });

  test("and half a character in its status or ids is no fault of the server", async () => {
    for (const given of [
      post('{"status":"\\ud800"}'),
      post("", { "x-user-claim": '{"userid":"\\udc00","clientid":"\\ud800"}' }),
    ])
      expect([200, 400]).toContain((await given).status);
    const userid = aUser();
    await ping(app, { userid, status: "1" });
    expect(await snapshot(app, [userid])).toMatchObject({ [userid]: { status: "1" } });
  });
});

describe("around the route", () => {
  test.each(["GET", "HEAD", "PUT", "DELETE", "PATCH"])("%s is 405", async (method) => {
    const answer = await app.fetch("/ping", { method, headers: claim("ann") });
    expect(answer.status).toBe(405);
    expect(answer.headers.get("allow")).toContain("POST");
    expect(answer.headers.get("access-control-allow-origin")).toBe("*");
  });

  test("every answer may be read by any page", async () => {
    const origin = { origin: "https://app.example" };
    const answers = [
      await post('{"status":"0"}', { ...claim("ann"), ...origin }),
      await post("nonsense", { ...claim("ann"), ...origin }),
      await post("", origin),
      await post(" ".repeat(5000), { ...claim("ann"), ...origin }),
    ];
    expect(answers.map(({ status }) => status)).toEqual([200, 400, 400, 413]);
    for (const { headers } of answers) {
      expect(headers.get("access-control-allow-origin")).toBe("*");
      expect(headers.get("access-control-allow-credentials")).toBeNull();
    }
  });

  test("a browser's preflight is allowed what the client needs", async () => {
    const answer = await app.fetch("/ping", {
      method: "OPTIONS",
      headers: {
        origin: "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
      },
    });
    expect(answer.status).toBe(204);
    expect(answer.headers.get("access-control-allow-origin")).toBe("*");
    expect(answer.headers.get("access-control-allow-methods")).toContain("POST");
    const allowed = answer.headers.get("access-control-allow-headers")?.toLowerCase();
    for (const header of ["authorization", "content-type"]) expect(allowed).toContain(header);
  });
});
