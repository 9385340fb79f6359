import { pino } from "pino";

import { type Config } from "../../src/platform/config/config.ts";
import { type Server, type ServerOptions, startServer } from "../../src/processes/server.ts";
import { type TestApp, type TestSession } from "./app.ts";

export type ServerBeside = AsyncDisposable & Pick<Server, "url">;

/** Starts another server in this process on the database and object store of a test's app. */
export async function serverBeside(
  app: TestApp,
  {
    databaseUrl = app.databaseUrl,
    config = app.config,
    ...options
  }: ServerOptions & { databaseUrl?: string; config?: Config } = {},
): Promise<ServerBeside> {
  const log = pino({ level: "silent" });
  const server = await startServer(config, databaseUrl, { log, ...options });
  return { ...server, url: server.url.replace(/\/$/, "") };
}

export async function append(
  { url }: { url: string },
  { token }: TestSession,
  batch: Uint8Array,
): Promise<Response> {
  return await fetch(`${url}/v1/ios/append`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}` },
    body: batch,
  });
}

/** Returns the status of the answer, or "no answer". */
export async function statusOf(request: Promise<Response>): Promise<number | "no answer"> {
  try {
    const response = await request;
    await response.bytes();
    return response.status;
  } catch {
    return "no answer";
  }
}
