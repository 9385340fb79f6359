import { Type } from "typebox";
import { Value } from "typebox/value";

import type { Connection } from "./connection.ts";
import { requestHead } from "./requests.ts";
import type { Answer } from "./response.ts";

const START_ATTEMPTS_MAX = 5;
const START_TIMEOUT_MS = 30_000;

const StartAnswer = Type.Object({ token: Type.String({ minLength: 1 }) });

/** Starts one session per connection, all at once, and returns their tokens. */
export async function startSessions(
  connections: Connection[],
  projectKey: string,
  host: string,
): Promise<string[]> {
  let timer: Timer | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`sessions did not start in ${START_TIMEOUT_MS / 1000} s`)),
      START_TIMEOUT_MS,
    );
  });
  try {
    const all = connections.map(async (connection) => startSession(connection, projectKey, host));
    return await Promise.race([Promise.all(all), late]);
  } finally {
    clearTimeout(timer);
  }
}

async function startSession(connection: Connection, projectKey: string, host: string) {
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
    path: "/v1/ios/start",
    host,
    token: "",
    contentType: "application/json",
    bodyBytes: body.length,
  });
  const request = new TextEncoder().encode(head + body);
  for (let attempt = 1; ; attempt++) {
    const answer = await exchange(connection, request);
    if (answer?.status === 200) return Value.Parse(StartAnswer, JSON.parse(answer.body)).token;
    if (attempt === START_ATTEMPTS_MAX)
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
