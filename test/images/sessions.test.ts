import { describe, expect, test } from "bun:test";

import { SessionIds } from "../../src/sessions/session-id.ts";
import { Tokens } from "../../src/sessions/token.ts";
import { metric, sessionRow } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { aFile, imageOf, imagesOf, upload } from "../support/images.ts";
import { indexState } from "../support/index-state.ts";

const PATHS = ["/v1/ios/images", "/v1/mobile/images"];
// No server of these tests is this worker.
const strangers = new SessionIds(() => 65_000);

const app = TestApp.forTests();

describe.each(PATHS)("at %s", (path) => {
  test("files of a session that is not to be recorded are answered 200, counted and not stored", async () => {
    const session = await app.aSession({ doNotRecord: true });
    const discarded = 'floodgate_images_total{outcome="discarded"}';
    const before = await metric(app, discarded);
    const { segments } = await indexState(app.sql, app.objects);
    const files = [aFile("private-1"), aFile("private-2")];
    expect((await upload(app, session, files, { path })).status).toBe(200);
    for (const name of ["private-1", "private-2"]) expect(await imageOf(app, name)).toBeUndefined();
    expect(await imagesOf(app, session)).toEqual([]);
    expect(await metric(app, discarded)).toBe(before + 2);
    expect((await indexState(app.sql, app.objects)).segments).toBe(segments);
  });

  test("files of a session without a row are stored under no project, and the row is made", async () => {
    const sessionId = strangers.next();
    const expiresAt = Date.now() + 60_000;
    const token = new Tokens(["test-secret"]).sign({ sessionId, delay: 0, expiresAt });
    const session = { token, sessionID: String(sessionId) };
    const name = `stranger ${path.length}`;
    expect((await upload(app, session, [aFile(name)], { path })).status).toBe(200);
    expect(await imageOf(app, name, 0)).toEqual(Uint8Array.from(Buffer.from(`bytes of ${name}`)));
    expect(await imageOf(app, name)).toBeUndefined();
    expect(await imagesOf(app, session)).toEqual([name]);
    expect(await sessionRow(app, session)).toMatchObject({ projectId: null, images: 1 });
  });
});
