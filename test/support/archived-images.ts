import { pino } from "pino";

import { ImageArchiver, type ImageArchiverOptions } from "../../src/archives/image-archiver.ts";
import { SYSTEM_CLOCK } from "../../src/platform/clock.ts";
import { SessionIds } from "../../src/sessions/session-id.ts";
import { Tokens } from "../../src/sessions/token.ts";
import { WorkMetrics } from "../../src/platform/telemetry/work-metrics.ts";
import { type TestApp } from "./app.ts";
import { archiveKeys, garbageOf } from "./archives.ts";
import { aFile, upload, uploadImage } from "./images.ts";

const LOG = pino({ level: "silent" });

/** Makes an archiver of an app's images, which archives them however new they are. */
export function imageArchiver(
  { sql, objects }: Pick<TestApp, "sql" | "objects">,
  options: Partial<ImageArchiverOptions> = {},
): ImageArchiver {
  const garbage = garbageOf({ sql, objects });
  return new ImageArchiver(
    { sql, objects, garbage, clock: SYSTEM_CLOCK, metrics: new WorkMetrics(), log: LOG },
    { afterS: 0, everyMs: 20, ...options },
  );
}

/** Archives all images that can be read. */
export async function archiveImages(app: Pick<TestApp, "sql" | "objects">): Promise<void> {
  while ((await imageArchiver(app).step()) > 0);
}

/** Ends leases, as time does. */
export async function endImageLeases({ sql }: Pick<TestApp, "sql">): Promise<void> {
  await sql`update image_contents set leased_until = null`;
}

/** Returns where the images of a name are, each content's place as one row. */
export async function placesOf({ sql }: Pick<TestApp, "sql">, name: string) {
  const rows = await sql<{ archive: string | null; chunks: number }[]>`
    select archive_id as archive, cardinality(chunk_segments) as chunks from image_contents
    where name = ${name} order by project_id, sha256`;
  return [...rows];
}

/** Stores images of a new session, and returns it. */
export async function stored(app: TestApp, images: Record<string, string | Uint8Array>) {
  const session = await app.aSession();
  for (const [name, content] of Object.entries(images))
    await succeeds(uploadImage(app, session, name, Buffer.from(content)));
  return session;
}

/** Stores an image of a session that has no project, and returns its session. */
export async function storedEarly(
  app: TestApp,
  name: string,
  content: Uint8Array,
): Promise<bigint> {
  const sessionId = new SessionIds(() => 65_000).next();
  const expiresAt = Date.now() + 60_000;
  const token = new Tokens(["test-secret"]).sign({ sessionId, delay: 0, expiresAt });
  await succeeds(upload(app, { token }, [aFile(name, content)]));
  return sessionId;
}

/** Returns the numbers of archives with a row, of those in the store, and of entries in the list of garbage. */
export async function archivesOf(app: TestApp) {
  const rows = await app.sql`select from archives`;
  const listed = await app.sql`select from object_garbage`;
  return { rows: rows.length, objects: (await archiveKeys(app)).length, garbage: listed.length };
}

async function succeeds(asked: Promise<Response>): Promise<void> {
  const { status } = await asked;
  if (status !== 200) throw new Error(`an upload answered ${status}`);
}
