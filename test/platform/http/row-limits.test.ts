import { expect, setDefaultTimeout, test } from "bun:test";

import { metric } from "../../support/answers.ts";
import { TestApp } from "../../support/app.ts";
import { aUser, pingAnswer } from "../../support/presence.ts";
import { aProject } from "../../support/projects.ts";
import { uploadImage } from "../../support/images.ts";
import { UserApi, USER } from "../../support/users.ts";
import { stringifyExact } from "../../../src/wire/exact-json.ts";

setDefaultTimeout(30_000);

const WINDOW_S = 5;
// Rows let in at once by the limits below, per address and per process.
const OF_ADDRESS = 2 * WINDOW_S;
const OF_PROCESS = 4 * WINDOW_S;
const BEHIND_PROXY = { TRUSTED_PROXIES: "127.0.0.0/8,::1/128" };

let addresses = 0;
const from = (address = `192.0.2.${++addresses}`) => ({ "x-forwarded-for": address });

type Headers = Record<string, string>;
/** Creates a row for a new name, or updates the row of a known one. */
type Make = (app: TestApp, name: string, headers: Headers) => Promise<Response>;

let api: UserApi;

const start: Make = async (app, name, headers) =>
  await app.start({ userID: name }, "/v1/ios/start", headers);
const report: Make = async (_app, name, headers) =>
  await api.post(stringifyExact({ ...USER, DeviceMac: name }), {
    signature: api.client,
    ...headers,
  });
const image: Make = async (app, name, headers) => {
  const session = await app.aSession();
  const form = new FormData();
  form.set("projectID", String(app.projectID));
  form.set("file", new File([name], name, { type: "image/png" }));
  return await app.post("/v1/ios/images", form, {
    authorization: `Bearer ${session.token}`,
    ...headers,
  });
};
const ping: Make = async (app, name, headers) =>
  await app.post("/ping", JSON.stringify({ status: "0" }), {
    "x-user-claim": JSON.stringify({ userid: name }),
    ...headers,
  });

const KINDS: [kind: string, variable: string, make: Make, what: string, plain: boolean][] = [
  ["starts", "RATE_LIMIT_STARTS", start, "session starts", false],
  ["installs", "RATE_LIMIT_INSTALLS", report, "new users", true],
  ["image_names", "RATE_LIMIT_IMAGE_NAMES", image, "new images", false],
  ["presence_users", "RATE_LIMIT_PRESENCE_USERS", ping, "new users", false],
];

/** Tries to create `many` rows; returns the names that were accepted, and the last refusal. */
async function made(
  app: TestApp,
  make: Make,
  many: number,
  headers: () => Headers,
): Promise<{ taken: string[]; refused: Response | undefined }> {
  const taken: string[] = [];
  let refused: Response | undefined;
  for (let i = 0; i < many; i++) {
    const name = aUser("row");
    const answer = await make(app, name, headers());
    if (answer.status === 200) taken.push(name);
    else refused = answer;
  }
  return { taken, refused };
}

test.each(KINDS)("the limit of %s holds for an address and for the process", async (...row) => {
  const [kind, variable, make, what, isPlain] = row;
  await using app = await TestApp.start({
    env: { ...BEHIND_PROXY, [variable]: "4", [`${variable}_ADDRESS`]: "2" },
  });
  api = await UserApi.of(app);
  const refusal = (message: string) =>
    isPlain ? `${message}\n` : JSON.stringify({ error: message });

  const address = from();
  const { taken, refused } = await made(app, make, OF_ADDRESS + 3, () => address);
  expect(taken).toHaveLength(OF_ADDRESS);
  expect(refused?.status).toBe(429);
  expect(refused?.headers.get("retry-after")).toMatch(/^[1-5]$/);
  expect(await refused?.text()).toBe(refusal(`too many ${what} of this address, send it again`));
  expect(await metric(app, `floodgate_limited_total{limit="${kind}_address"}`)).toBe(3);

  // Other addresses get the rest of the process's limit; on a slow machine that of the next window,
  // too.
  let others = 0;
  let last = await make(app, aUser("row"), from());
  for (; last.status === 200; last = await make(app, aUser("row"), from())) others++;
  expect(others).toBeGreaterThanOrEqual(OF_PROCESS - OF_ADDRESS);
  expect(last.headers.get("retry-after")).toMatch(/^[1-5]$/);
  expect(await last.text()).toBe(refusal(`too many ${what}, send it again`));
  expect(await metric(app, `floodgate_limited_total{limit="${kind}"}`)).toBe(1);
});

