import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { Type } from "typebox";

import { TestApp } from "../support/app.ts";
import { type Notification, PushApi, valid } from "../support/push-api.ts";

const DRAFT = 0;
const LAUNCHED = 1;
const SENT = 2;
const ERROR = 3;
const DELETED = 4;
const QUEUED = 5;
const ALL = [DRAFT, LAUNCHED, SENT, ERROR, DELETED, QUEUED];

const FCM = { FCM_CREDENTIALS: JSON.stringify({ project_id: "p", client_email: "e" }) };
const APNS = { APNS_KEY: "key", APNS_KEY_ID: "id", APNS_TEAM_ID: "team", APNS_TOPIC: "topic" };
const Launches = Type.Array(Type.Object({ launch: Type.Integer() }));

/** The devices whose property `by` has that value. */
function by(value: string) {
  return { key: "by", operator: "str_eq", value };
}

/** A server with devices for FCM, for APNs and for neither. */
async function appWith(env: Record<string, string>): Promise<TestApp> {
  const app = await TestApp.start({ env });
  const api = new PushApi(app);
  for (const [send_platform, name] of ["none", "fcm", "apns"].entries()) {
    const { external_id: externalId } = await api.putDevice({ send_platform });
    await api.setProperties(externalId, [{ key: "by", value: name }]);
  }
  return app;
}

/** How many times sending has been asked for. */
async function launches(app: TestApp, { uuid }: Notification): Promise<number> {
  const rows = await app.sql`select launch from notifications where uuid = ${uuid}`;
  return valid(Launches, [...rows])[0]?.launch ?? 0;
}

async function inStatus(api: PushApi, status: number): Promise<Notification> {
  const { uuid } = await api.draft({ conditions: by("fcm") });
  return status === DRAFT ? await api.notification(uuid) : await api.setStatus(uuid, status);
}

describe("without credentials", () => {
  let app: TestApp;
  let api: PushApi;

  beforeAll(async () => {
    app = await appWith({});
    api = new PushApi(app);
  });

  afterAll(async () => {
    await app[Symbol.asyncDispose]();
  });

  test.each([{}, by("fcm"), by("apns"), by("none"), by("nobody")])(
    "a launch to %j is answered with an error that says so, and stays one",
    async (conditions) => {
      const draft = await api.draft({ conditions });
      const launched = await api.launch(draft.uuid);
      const { error, modified_at } = launched;
      expect(launched).toEqual({ ...draft, status: ERROR, error, modified_at });
      expect(error).toMatch(/credentials/);
      expect(modified_at).not.toBe(null);
      expect(await api.notification(draft.uuid)).toEqual(launched);
      expect(await api.launch(draft.uuid)).toMatchObject({ status: ERROR, error });
    },
  );

  test.each([DRAFT, QUEUED, LAUNCHED, SENT])(
    "set to %d it is no error any more, and none is told",
    async (status) => {
      const { uuid } = await api.draft();
      const { error } = await api.launch(uuid);
      expect(await api.setStatus(uuid, ERROR)).toMatchObject({ status: ERROR, error });
      expect(await api.setStatus(uuid, status)).toMatchObject({ status, error: null });
    },
  );

  test("external workers may still tell what they have sent", async () => {
    const { uuid, status } = await inStatus(api, DRAFT);
    expect(status).toBe(DRAFT);
    expect(await api.setStatus(uuid, SENT)).toMatchObject({ status: SENT });
  });
});

test.each<[string, Record<string, string>, string, string, string]>([
  ["FCM", FCM, "fcm", "apns", "APNs"],
  ["APNs", APNS, "apns", "fcm", "FCM"],
])("with credentials for %s alone only who needs others is an error", async (...given) => {
  const [, env, reached, unreached, missing] = given;
  await using app = await appWith(env);
  const api = new PushApi(app);
  for (const conditions of [by(reached), by("none"), by("nobody")]) {
    const { uuid } = await api.draft({ conditions });
    expect(await api.launch(uuid)).toMatchObject({ status: QUEUED, error: null });
  }
  for (const conditions of [by(unreached), {}]) {
    const { uuid } = await api.draft({ conditions });
    const { status, error } = await api.launch(uuid);
    expect([status, error]).toEqual([ERROR, expect.stringContaining(missing)]);
  }
});

test("what cannot be sent anything needs no credentials", async () => {
  await using app = await appWith(FCM);
  const api = new PushApi(app);
  const { uuid } = await api.draft();
  expect(await api.launch(uuid)).toMatchObject({ status: ERROR });
  await app.sql`update devices set token_invalid = true where send_platform = 2`;
  await api.putDevice({ send_platform: 2, device_platform: 0 });
  await api.putDevice({ send_platform: 2, device_platform: 3 });
  await api.setStatus(uuid, DRAFT);
  expect(await api.launch(uuid)).toMatchObject({ status: QUEUED, error: null });
  await api.putDevice({ send_platform: 2, device_platform: 2 });
  const other = await api.draft();
  const { status, error } = await api.launch(other.uuid);
  expect([status, error]).toEqual([ERROR, "no credentials are configured for APNs"]);
});

