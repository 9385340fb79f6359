import { Type } from "typebox";
import { Value } from "typebox/value";

import { objectOf } from "./answers.ts";
import { type TestApp, type TestSession } from "./app.ts";

export const WEB_START = "/v1/web/start";
/** User agent of a browser on a desktop. */
export const CHROME =
  "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.0.0 Safari/537.36";

const Started = Type.Object({ token: Type.String(), sessionID: Type.String() });

/** Sends a start request as a web page of the project does. */
export async function startPage(
  app: TestApp,
  { projectKey }: { projectKey: string },
  fields: Record<string, unknown> = {},
  headers: Record<string, string> = {},
): Promise<Response> {
  const body = JSON.stringify({ projectKey, trackerVersion: "19.0.1", ...fields });
  return await app.post(WEB_START, body, { "user-agent": CHROME, ...headers });
}

/** Starts a session of a web page, and returns the answer. Throws unless it is 200. */
export async function aPage(
  app: TestApp,
  project: { projectKey: string },
  fields: Record<string, unknown> = {},
): Promise<Record<string, unknown> & TestSession> {
  const answer = await objectOf(startPage(app, project, fields));
  return { ...answer, ...Value.Parse(Started, answer) };
}
