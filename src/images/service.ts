import { LRUCache } from "lru-cache";

import { bodyChunks, contentLength, readWhole } from "../platform/bodies/body.ts";
import { type Clients } from "../platform/http/clients.ts";
import { type Sql } from "../platform/database/database.ts";
import { anyUnreadable } from "../log/unreadable.ts";
import { unavailable } from "../platform/errors.ts";
import { type RowLimit } from "../platform/http/rate-limits.ts";
import { type KnownSession, type Sessions } from "../sessions/service.ts";
import { type SessionToken } from "../sessions/token.ts";
import { Form, type FormDeps, type FormRules } from "./form.ts";
import { ContentLookup } from "./content-lookup.ts";
import { networkMark } from "./network.ts";
import { type FormEvent, formEvents } from "../platform/bodies/multipart.ts";

// Largest form that is read in one piece: one file of the size of a chunk, with room for headers.
const WHOLE_BYTES_MAX = 160 * 1024;
const LISTED_MAX = 40;
// Rows read for a list at most: a name can have several contents.
const CONTENTS_LISTED_MAX = 160;
// A form with a content coding may inflate to this many times the largest file.
const FORM_FILES_MAX = 4;
// A new image must be listed within a second.
const LIST_FRESH_MS = 500;
const LISTS_CACHED_MAX = 10_000;

export type ImagesDeps = Omit<FormDeps, "contents"> & {
  sessions: Sessions;
  clients: Clients;
  /** Rate limit for images that are new to a project. */
  limit: RowLimit;
};
export type ImagesOptions = {
  fileBytesMax: number;
  uploadsMax: number;
  /** Memory for forms that are read in one piece, of which the client may send only the beginning. */
  wholeFormsBytesMax: number;
};

export class Images {
  readonly #deps: ImagesDeps & FormDeps;
  readonly #options: ImagesOptions;
  #uploads = 0;
  #wholeFormsBytes = 0;

  constructor(deps: ImagesDeps, options: ImagesOptions) {
    this.#deps = { ...deps, contents: new ContentLookup(deps.sql) };
    this.#options = options;
  }

  /** Stores the files of a form; resolves once every one is stored. */
  async upload(token: SessionToken, request: Request, rules: FormRules): Promise<void> {
    const { sessions, inflight } = this.#deps;
    const session = await sessions.admit(token.sessionId);
    inflight.check(session.projectId, 0);
    if (this.#uploads >= this.#options.uploadsMax)
      throw unavailable("too many uploads in progress, send it again", 2, { reason: "overload" });
    this.#uploads++;
    try {
      await this.#take(token.sessionId, session, request, rules);
    } finally {
      this.#uploads--;
    }
    if (!session.stored) await sessions.adopt(token.sessionId);
  }

  async #take(
    sessionId: bigint,
    session: KnownSession,
    request: Request,
    rules: FormRules,
  ): Promise<void> {
    const { inflight, clients, limit } = this.#deps;
    const mark = networkMark(clients.address(request));
    const sender = { projectId: session.projectId, sessionId, network: mark };
    using form = new Form(this.#deps, sender, {
      fileBytesMax: this.#options.fileBytesMax,
      recorded: session.recorded,
      rules,
      admitName: () => {
        if (!limit.isOff) limit.take(clients.network(request));
      },
    });
    const limits = { inflatedBytesMax: FORM_FILES_MAX * this.#options.fileBytesMax };
    for await (const { events, spent } of formEvents(request, limits, this.#chunks(request))) {
      // Reserves room before bytes are copied into segments, so that concurrent uploads cannot
      // exceed it.
      const bytes = dataBytes(events);
      await form.hold(bytes);
      try {
        for (const event of events) await form.take(event);
      } finally {
        inflight.release(session.projectId, bytes);
      }
      if (spent !== undefined) form.release(spent);
      await form.window.room();
    }
    await form.checkFields();
    await form.store();
  }

  /**
   * Returns the body as it arrives, or a small one in one piece, which costs half as much, as long
   * as few bytes are announced that way.
   */
  #chunks(request: Request): AsyncGenerator<Uint8Array> {
    const length = contentLength(request) ?? Number.POSITIVE_INFINITY;
    const bytesMax = this.#options.wholeFormsBytesMax - this.#wholeFormsBytes;
    const isSmall = length <= Math.min(WHOLE_BYTES_MAX, bytesMax);
    return isSmall ? this.#whole(request, length) : bodyChunks(request.body);
  }

  async *#whole(request: Request, length: number): AsyncGenerator<Uint8Array> {
    this.#wholeFormsBytes += length;
    let whole: Uint8Array;
    try {
      whole = await readWhole(request, length);
    } finally {
      this.#wholeFormsBytes -= length;
    }
    yield whole;
  }
}

function dataBytes(events: FormEvent[]): number {
  return events.reduce((sum, event) => sum + (event.type === "data" ? event.bytes.length : 0), 0);
}

/**
 * Lists the names of a project's most used images, newest first among equals: clients need not send
 * these again. Omits lost images. Lists only images that two sessions sent from different networks,
 * so that a client cannot learn the name of an image that only one other client has.
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
    select name from image_contents where project_id = ${projectId} and shared and not ${anyUnreadable(sql, sql`chunk_segments || archive_id`)}
    order by uses desc, stored_at desc limit ${CONTENTS_LISTED_MAX}`;
  return [...new Set(rows.map(({ name }) => name))].slice(0, LISTED_MAX);
}
