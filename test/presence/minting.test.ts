import { decodeJwt, decodeProtectedHeader } from "jose";
import { describe, expect, test } from "bun:test";

import { refusalOf } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { aUser, bearerOf, claim, mint, ping } from "../support/presence.ts";

const AUDIENCE = "floodgate:presence";

const clock = new FakeClock();
const app = TestApp.forTests({ clock });

describe("minting", () => {
  test("makes an HS256 JWT of the user and the client for as long as is asked", async () => {
    const { token, expires_at } = await mint(app, { userid: "ann", clientid: "phone", ttl_s: 60 });
    expect(expires_at).toBe(clock.epochS + 60);
    expect(decodeProtectedHeader(token)).toMatchObject({ alg: "HS256" });
    expect(decodeJwt(token)).toMatchObject({
      sub: "ann",
      clientid: "phone",
      aud: AUDIENCE,
      exp: expires_at,
    });
    expect((await mint(app, { userid: "ann" })).expires_at).toBe(clock.epochS + 3600);
    const month = 30 * 86_400;
    const longest = await mint(app, { userid: "u".repeat(128), ttl_s: month });
    expect(longest.expires_at).toBe(clock.epochS + month);
  });

  test.each<[string, string]>([
    ["nothing", ""],
    ["no JSON", "userid=ann"],
    ["a list", '["ann"]'],
    ["no user", '{"clientid":"phone"}'],
    ["an empty user", '{"userid":""}'],
    ["a number as user", '{"userid":7}'],
    ["a user of 129 characters", JSON.stringify({ userid: "u".repeat(129) })],
    ["a NUL in the user", '{"userid":"a\\u0000"}'],
    ["a client of 129 characters", JSON.stringify({ userid: "a", clientid: "c".repeat(129) })],
    ["no time at all", '{"userid":"ann","ttl_s":0}'],
    ["over 30 days", '{"userid":"ann","ttl_s":2592001}'],
    ["half a second", '{"userid":"ann","ttl_s":0.5}'],
    ["a time that is text", '{"userid":"ann","ttl_s":"soon"}'],
  ])("is 400 for %s", async (_what, body) => {
    const headers = { "content-type": "application/json" };
    expect((await refusalOf(app.post("/presence/tokens", body, headers)))[0]).toBe(400);
  });

  test("needs a server key, and no page may read it", async () => {
    await using keyed = await TestApp.start({ clock, env: { SERVER_KEYS: "alpha" } });
    const userid = aUser();
    const body = JSON.stringify({ userid });
    for (const headers of [{}, { "x-server-key": "beta" }, bearerOf("alpha"), claim(userid)])
      expect((await refusalOf(keyed.post("/presence/tokens", body, headers)))[0]).toBe(403);
    expect((await keyed.fetch("/presence/tokens")).status).toBe(405);
    const headers = { "x-server-key": "alpha", origin: "https://evil.example" };
    const answer = await keyed.post("/presence/tokens", body, headers);
    expect(answer.status).toBe(200);
    expect(answer.headers.get("access-control-allow-origin")).toBeNull();
    const { token } = await mint(keyed, { userid }, headers);
    await ping(keyed, { userid, status: "0", token });
  });
});
