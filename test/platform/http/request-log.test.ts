import { describe, expect, test } from "bun:test";
import { pino } from "pino";

import { RequestLog } from "../../../src/platform/http/request-log.ts";
import { startServer } from "../../../src/processes/server.ts";
import { refusalOf } from "../../support/answers.ts";
import { TestApp } from "../../support/app.ts";
import { eventually } from "../../support/eventually.ts";

const SERVER_KEY = "top-secret";
const KEY = { "x-server-key": SERVER_KEY };
/** Requests, each refused with another status or for another reason. */
const REFUSED: [path: string, method: string][] = [
  ["/v1/sessions/1", "GET"],
  ["/devices/1", "GET"],
  ["/devices", "PUT"],
  ["/notifications", "POST"],
  ["/internal/devices/logs/x", "POST"],
  ["/presence/tokens", "POST"],
  ["/presence", "GET"],
  ["/v1/images/1/a", "DELETE"],
  ["/source/a.apk", "GET"],
  ["/api/v1/updates", "GET"],
  ["/nowhere", "GET"],
  ["/livez", "POST"],
];

const app = TestApp.forTests({ env: { SERVER_KEYS: SERVER_KEY } });

type Line = Record<string, unknown>;

/** Returns the log of a second server on the same database, used by `act`. */
async function logged(act: (url: string) => Promise<void>, level = "info"): Promise<Line[]> {
  const lines: Line[] = [];
  const log = pino({ level }, { write: (line: string) => void lines.push(JSON.parse(line)) });
  const server = await startServer(app.config, app.databaseUrl, { log });
  try {
    await act(server.url.replace(/\/$/, ""));
  } finally {
    await server[Symbol.asyncDispose]();
  }
  return lines;
}

describe("the log", () => {
  test("has a line for every management request that went well, with what an operator looks for", async () => {
    const { sessionID } = await app.aSession();
    const lines = await logged(async (url) => {
      for (let n = 0; n < 30; n++)
        await fetch(`${url}/v1/sessions/${sessionID}?secret=x`, {
          headers: { "x-request-id": `r-${n}`, ...KEY },
        });
    });
    const requests = lines.filter(({ msg }) => msg === "request");
    expect(requests).toHaveLength(30);
    expect(requests[7]).toMatchObject({
      id: "r-7",
      method: "GET",
      path: `/v1/sessions/${sessionID}`,
      status: 200,
      ms: expect.any(Number),
      address: "127.0.0.1",
    });
    expect(JSON.stringify(lines)).not.toContain("secret");
  });

  test("is sampled for SDK requests and unknown paths, and never holds a token", async () => {
    const { token } = await app.aSession();
    const lines = await logged(async (url) => {
      const headers = { authorization: `Bearer ${token}` };
      for (let n = 0; n < 150; n++) {
        const path = n % 2 === 0 ? "/v1/ios/i" : `/nowhere-${n}`;
        await fetch(url + path, { method: "POST", headers, body: "x" });
      }
    });
    const requests = lines.filter(({ msg }) => msg === "request").length;
    expect(requests).toBeGreaterThan(0);
    // At most twenty lines a second, and the loop takes less than three seconds.
    expect(requests).toBeLessThanOrEqual(60);
    expect(JSON.stringify(lines)).not.toContain(token.slice(-20));
  });

  test("has a fault of ours in full, which the client is not told", async () => {
    await app.sql`alter table sessions rename to sessions_away`;
    const lines = await logged(async (url) => {
      const answer = await fetch(`${url}/v1/sessions/1`, { headers: KEY });
      expect(await refusalOf(answer)).toEqual([500, "internal error"]);
    }, "error");
    await app.sql`alter table sessions_away rename to sessions`;
    const [fault] = lines.filter(({ msg }) => msg === "request failed");
    expect(fault).toMatchObject({ method: "GET" });
    expect(JSON.stringify(fault)).toContain('relation \\"sessions\\" does not exist');
  });

  test("is sampled for refusals of every kind and route", async () => {
    const startedMs = performance.now();
    const lines = await logged(async (url) => {
      for (let n = 0; n < 20; n++)
        await Promise.all(REFUSED.map(([path, method]) => fetch(url + path, { method })));
    });
    const seconds = Math.ceil((performance.now() - startedMs) / 1000) + 1;
    const written = lines.filter(({ msg }) => msg === "request").length;
    expect(written).toBeGreaterThan(0);
    expect(written).toBeLessThanOrEqual(20 * seconds);
  });

  test("says now and then how many lines it left out", async () => {
    const lines: Line[] = [];
    const log = pino({}, { write: (line: string) => void lines.push(JSON.parse(line)) });
    const requests = new RequestLog(log, 50);
    const told = (msg: string) => lines.filter((line) => line["msg"] === msg);
    const line = { id: "a", method: "GET", path: "/", status: 404, ms: 1, address: "" };
    for (let n = 0; n < 1000; n++) requests.request(() => line, { isKeyed: false, status: 404 });
    for (let n = 0; n < 1000; n++)
      requests.fault(new Error("a fault"), new Request("http://a"), "/");
    for (const [written, leftOut] of [
      ["request", "lines of requests left out"],
      ["request failed", "lines of faults left out"],
    ] as const) {
      await eventually("the lines are told", () => told(leftOut).length > 0);
      expect(told(written).length).toBeLessThan(100);
      expect(told(written).length + Number(told(leftOut)[0]?.["lines"])).toBe(1000);
    }
  });

  test("has no more than 200 characters of a path, also where it is a fault of ours", async () => {
    const long = "x".repeat(9000);
    await app.sql`alter table images rename to images_away`;
    const lines = await logged(async (url) => {
      for (const path of [`/${long}`, `/source/${long}`, `/api/v1/updates/${long}`])
        await fetch(url + path);
      await fetch(`${url}/v1/images/1/${long.slice(0, 250)}`, { headers: KEY });
      await fetch(`${url}/v1/sessions/${long}`);
    });
    await app.sql`alter table images_away rename to images`;
    expect(lines.filter(({ path }) => typeof path === "string")).toHaveLength(6);
    expect(lines.filter(({ msg }) => msg === "request failed")).toHaveLength(1);
    for (const line of lines) {
      expect(JSON.stringify(line["path"] ?? "").length).toBeLessThanOrEqual(203);
      expect(JSON.stringify(line)).not.toContain("x".repeat(300));
    }
  });
});
