import { expect, test } from "bun:test";

import { parseJson } from "../../src/platform/json.ts";
import { TestApp } from "../support/app.ts";
import { objectOf } from "../support/answers.ts";
import { eventually, undelayedMs } from "../support/eventually.ts";
import { APNS_PEM, PushServer, serviceAccount, TokenServer } from "../support/push-servers.ts";
import { ServerProcess, envOf } from "../support/server-process.ts";
import { MAIN } from "../support/program.ts";

// More than can be sent in the time of all kills: after each there must be some left.
const [KILLS, TARGETS] = process.env["TEST_LONG"] === undefined ? [3, 12_000] : [20, 100_000];
const CONCURRENCY = 400;
const LATENCY_MS = 100;
// A lease runs out after three seconds.
const RESUMED_MS_MAX = 5000;
const KILL_MS_MAX = 1000;

test("a worker that is killed at any moment leaves nobody out, and repeats only what was under way", async () => {
  const push = new Map<string, { apnsIds: Set<string>; collapseIds: Set<string>; times: number }>();
  let lastMs = 0;
  await using server = await PushServer.start(({ path, headers, body }) => {
    // A kill cuts bodies short: an incomplete request does not count as sent.
    if (parseJson(body) === undefined) return { status: 400 };
    const token = path.startsWith("/3/device/")
      ? path
      : String(/"token":"([^"]*)"/.exec(body)?.[1]);
    const known = push.get(token) ?? { apnsIds: new Set(), collapseIds: new Set(), times: 0 };
    known.times++;
    known.apnsIds.add(String(headers["apns-id"]));
    known.collapseIds.add(
      String(headers["apns-collapse-id"] ?? /"collapse_key":"([^"]*)"/.exec(body)?.[1]),
    );
    push.set(token, known);
    lastMs = performance.now();
    const isFcm = !path.startsWith("/3/device/");
    return {
      status: 200,
      delayMs: LATENCY_MS,
      ...(isFcm && { body: '{"name":"projects/shop-123/messages/1"}' }),
    };
  });
  await using tokens = new TokenServer();
  const env = {
    FCM_CREDENTIALS: JSON.stringify({ type: "service_account", ...serviceAccount(tokens.url) }),
    FCM_BASE_URL: server.url,
    APNS_KEY: APNS_PEM,
    APNS_KEY_ID: "ABC123DEFG",
    APNS_TEAM_ID: "DEF123GHIJ",
    APNS_TOPIC: "com.example.app",
    APNS_BASE_URL: server.url,
    PUSH_CONCURRENCY: String(CONCURRENCY),
  };
  await using app = await TestApp.start({ env });
  await app.sql`
      insert into devices (external_id, push_token, send_platform, device_platform)
      select 'd' || nth, lpad(to_hex(nth), 64, '0'), 1 + nth % 2, 1 + nth % 2 from generate_series(1, ${TARGETS}) as nth`;
  const draft = { title: "Hello", body: "There is news.", conditions: {} };
  const { result } = await objectOf(app.post("/notifications", JSON.stringify(draft)));
  const { uuid } = Object(result);
  await app.post(`/notifications/${uuid}/:launch`, "{}");

  const work = async () => await ServerProcess.start({ ...envOf(app), ...env }, [MAIN, "work"]);
  let worker = await work();
  const waits: number[] = [];
  for (let kill = 0; kill < KILLS; kill++) {
    const before = push.size;
    await eventually("it goes on", () => push.size > before, 15_000);
    await Bun.sleep(Math.random() * KILL_MS_MAX);
    await worker.kill();
    const killedMs = performance.now();
    const killedUndelayedMs = undelayedMs();
    const sent = lastMs;
    worker = await work();
    await eventually("it is resumed", () => lastMs > sent && lastMs > killedMs + 50, 15_000);
    waits.push(undelayedMs() - killedUndelayedMs);
  }
  const state = async () => Object((await objectOf(app.fetch(`/notifications/${uuid}`)))["result"]);
  await eventually("it is sent", async () => (await state()).status === 2, 120_000);
  await using _ = worker;

  const sends = [...push.values()];
  const repeated = sends.reduce((sum, { times }) => sum + times - 1, 0);
  process.stderr.write(
    `${KILLS} kills, ${TARGETS} targets: ${repeated} sent again, resumed within ${waits.map(Math.round).join(" ")} ms\n`,
  );
  expect(push.size).toBe(TARGETS);
  expect(repeated).toBeLessThanOrEqual(KILLS * CONCURRENCY);
  for (const { apnsIds, collapseIds } of sends) {
    expect(apnsIds.size).toBe(1);
    expect(collapseIds.size).toBe(1);
  }
  expect(await state()).toMatchObject({
    targeted: TARGETS,
    failed: 0,
    sent: { android: TARGETS / 2, ios: TARGETS / 2 },
  });
  expect(Math.max(...waits)).toBeLessThan(RESUMED_MS_MAX);
}, 600_000);
