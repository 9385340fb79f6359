import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";

import { SessionIds } from "../../src/sessions/session-id.ts";
import { Tokens } from "../../src/sessions/token.ts";
import { refusalOf } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { runCommand } from "../support/command.ts";
import { eventually } from "../support/eventually.ts";
import { type TestProject, aProject } from "../support/projects.ts";
import { uploadImage } from "../support/images.ts";
import { type ServerBeside, append, serverBeside } from "../support/requests.ts";
import { envOf } from "../support/server-process.ts";

setDefaultTimeout(30_000);

const APPLIED_MS_MAX = 5000;
const PATHS = [
  "/v1/ios/append",
  "/v1/ios/i",
  "/v1/ios/late",
  "/v1/mobile/i",
  "/v1/mobile/late",
] as const;

let app: TestApp;
let beside: ServerBeside;

beforeAll(async () => {
  app = await TestApp.start();
  beside = await serverBeside(app);
});
afterAll(async () => {
  await beside[Symbol.asyncDispose]();
  await app[Symbol.asyncDispose]();
});

async function update(project: TestProject, ...change: string[]): Promise<void> {
  const { code, err } = await runCommand(
    ["project", "update", String(project.id), ...change],
    envOf(app),
  );
  expect([code, err]).toEqual([0, ""]);
}

let salt = 0;
const send = async (session: TestSession, path: string) =>
  await app.append(session, aBatch({ salt: `${++salt}` }), path);

/** Resolves when both servers answer a batch with that status. */
async function applied(session: TestSession, status: number): Promise<void> {
  await eventually(
    `both servers answer ${status}`,
    async () => {
      const batches = [app, beside].map(
        async (one) => (await append(one, session, aBatch({ salt: `${++salt}` }))).status,
      );
      return (await Promise.all(batches)).every((one) => one === status);
    },
    APPLIED_MS_MAX,
  );
}

describe("a project that is switched off while its sessions' tokens are valid", () => {
  let project: TestProject;
  let session: TestSession;

  beforeAll(async () => {
    project = await aProject(app);
    session = await app.aSession({ projectID: project.projectID });
    expect((await send(session, PATHS[0])).status).toBe(200);
    await update(project, "--active", "false");
    await applied(session, 401);
  });

  test.each(PATHS)("has its batches refused with 401 on %s", async (path) => {
    const refused = await send(session, path);
    expect(refused.headers.get("access-control-allow-origin")).toBe("*");
    expect(await refusalOf(refused)).toEqual([401, "project is not active"]);
  });

  test("has its images refused, too", async () => {
    const target = { url: app.url, projectID: project.projectID };
    const refused = uploadImage(target, session, "image", new Uint8Array([1]));
    expect(await refusalOf(refused)).toEqual([401, "project is not active"]);
  });

  test("starts no session, not even with a live token", async () => {
    const { projectID } = project;
    for (const fields of [{ projectID }, { projectID, token: session.token }])
      expect(await refusalOf(app.start(fields))).toEqual([404, "project is not active"]);
  });

  test("leaves others alone, and sessions of which nothing is known", async () => {
    expect((await send(await app.aSession(), PATHS[0])).status).toBe(200);
    const sessionId = new SessionIds(() => 60_001).next();
    const token = new Tokens(["test-secret"]).sign({
      sessionId,
      delay: 0,
      expiresAt: Date.now() + 60_000,
    });
    for (let batch = 0; batch < 2; batch++)
      expect((await send({ token, sessionID: String(sessionId) }, PATHS[0])).status).toBe(200);
  });

  test("takes them again once it is switched on, with the tokens of before", async () => {
    await update(project, "--active", "true");
    await applied(session, 200);
    for (const path of PATHS) expect((await send(session, path)).status).toBe(200);
    const resumed = await app.aSession({ projectID: project.projectID, token: session.token });
    expect(resumed.sessionID).toBe(session.sessionID);
  });
});

test("a project that records no new sessions goes on with those that it has", async () => {
  const project = await aProject(app);
  const session = await app.aSession({ projectID: project.projectID });
  await update(project, "--sample-rate", "0");
  await eventually(
    "no start is sampled",
    async () => (await app.start({ projectID: project.projectID })).status === 403,
    APPLIED_MS_MAX,
  );
  expect((await send(session, PATHS[0])).status).toBe(200);
});

test("data of a project without a row is taken: the database may be being rebuilt", async () => {
  const project = await aProject(app);
  const session = await app.aSession({ projectID: project.projectID });
  await app.sql`delete from projects where id = ${project.id}`;
  await eventually("the process has heard of it", async () => {
    const start = await app.fetch("/v1/ios/start", {
      method: "POST",
      body: JSON.stringify({ projectID: project.projectID, trackerVersion: "1.0.14" }),
    });
    return start.status === 404;
  });
  for (const path of PATHS) expect((await send(session, path)).status).toBe(200);
});
