import { Type } from "typebox";
import { Value } from "typebox/value";

import type { Connection, Endpoint } from "./connection.ts";
import { requestHead } from "./requests.ts";
import type { Answer } from "./response.ts";
import { within } from "./within.ts";

const START_ATTEMPTS_MAX = 5;
/** Least status at which a start is tried again. */
const RETRIED = 429;
const START_TIMEOUT_MS = 60_000;

const StartAnswer = Type.Object({ token: Type.String({ minLength: 1 }) });

/** Starts one session per connection, all at once, and returns their tokens. */
export async function startSessions(
  connections: Connection[],
  projectKey: string,
  endpoint: Endpoint,
): Promise<string[]> {
  const all = connections.map(async (each) => startSession(each, projectKey, endpoint));
  return within(START_TIMEOUT_MS, "starting sessions", Promise.all(all));
}

async function startSession(
  connection: Connection,
  projectKey: string,
  { host, base }: Endpoint,
): Promise<string> {
  const body = JSON.stringify({
    projectKey,
    trackerVersion: "1.0.14",
    revID: "bench",
    userUUID: crypto.randomUUID(),
    userOSVersion: "16.4",
    userDevice: "iPhone14,5",
    timestamp: Date.now(),
  });
  const head = requestHead({
    method: "POST",
    path: `${base}/v1/ios/start`,
    host,
    token: "",
    contentType: "application/json",
    bodyBytes: body.length,
  });
  const request = new TextEncoder().encode(head + body);
  for (let attempt = 1; ; attempt++) {
    const answer = await exchange(connection, request);
    if (answer?.status === 200) return Value.Parse(StartAnswer, JSON.parse(answer.body)).token;
    // A server that is busy or restarts may answer later.
    if (attempt === START_ATTEMPTS_MAX || (answer?.status ?? RETRIED) < RETRIED)
      throw new Error(
        answer === undefined
          ? "the connection ended during a session start"
          : `a session start was answered ${answer.status}: ${answer.body.slice(0, 200)}`,
      );
    await Bun.sleep(500 * attempt);
  }
}

/** Sends a request and returns its answer; undefined if the connection ended before. */
async function exchange(connection: Connection, request: Uint8Array): Promise<Answer | undefined> {
  const { promise, resolve } = Promise.withResolvers<Answer | undefined>();
  connection.events = {
    answered: (_connection, answer) => resolve(answer),
    broken: () => resolve(undefined),
    reconnected: () => {},
  };
  if (!connection.ready) return undefined;
  connection.send(request);
  return promise;
}