test("what makes no row is not refused: a resumed start, a known user, image or install", async () => {
  const limits = Object.fromEntries(
    KINDS.flatMap(([, variable]) => [
      [variable, "1"],
      [`${variable}_ADDRESS`, "1"],
    ]),
  );
  await using app = await TestApp.start({ env: { ...BEHIND_PROXY, ...limits } });
  api = await UserApi.of(app);
  const session = await app.aSession();
  const target = { url: app.url, projectID: app.projectID };
  const known = aUser();
  const again = async () => [
    (await app.start({ token: session.token })).status,
    (await report(app, "known", {})).status,
    (await uploadImage(target, session, "known", new Uint8Array([1]))).status,
    (await pingAnswer(app, { userid: known, status: "0" })).status,
  ];
  for (let i = 0; i < 3 * WINDOW_S; i++) expect(await again()).toEqual([200, 200, 200, 200]);
  // New rows of the same kinds are refused by now.
  for (const make of [start, report, ping]) {
    const { refused } = await made(app, make, 2 * WINDOW_S, () => ({}));
    expect(refused?.status).toBe(429);
  }
  expect(await again()).toEqual([200, 200, 200, 200]);
});

test("a start that is not recorded at all by its project's rate does not count", async () => {
  await using app = await TestApp.start({ env: { RATE_LIMIT_STARTS: "1" } });
  const none = await aProject(app, { sampleRate: 0 });
  for (let i = 0; i < 3 * WINDOW_S; i++)
    expect((await app.start({ projectID: none.projectID })).status).toBe(403);
  expect((await app.start()).status).toBe(200);
});

test("users that the database knows pass on a process that does not, whatever the limit", async () => {
  await using app = await TestApp.start({
    env: { ...BEHIND_PROXY, RATE_LIMIT_PRESENCE_USERS: "1" },
  });
  const many = 3 * WINDOW_S;
  const users = Array.from({ length: many }, () => aUser("old"));
  for (const userid of users)
    await app.sql`insert into presence_devices (user_id, client_id, changed_at, gone)
      values (${userid}, '', now() - interval '1 day', true)`;
  for (const userid of users)
    expect((await pingAnswer(app, { userid, status: "0" })).status).toBe(200);
  const { taken } = await made(app, ping, many, () => ({}));
  expect(taken).toEqual([]);
});

test("an address that may stand for many has no limit of its own", async () => {
  const env = { RATE_LIMIT_STARTS_ADDRESS: "1" };
  const many = 3 * WINDOW_S;
  const taken = async (app: TestApp, headers: () => Headers) =>
    (await made(app, start, many, headers)).taken.length;
  // A proxy that is not in TRUSTED_PROXIES, with a client on this machine.
  await using unknown = await TestApp.start({ env: { ...env, TRUSTED_PROXIES: "10.0.0.0/8" } });
  expect(await taken(unknown, () => from("192.0.2.200"))).toBe(many);
  // A trusted proxy that names no client, and one that names a private address.
  await using known = await TestApp.start({ env: { ...env, ...BEHIND_PROXY } });
  expect(await taken(known, () => ({}))).toBe(many);
  expect(await taken(known, () => from("10.1.2.3"))).toBe(WINDOW_S);
});

test("off is no limit", async () => {
  const env = { RATE_LIMIT_STARTS: "off", RATE_LIMIT_STARTS_ADDRESS: "off", ...BEHIND_PROXY };
  await using app = await TestApp.start({ env });
  const address = from();
  const many = 20;
  expect((await made(app, start, many, () => address)).taken).toHaveLength(many);
});
