import { LRUCache } from "lru-cache";

import { type Clients } from "../platform/clients.ts";
import { type Sql } from "../platform/database.ts";
import { unavailable } from "../platform/errors.ts";
import { type RowLimit } from "../platform/rate-limits.ts";
import { type KnownSession, type Sessions } from "../sessions/service.ts";
import { type SessionToken } from "../sessions/token.ts";
import { Form, type FormDeps } from "./form.ts";
import { type FormEvent, formEvents } from "../platform/multipart.ts";

const LISTED_MAX = 40;
// A form with a content coding may hold as much as that many of the largest files.
const FORM_FILES_MAX = 4;
// A new image must be listed within a second.
const LIST_FRESH_MS = 500;
const LISTS_CACHED_MAX = 10_000;

export type ImagesDeps = FormDeps & {
  sessions: Sessions;
  clients: Clients;
  /** of names that are new to a project */
  limit: RowLimit;
};
export type ImagesOptions = { fileBytesMax: number; uploadsMax: number };

export class Images {
  readonly #deps: ImagesDeps;
  readonly #options: ImagesOptions;
  #uploads = 0;

  constructor(deps: ImagesDeps, options: ImagesOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Takes in a form of files; resolved means that every one is stored. With `projectRequired` the form must name the session's project. */
  async upload(token: SessionToken, request: Request, projectRequired: boolean): Promise<void> {
    const { sessions, inflight } = this.#deps;
    const session = await sessions.admit(token.sessionId);
    inflight.check(session.projectId, 0);
    if (this.#uploads >= this.#options.uploadsMax)
      throw unavailable("too many uploads are under way, send it again", 2, { reason: "overload" });
    this.#uploads++;
    try {
      await this.#take(token.sessionId, session, request, projectRequired);
    } finally {
      this.#uploads--;
    }
    if (!session.stored) await sessions.adopt(token.sessionId);
  }

  async #take(
    sessionId: bigint,
    session: KnownSession,
    request: Request,
    projectRequired: boolean,
  ): Promise<void> {
    const { inflight, clients, limit } = this.#deps;
    const owner = { projectId: session.projectId, sessionId };
    const network = clients.network(request);
    const form = new Form(this.#deps, owner, {
      fileBytesMax: this.#options.fileBytesMax,
      recorded: session.recorded,
      admitName: () => limit.take(network),
    });
    for await (const events of formEvents(request, {
      inflatedBytesMax: FORM_FILES_MAX * this.#options.fileBytesMax,
    })) {
      // Before it is copied into segments, so that many uploads cannot fill the room that one of them found.
      const bytes = dataBytes(events);
      await inflight.hold(session.projectId, bytes);
      try {
        for (const event of events) await form.take(event);
      } finally {
        inflight.release(session.projectId, bytes);
      }
      await form.window.room();
    }
    await form.checkProject(projectRequired);
    await form.store();
  }
}

function dataBytes(events: FormEvent[]): number {
  return events.reduce((sum, event) => sum + (event.type === "data" ? event.bytes.length : 0), 0);
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
