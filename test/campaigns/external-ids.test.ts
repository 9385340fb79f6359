import { beforeAll, beforeEach, describe, expect, test } from "bun:test";

import { STATUS } from "../../src/campaigns/enums.ts";
import { TestApp } from "../support/app.ts";
import { CampaignDatabase, FakeProvider } from "../support/campaigns.ts";
import { PushApi, node } from "../support/push-api.ts";

const PRO = { key: "plan", operator: "str_eq", value: "pro" };
const ESTIMATE = "/notifications/-/:estimate";
const WRONG: [string, unknown][] = [
  ["null", null],
  ["a text", "a"],
  ["an object", {}],
  ["empty", []],
  ["numbers", [1]],
  ["null among texts", ["a", null]],
  ["lists", [["a"]]],
  ["NUL in a text", ["a\0b"]],
  ["half a character", ["\ud800"]],
  ["more than 10,000", Array.from({ length: 10_001 }, (_, n) => `d${n}`)],
];

describe("requests", () => {
  const app = TestApp.forTests();
  const api = new PushApi(app);

  beforeAll(async () => {
    for (const [id, plan] of [
      ["a", "pro"],
      ["b", "pro"],
      ["c", "free"],
    ]) {
      await api.putDevice({ external_id: id });
      await api.setProperties(id ?? "", [{ key: "plan", value: plan }]);
    }
  });

  async function estimated(body: object): Promise<unknown> {
    return await api.ok("POST", ESTIMATE, body);
  }

  test("keep the external ids of a draft, each once, and show them with the campaign", async () => {
    const drafted = await api.draft({ external_ids: ["b", "a", "b", "nobody"] });
    expect(drafted).toMatchObject({ conditions: node(), external_ids: ["b", "a", "nobody"] });
    expect(await api.notification(drafted.uuid)).toEqual(drafted);
    expect(await api.setStatus(drafted.uuid, STATUS.draft)).toMatchObject({
      external_ids: ["b", "a", "nobody"],
    });
    expect(await api.launch(drafted.uuid)).toMatchObject({
      conditions: node(),
      external_ids: ["b", "a", "nobody"],
    });
  });

  test("list campaigns without them, which may be many", async () => {
    const { external_ids: _, ...drafted } = await api.draft({
      conditions: PRO,
      external_ids: ["a"],
    });
    const { items } = await api.list("?order_bys=-created_at&size=1");
    expect(items).toEqual([drafted]);
  });

  test("estimate those that are named and meet the conditions", async () => {
    expect(await estimated({ external_ids: ["a", "c", "nobody"] })).toEqual({ count: 2 });
    expect(await estimated({ external_ids: ["a", "c"], conditions: {} })).toEqual({ count: 2 });
    expect(await estimated({ external_ids: ["a", "c"], conditions: PRO })).toEqual({ count: 1 });
    expect(await estimated({ external_ids: ["nobody"], conditions: {} })).toEqual({ count: 0 });
    expect(await estimated({ conditions: PRO })).toEqual({ count: 2 });
    expect(await estimated({})).toEqual({ count: 3 });
  });

  test("take 10,000", async () => {
    const ids = Array.from({ length: 10_000 }, (_, n) => `user-${String(n).padStart(32, "0")}`);
    const { uuid } = await api.draft({ external_ids: ids });
    expect((await api.notification(uuid)).external_ids).toEqual(ids);
    expect(await estimated({ external_ids: [...ids.slice(1), "a"] })).toEqual({ count: 1 });
  });

  test.each(WRONG)("are refused with ids that are wrong: %s", async (_what, ids) => {
    const named: [number, string] = [400, expect.stringContaining("external_ids")];
    const given = { conditions: {}, external_ids: ids };
    expect(
      await api.refused("POST", "/notifications", { title: "t", body: "b", ...given }),
    ).toEqual(named);
    expect(await api.refused("POST", ESTIMATE, given)).toEqual(named);
  });

  test("still need conditions beside them in a draft", async () => {
    const draft = { title: "t", body: "b", external_ids: ["a"] };
    expect(await api.refused("POST", "/notifications", draft)).toEqual([
      400,
      expect.stringMatching(/^wrong condition clause/),
    ]);
  });
});

describe("a campaign", () => {
  const all = CampaignDatabase.forTests();

  beforeEach(async () => {
    await all.sql`
      insert into devices (external_id, push_token, send_platform, device_platform, properties)
      select 'd' || nth, 'token-' || nth, 1, 1, jsonb_build_object('plan', case when nth % 2 = 0 then 'pro' else 'free' end)
      from generate_series(1, 3000) as nth`;
  });

  async function sentTo(conditions: unknown, externalIds: string[]): Promise<string[]> {
    const provider = new FakeProvider();
    const id = await all.launch(conditions, "0 s", externalIds);
    await using _ = all.working(provider);
    await all.reaches(id, STATUS.sent, 30_000);
    const tokens = provider.sent.map(({ target }) => target.token);
    expect(await all.stateOf(id)).toMatchObject({
      targeted: tokens.length,
      android: tokens.length,
      failed: 0,
    });
    return tokens.toSorted();
  }

  test("to everybody among external ids goes to exactly these", async () => {
    expect(await sentTo({}, ["d3", "nobody", "d2999", "d4"])).toEqual([
      "token-2999",
      "token-3",
      "token-4",
    ]);
  });

  test("with conditions goes to those among the external ids that meet them", async () => {
    expect(await sentTo(PRO, ["d3", "d2999", "d4"])).toEqual(["token-4"]);
  });

  test("to unknown devices alone goes to nobody", async () => {
    expect(await sentTo({}, ["nobody", "token-1"])).toEqual([]);
  });

  test("to more devices than one statement walks goes to each once", async () => {
    const ids = Array.from({ length: 2500 }, (_, n) => `d${n + 1}`);
    expect(new Set(await sentTo({}, ids)).size).toBe(2500);
  });

  test("that a worker left goes on with the external ids that have no outcome", async () => {
    const provider = new FakeProvider();
    const id = await all.launch({}, "0 s", ["d1", "d2", "d3"]);
    await all.sql`
      update notifications set targeted = 2, device_cursor = 2, status = ${STATUS.launched} where id = ${id}`;
    await all.sql`
      insert into device_events (device_id, notification_id, launch, event)
      values (1, ${id}, 1, 0), (1, ${id}, 1, 1), (2, ${id}, 1, 0)`;
    await using _ = all.working(provider);
    await all.reaches(id, STATUS.sent);
    expect(provider.sent.map(({ target }) => target.token).toSorted()).toEqual([
      "token-2",
      "token-3",
    ]);
  });

  test("is stored in a form that the version before refuses instead of sending it to everybody", async () => {
    const id = await all.launch({}, "1 h", ["d1"]);
    const [row] = await all.sql<{ conditions: { conditions: unknown } }[]>`
      select conditions from notifications where id = ${id}`;
    // The previous version expects a list or null there, and throws for anything else.
    expect(row?.conditions.conditions).toEqual(node());
  });
});
