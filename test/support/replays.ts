import { gunzipSync } from "node:zlib";

import { type TestApp, type TestSession } from "./app.ts";
import { objectOf } from "./answers.ts";
import { type TrackerRequest } from "./tracker-requests.ts";

export const WEB_HEAD = Uint8Array.fromHex("fffffffffffffffe");
export const MOBILE_HEAD = Uint8Array.fromHex("ffffffffffffffff");

/** A batch as a replay file should have it. */
export type SentBatch = { version: number; at: number; bytes: Uint8Array };

/** Asks for a replay file. */
export async function askReplay(
  app: Pick<TestApp, "fetch">,
  { sessionID }: Pick<TestSession, "sessionID">,
  name: string,
  init: RequestInit = {},
): Promise<Response> {
  return await app.fetch(`/v1/sessions/${sessionID}/replay/${name}`, init);
}

/** Returns a replay file, or undefined if the session has none of that name. */
export async function replayOf(
  app: Pick<TestApp, "fetch">,
  session: Pick<TestSession, "sessionID">,
  name: string,
): Promise<Uint8Array | undefined> {
  const answer = await askReplay(app, session, name);
  if (answer.status === 404) return undefined;
  if (answer.status !== 200) throw new Error(`${answer.status}: ${await answer.text()}`);
  return await answer.bytes();
}

/** Lists a session's replay files. */
export async function replaysOf(
  app: Pick<TestApp, "fetch">,
  { sessionID }: Pick<TestSession, "sessionID">,
): Promise<unknown> {
  return (await objectOf(app.fetch(`/v1/sessions/${sessionID}/replay`)))["files"];
}

/** Sets when a session began. */
export async function beginAt(
  app: Pick<TestApp, "sql">,
  { sessionID }: Pick<TestSession, "sessionID">,
  ms: number,
): Promise<void> {
  await app.sql`update sessions set started_at = ${new Date(ms)} where id = ${sessionID}`;
}

/**
 * Returns the batches in the tracker's requests, each once, in the order of the times in their
 * headers, and then of the requests.
 */
export function batchesIn(requests: TrackerRequest[]): SentBatch[] {
  const bodies = requests.flatMap(({ path, headers, body: sent }) => {
    const body = headers["content-encoding"] === "gzip" ? gunzipSync(sent) : sent;
    const split = Number(new URLSearchParams(path.split("?")[1]).get("split") ?? body.length);
    return [body.subarray(0, split), body.subarray(split)].filter(({ length }) => length > 0);
  });
  const once = new Map(bodies.map((bytes) => [bytes.toHex(), bytes]));
  return [...once.values()].map(readHeader).toSorted((a, b) => a.at - b.at);
}

/** Reads version and time from a batch's header: numbers in LEB128, the time also zigzag. */
function readHeader(bytes: Uint8Array): SentBatch {
  const fields: number[] = [];
  let at = 0;
  while (fields.length < 5) {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++] ?? 0;
      value += (byte % 128) * scale;
      if (byte < 128) break;
    }
    fields.push(value);
  }
  const [, version = 0, , , zigzag = 0] = fields;
  return { version, at: zigzag / 2, bytes };
}