describe("with credentials", () => {
  let app: TestApp;
  let api: PushApi;

  beforeAll(async () => {
    app = await appWith({ ...FCM, ...APNS });
    api = new PushApi(app);
  });

  afterAll(async () => {
    await app[Symbol.asyncDispose]();
  });

  test("a launch queues the draft and changes nothing else of it", async () => {
    const draft = await api.draft({ scheduled_at: "2099-12-24T18:00:00Z", deep_link: "a://b" });
    const launched = await api.launch(draft.uuid);
    expect(launched).toEqual({ ...draft, status: QUEUED, modified_at: launched.modified_at });
    expect(Date.parse(launched.modified_at ?? "")).toBeGreaterThanOrEqual(
      Date.parse(draft.created_at),
    );
    expect(await api.notification(draft.uuid)).toEqual(launched);
    expect(await api.list(`?status=${QUEUED}&size=1000`)).toMatchObject({
      items: expect.arrayContaining([launched]),
    });
  });

  test("a launch asks for no body and ignores any", async () => {
    for (const body of [undefined, "", "{", "[]", { status: 4 }, "x".repeat(100_000)]) {
      const { uuid } = await api.draft();
      const launched = await api.ok("POST", `/notifications/${uuid}/:launch`, body);
      expect(launched).toMatchObject({ uuid, status: QUEUED });
    }
  });

  test.each([QUEUED, LAUNCHED, SENT])("launched again in %d it stays as it is", async (status) => {
    const { uuid } = await api.draft({ conditions: by("fcm") });
    await api.launch(uuid);
    const before = await api.setStatus(uuid, status);
    for (let nth = 0; nth < 3; nth++) expect(await api.launch(uuid)).toEqual(before);
    expect(await launches(app, before)).toBe(1);
  });

  test.each([QUEUED, LAUNCHED])(
    "a draft that was only said to be in %d is launched, once",
    async (status) => {
      const { uuid } = await inStatus(api, status);
      const all = await Promise.all(Array.from({ length: 10 }, () => api.launch(uuid)));
      expect(all.map((one) => one.status)).toEqual(all.map(() => QUEUED));
      expect(await launches(app, all[0]!)).toBe(1);
    },
  );

  test("a draft that was said to be sent stays so", async () => {
    const before = await inStatus(api, SENT);
    expect(await api.launch(before.uuid)).toEqual(before);
    expect(await launches(app, before)).toBe(0);
  });

  test("launches at the same time are one", async () => {
    const draft = await api.draft();
    const all = await Promise.all(Array.from({ length: 20 }, () => api.launch(draft.uuid)));
    expect(all.map(({ status }) => status)).toEqual(all.map(() => QUEUED));
    expect(await launches(app, draft)).toBe(1);
    expect(await api.launch(draft.uuid)).toEqual(await api.notification(draft.uuid));
  });

  test("an error is launched again", async () => {
    const { uuid } = await inStatus(api, ERROR);
    expect(await api.launch(uuid)).toMatchObject({ status: QUEUED, error: null });
  });

  test("what was deleted is not launched", async () => {
    const deleted = await inStatus(api, DELETED);
    const [status, reason] = await api.refused("POST", `/notifications/${deleted.uuid}/:launch`);
    expect([status, reason]).toEqual([409, expect.stringContaining("deleted")]);
    expect(await api.notification(deleted.uuid)).toEqual(deleted);
    expect(await launches(app, deleted)).toBe(0);
  });

  test.each([QUEUED, LAUNCHED])("what is in %d can be deleted", async (status) => {
    const { uuid } = await inStatus(api, status);
    expect(await api.setStatus(uuid, DELETED)).toMatchObject({ status: DELETED });
    expect((await api.refused("POST", `/notifications/${uuid}/:launch`))[0]).toBe(409);
  });

  test.each([QUEUED, LAUNCHED, SENT, ERROR, DELETED])(
    "set to draft from %d it can be launched anew",
    async (status) => {
      const before = await inStatus(api, status);
      expect(await api.setStatus(before.uuid, DRAFT)).toMatchObject({ status: DRAFT });
      expect(await api.launch(before.uuid)).toMatchObject({ status: QUEUED, error: null });
      expect(await launches(app, before)).toBe(1);
    },
  );

  test("each launch after a draft is another one, on the same schedule", async () => {
    const draft = await api.draft({ scheduled_at: "2099-01-01" });
    for (const nth of [1, 2, 3]) {
      const { scheduled_at: due } = await api.launch(draft.uuid);
      expect(due).toBe(draft.scheduled_at);
      expect(await launches(app, draft)).toBe(nth);
      await api.setStatus(draft.uuid, DRAFT);
    }
  });
});

describe("PUT status", () => {
  const app = TestApp.forTests();
  const api = new PushApi(app);

  test("takes every status from every status, and tells when", async () => {
    for (const from of ALL)
      for (const to of ALL) {
        const before = await inStatus(api, from);
        const after = await api.setStatus(before.uuid, to);
        expect(after).toEqual({ ...before, status: to, modified_at: after.modified_at });
        expect(after.modified_at).not.toBe(null);
        expect(await api.notification(before.uuid)).toEqual(after);
        if (before.modified_at !== null)
          expect(Date.parse(after.modified_at ?? "")).toBeGreaterThanOrEqual(
            Date.parse(before.modified_at),
          );
      }
  });

  test("ignores whatever else is sent", async () => {
    const draft = await api.draft();
    const body = { status: SENT, title: "other", sent: { ios: 9 }, error: "x", uuid: null };
    const path = `/notifications/${draft.uuid}/status`;
    expect(await api.ok("PUT", path, body)).toMatchObject({
      ...draft,
      status: SENT,
      modified_at: expect.any(String),
    });
  });

  test.each<[unknown]>([[6], [-1], [1.5], ["1"], [null], [undefined], [true], [[1]], [{}]])(
    "%j is none",
    async (status) => {
      const draft = await api.draft();
      const path = `/notifications/${draft.uuid}/status`;
      expect(await api.refused("PUT", path, { status })).toEqual([
        400,
        expect.stringContaining("status"),
      ]);
      expect(await api.notification(draft.uuid)).toEqual(draft);
    },
  );
});
