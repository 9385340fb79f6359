import { LRUCache } from "lru-cache";

import { type InflightBytes } from "../ingest/inflight-bytes.ts";
import { type Sql } from "../platform/database.ts";
import { type Sessions } from "../sessions/service.ts";
import { type SessionToken } from "../sessions/token.ts";
import { Form, type FormDeps } from "./form.ts";
import { formEvents } from "../platform/multipart.ts";

const LISTED_MAX = 40;
// A form that comes as gzip may hold as much as that many of the largest files.
const FORM_FILES_MAX = 4;
// A new image must be listed within a second.
const LIST_FRESH_MS = 500;
const LISTS_CACHED_MAX = 10_000;

export type ImagesDeps = FormDeps & { sessions: Sessions; inflight: InflightBytes };
export type ImagesOptions = { fileBytesMax: number };

export class Images {
  readonly #deps: ImagesDeps;
  readonly #options: ImagesOptions;

  constructor(deps: ImagesDeps, options: ImagesOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Takes in a form of files; resolved means that every one is stored. With `projectRequired` the form must name the session's project. */
  async upload(token: SessionToken, request: Request, projectRequired: boolean): Promise<void> {
    const { sessions, inflight } = this.#deps;
    const session = await sessions.admit(token.sessionId);
    inflight.reserve(session.projectId, 0);
    const owner = { projectId: session.projectId, sessionId: token.sessionId };
    const form = new Form(this.#deps, owner, { ...this.#options, recorded: session.recorded });
    for await (const events of formEvents(request, {
      inflatedBytesMax: FORM_FILES_MAX * this.#options.fileBytesMax,
    })) {
      for (const event of events) await form.take(event);
      await form.window.room();
      await inflight.room(session.projectId);
    }
    await form.checkProject(projectRequired);
    await form.store();
    if (!session.stored) await sessions.adopt(token.sessionId);
  }
}

/** The names of a project's most used images, newest first among equals: what clients need not send again. */
export class ImageNames {
  readonly #lists: LRUCache<number, string[]>;

  constructor(sql: Sql) {
    this.#lists = new LRUCache({
      max: LISTS_CACHED_MAX,
      ttl: LIST_FRESH_MS,
      fetchMethod: async (projectId) => await selectMostUsed(sql, projectId),
    });
  }

  async of(projectId: number): Promise<string[]> {
    return await this.#lists.forceFetch(projectId);
  }
}

async function selectMostUsed(sql: Sql, projectId: number): Promise<string[]> {
  const rows = await sql<{ name: string }[]>`
    select name from images where project_id = ${projectId} and kind = 'image'
    order by uses desc, stored_at desc limit ${LISTED_MAX}`;
  return rows.map(({ name }) => name);
}
