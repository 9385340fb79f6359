import { LRUCache } from "lru-cache";

import { type Sql } from "../platform/database.ts";
import { type Sessions } from "../sessions/service.ts";
import { type SessionToken } from "../sessions/token.ts";
import { Form, type FormDeps } from "./form.ts";
import { formEvents } from "../platform/multipart.ts";
import { ContentLookup } from "./content-lookup.ts";
import { networkMark } from "./network.ts";

const LISTED_MAX = 40;
// A name can have several contents.
const CONTENTS_LISTED_MAX = 160;
// A form that comes as gzip may hold as much as that many of the largest files.
const FORM_FILES_MAX = 4;
// A new image must be listed within a second.
const LIST_FRESH_MS = 500;
const LISTS_CACHED_MAX = 10_000;

export type ImagesDeps = Omit<FormDeps, "contents"> & { sessions: Sessions };
export type ImagesOptions = { fileBytesMax: number };

export class Images {
  readonly #deps: ImagesDeps & FormDeps;
  readonly #options: ImagesOptions;

  constructor(deps: ImagesDeps, options: ImagesOptions) {
    this.#deps = { ...deps, contents: new ContentLookup(deps.sql) };
    this.#options = options;
  }

  /**
   * Takes in a form of files that came from the address; resolved means that every one is stored. With `projectRequired` the form must
   * name the session's project.
   */
  async upload(
    token: SessionToken,
    request: Request,
    { address, projectRequired }: { address: string; projectRequired: boolean },
  ): Promise<void> {
    const { sessions, inflight } = this.#deps;
    const session = await sessions.admit(token.sessionId);
    inflight.reserve(session.projectId, 0);
    const sender = {
      projectId: session.projectId,
      sessionId: token.sessionId,
      network: networkMark(address),
    };
    using form = new Form(this.#deps, sender, { ...this.#options, recorded: session.recorded });
    for await (const events of formEvents(request, {
      inflatedBytesMax: FORM_FILES_MAX * this.#options.fileBytesMax,
    })) {
      for (const event of events) await form.take(event);
      await form.room();
    }
    await form.checkProject(projectRequired);
    await form.store();
    if (!session.stored) await sessions.adopt(token.sessionId);
  }
}

/**
 * The names of a project's most used images, newest first among equals: what clients need not send again. Only what two sessions sent
 * from different networks is among them: a client that is told of a name keeps its own image to itself.
 */
export class ImageNames {
  readonly #lists: LRUCache<number, string[]> | undefined;

  constructor(sql: Sql, { isOn }: { isOn: boolean }) {
    if (!isOn) return;
    this.#lists = new LRUCache({
      max: LISTS_CACHED_MAX,
      ttl: LIST_FRESH_MS,
      fetchMethod: async (projectId) => await selectMostUsed(sql, projectId),
    });
  }

  async of(projectId: number): Promise<string[]> {
    return (await this.#lists?.forceFetch(projectId)) ?? [];
  }
}

async function selectMostUsed(sql: Sql, projectId: number): Promise<string[]> {
  const rows = await sql<{ name: string }[]>`
    select name from image_contents where project_id = ${projectId} and shared
    order by uses desc, stored_at desc limit ${CONTENTS_LISTED_MAX}`;
  return [...new Set(rows.map(({ name }) => name))].slice(0, LISTED_MAX);
}
