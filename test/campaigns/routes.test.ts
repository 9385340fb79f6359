import { afterEach, describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { PushApi, node } from "../support/push-api.ts";

const UNKNOWN = "5f0c0f0e-3a51-4a57-9d4b-6f4d6d1c1b1a";
const PRO = { key: "plan", operator: "str_eq", value: "pro" };
const PAST: [number, string] = [400, "scheduled_at should later than current time"];

const app = TestApp.forTests();
const api = new PushApi(app);

async function refusedDraft(fields: object): Promise<[number, string]> {
  const body = { title: "Hello", body: "News", conditions: {}, ...fields };
  return await api.refused("POST", "/notifications", body);
}

function ago(ms: number): string {
  return new Date(Date.now() - ms).toISOString();
}

describe("a draft", () => {
  test("of the least that is needed is scheduled for now", async () => {
    const fromMs = Date.now();
    const { id, uuid, scheduled_at: due, created_at: created, ...rest } = await api.draft();
    expect(rest).toStrictEqual({
      title: "Hello",
      body: "There is news.",
      sent: { android: 0, ios: 0 },
      deep_link: null,
      image_url: null,
      icon_url: null,
      conditions: node(),
      status: 0,
      modified_at: null,
      sent_web: 0,
      targeted: 0,
      failed: 0,
      error: null,
    });
    for (const time of [due, created]) {
      expect(Date.parse(time)).toBeGreaterThanOrEqual(fromMs - 50);
      expect(Date.parse(time)).toBeLessThanOrEqual(Date.now() + 50);
    }
    expect(await api.notification(uuid)).toMatchObject({ id, uuid, created_at: created });
  });

  test("keeps all that it is given, and is found by its uuid", async () => {
    const fields = {
      title: "x".repeat(255),
      body: `"quoted" \\ 'text'\n${"é".repeat(1000)}`,
      deep_link: "app://news?a=1",
      image_url: "https://example.com/a.png",
      icon_url: "",
      scheduled_at: "2099-12-24T18:00:00.000Z",
    };
    const draft = await api.draft({ ...fields, id: 7, uuid: "x", status: 2, sent: 5, error: "e" });
    expect(draft).toMatchObject({ ...fields, status: 0, error: null });
    expect(await api.notification(draft.uuid)).toEqual(draft);
    expect(await api.notification(draft.uuid.toUpperCase())).toEqual(draft);
  });

  test("may have a title of 255 characters outside of the first plane", async () => {
    const title = "😀".repeat(255);
    expect(await api.draft({ title })).toMatchObject({ title });
  });

  test("does nothing by itself: it is neither queued nor does it target anyone", async () => {
    await api.putDevice({ external_id: "quiet" });
    const { uuid } = await api.draft();
    expect(await api.notification(uuid)).toMatchObject({ status: 0, targeted: 0 });
    expect(await api.events("quiet")).toEqual({ total: 0, events: [] });
  });

  test("takes null for what is optional", async () => {
    const nulls = { image_url: null, icon_url: null, deep_link: null, scheduled_at: null };
    expect(await api.draft(nulls)).toMatchObject({ image_url: null, deep_link: null });
  });

  test.each<[string, object]>([
    ["title", { title: undefined }],
    ["title", { title: null }],
    ["title", { title: 5 }],
    ["title", { title: "x".repeat(256) }],
    ["title", { title: "a\0b" }],
    ["body", { body: undefined }],
    ["body", { body: null }],
    ["body", { body: ["text"] }],
    ["body", { body: "a\0b" }],
    ["image_url", { image_url: 5 }],
    ["icon_url", { icon_url: {} }],
    ["deep_link", { deep_link: true }],
    ["deep_link", { deep_link: "a\0b" }],
  ])("names %s when it is wrong: %j", async (field, fields) => {
    expect(await refusedDraft(fields)).toEqual([400, expect.stringContaining(field)]);
  });
});

describe("conditions of a draft", () => {
  test("are handed back with all five keys in every node", async () => {
    const conditions = {
      join_type: "OR",
      key: "ignored",
      conditions: [
        { join_type: "AND", conditions: [{ key: "age", operator: "int_gte", value: " +18" }, {}] },
        { ...PRO, join_type: "AND" },
      ],
    };
    const draft = await api.draft({ conditions });
    expect(draft.conditions).toMatchObject({ join_type: "OR", operator: null });
    const [group, pro] = [draft.conditions["conditions"]].flat();
    expect(pro).toMatchObject({ ...PRO, conditions: null });
    expect(group).toMatchObject({ join_type: "AND", key: null, value: null, operator: null });
    const nodes = [
      draft.conditions,
      group,
      pro,
      ...[Reflect.get(Object(group), "conditions")].flat(),
    ];
    expect(nodes.length).toBe(5);
    for (const one of nodes)
      expect(Object.keys(Object(one)).toSorted()).toEqual(Object.keys(node()).toSorted());
    expect(nodes[3]).toMatchObject({ key: "age", operator: "int_gte" });
    expect(Number(Reflect.get(Object(nodes[3]), "value"))).toBe(18);
    expect(nodes[4]).toEqual(node());
    const again = await api.draft({ conditions: draft.conditions });
    expect(again.conditions).toEqual(draft.conditions);
  });

  test.each([{}, node(), { value: null }, { unknown: undefined }])(
    "%j is everyone",
    async (all) => {
      expect((await api.draft({ conditions: all })).conditions).toEqual(node());
    },
  );

  test.each<[string, unknown]>([
    ["absent", undefined],
    ["null", null],
    ["a list", []],
    ["a text", "all"],
    ["an unknown operator", { ...PRO, operator: "str_ne" }],
    ["an unknown join type", { join_type: "NOT", conditions: [PRO] }],
    ["an operand that is no integer", { key: "age", operator: "int_eq", value: "1.5" }],
    ["an empty group", { join_type: "AND", conditions: [] }],
    ["no value", { ...PRO, value: null }],
    ["no key", { ...PRO, key: null }],
    ["201 leaves", { join_type: "OR", conditions: Array.from({ length: 201 }, () => PRO) }],
  ])("that are wrong are refused: %s", async (_what, conditions) => {
    const wrong = expect.stringMatching(/^wrong condition clause /);
    expect(await refusedDraft({ conditions })).toEqual([400, wrong]);
  });
});

describe("a schedule", () => {
  const zone = process.env["TZ"];

  afterEach(() => {
    if (zone === undefined) delete process.env["TZ"];
    else process.env["TZ"] = zone;
  });

  const readings = [
    ["2099-12-24T18:00:00Z", "2099-12-24T18:00:00.000Z"],
    ["2099-12-24T18:00:00", "2099-12-24T18:00:00.000Z"],
    ["2099-12-24 18:00", "2099-12-24T18:00:00.000Z"],
    ["2099-12-24T18:00:00.123456", "2099-12-24T18:00:00.123Z"],
    ["2099-12-24T18:00:00+09:00", "2099-12-24T09:00:00.000Z"],
    ["2099-12-24T18:00:00-0330", "2099-12-24T21:30:00.000Z"],
    ["2099-12-24", "2099-12-24T00:00:00.000Z"],
    [" 2099-12-24T18:00:00Z ", "2099-12-24T18:00:00.000Z"],
    ["Thu, 24 Dec 2099 18:00:00 GMT", "2099-12-24T18:00:00.000Z"],
    ["Dec 24 2099 18:00", "2099-12-24T18:00:00.000Z"],
    ["December 24, 2099", "2099-12-24T00:00:00.000Z"],
    ["2099/12/24 18:00:00", "2099-12-24T18:00:00.000Z"],
    ["12-24-2099", "2099-12-24T00:00:00.000Z"],
    ["12/24/2099 6:00 PM +02:00", "2099-12-24T16:00:00.000Z"],
    ["24 Dec 2099 18:00 EST", "2099-12-24T23:00:00.000Z"],
    ["24 Dec 2099 18:00:00 GMT+0200 (Central European Time)", "2099-12-24T16:00:00.000Z"],
  ] as const;

  test.each(readings)("%j means the same wherever the server is", async (text, wanted) => {
    for (const place of ["UTC", "Asia/Tokyo", "America/St_Johns"]) {
      process.env["TZ"] = place;
      const { scheduled_at: due } = await api.draft({ scheduled_at: text });
      expect([place, due]).toEqual([place, wanted]);
    }
  });

  test.each<[unknown]>([[""], [null], [undefined]])("%j is now", async (text) => {
    const { scheduled_at: due } = await api.draft({ scheduled_at: text });
    expect(Math.abs(Date.parse(due) - Date.now())).toBeLessThan(2000);
  });

  test("in the past is refused, from the present second on it is taken", async () => {
    for (const text of ["2020-01-01T00:00:00Z", "1969-12-31", ago(1000), "2026-01-01T00:00:00"])
      expect(await refusedDraft({ scheduled_at: text })).toEqual(PAST);
    expect(await api.draft({ scheduled_at: ago(-1000) })).toMatchObject({ status: 0 });
  });

  test.each<[unknown]>([
    ["garbage"],
    ["tomorrow"],
    ["12:00"],
    ["2099-13-01"],
    ["2099-02-30"],
    ["2099-12-24T25:00:00Z"],
    ["2099-12-24T18:00:00 nowhere"],
    ["party 5 2099"],
    ["+02:00 12/24/2099 6:00 PM"],
    ["24 Dec 2099 18:00 CET"],
    ["99999-01-01"],
    [4_101_840_000],
    [0],
    [true],
    [["2099-12-24"]],
    [{}],
  ])("%j is no date", async (given) => {
    const named = expect.stringContaining("scheduled_at");
    const [status, reason] = await refusedDraft({ scheduled_at: given });
    expect([status, reason]).toEqual([400, named]);
    expect(reason).not.toBe(PAST[1]);
  });
});

describe("one notification", () => {
  test.each([UNKNOWN, "1", "x", "-", "a/b", "😀", `${UNKNOWN}0`, "a\0b", "'"])(
    "%j is not found, on any route",
    async (uuid) => {
      const path = `/notifications/${encodeURIComponent(uuid)}`;
      const unknown: [number, string] = [404, `notification not found ${uuid}`];
      expect(await api.refused("GET", path)).toEqual(unknown);
      expect(await api.refused("PUT", `${path}/status`, { status: 4 })).toEqual(unknown);
      if (uuid !== "-") expect(await api.refused("POST", `${path}/:launch`)).toEqual(unknown);
    },
  );

  test("is looked for before its new status is", async () => {
    const unknown: [number, string] = [404, `notification not found ${UNKNOWN}`];
    for (const body of [{}, [], { status: "x" }, { status: 99 }, "{", ""])
      expect([body, await api.refused("PUT", `/notifications/${UNKNOWN}/status`, body)]).toEqual([
        body,
        unknown,
      ]);
  });
});
