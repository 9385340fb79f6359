import { LRUCache } from "lru-cache";

import { type CommitLog } from "../log/commit-log.ts";
import { type Quotas } from "../projects/quotas.ts";
import { type Sql } from "../platform/database/database.ts";
import { AppError } from "../platform/errors.ts";
import { type RateLimits } from "../platform/http/rate-limits.ts";
import { type Projects } from "../projects/service.ts";
import { sessionTime } from "../log/session-time.ts";

const SESSIONS_CACHED_MAX = 200_000;
// Short, because a rebuild of the database may restore an unknown session at any time.
const UNKNOWN_CACHED_MS = 1000;

/** Part of a session that the data routes need, kept in memory after its first batch. */
export type KnownSession = {
  /** 0 if the project is unknown */
  projectId: number;
  recorded: boolean;
  /** false if there is no row for the session of a valid token */
  stored: boolean;
};

export type SessionsDeps = {
  sql: Sql;
  commitLog: CommitLog;
  projects: Projects;
  rateLimits: RateLimits;
  quotas: Quotas;
};

/** Looks up the sessions of data that comes in, and decides whether it is accepted. */
export class Sessions {
  readonly #deps: SessionsDeps;
  readonly #beaconBytesMax: number;
  readonly #known: LRUCache<bigint, KnownSession>;

  constructor(deps: SessionsDeps, { beaconBytesMax }: { beaconBytesMax: number }) {
    this.#deps = deps;
    this.#beaconBytesMax = beaconBytesMax;
    this.#known = new LRUCache({
      max: SESSIONS_CACHED_MAX,
      // Setting an entry must not abort requests that wait for its fetch.
      ignoreFetchAbort: true,
      fetchMethod: async (...[id, , { options: entry }]) => {
        const known = await selectKnown(deps.sql, id);
        if (known.projectId === 0) entry.ttl = UNKNOWN_CACHED_MS;
        return known;
      },
    });
  }

  /**
   * Returns a session from memory. Reads the database the first time, and each second while the
   * session's project is unknown.
   */
  async find(id: bigint): Promise<KnownSession> {
    return this.#known.get(id) ?? (await this.#known.forceFetch(id));
  }

  /**
   * Returns the session of a data request. Throws 401 if its project is switched off, 429 if the
   * session or its project sends too much. Accepts data of a project without a row: the database
   * may be in the middle of a rebuild.
   */
  async admit(id: bigint): Promise<KnownSession> {
    this.#deps.rateLimits.session?.take(id.toString(36));
    const session = await this.find(id);
    // Checked on every request: a project can be switched off and on again while its sessions'
    // tokens are valid.
    if (this.#deps.projects.get(session.projectId)?.active === false)
      throw new AppError("unauthorized", "project is not active");
    this.admitProject(session.projectId);
    return session;
  }

  /**
   * Creates the row of a session that has a valid token but no row. Await the result before
   * acknowledging data of the session.
   */
  async adopt(id: bigint): Promise<void> {
    const row = {
      id: String(id),
      project_id: null,
      recorded: true,
      started_at: new Date(sessionTime(id)).toISOString(),
      user_country: "UN",
      user_state: "",
      user_city: "",
    };
    await this.#deps.commitLog.appendRow("session", row, { projectId: 0, sessionId: id }).committed;
    const unknown = { projectId: 0, recorded: true, stored: true };
    this.#known.set(id, unknown, { ttl: UNKNOWN_CACHED_MS });
  }

  /** Returns the largest batch, in bytes, that the project accepts. */
  beaconBytesMax(projectId: number): number {
    return this.#deps.projects.get(projectId)?.beaconBytesMax ?? this.#beaconBytesMax;
  }

  /** Keeps a session that was just stored in memory. */
  remember(id: bigint, session: KnownSession): void {
    this.#known.set(id, session);
  }

  /** Throws 429 if the project sends too much. */
  admitProject(id: number): void {
    this.#deps.rateLimits.project?.take(id);
    this.#deps.quotas.check(id);
  }
}

async function selectKnown(sql: Sql, id: bigint): Promise<KnownSession> {
  const [row] = await sql<{ projectId: number; recorded: boolean }[]>`
    select coalesce(project_id, 0) as "projectId", recorded from sessions where id = ${id}`;
  return row === undefined
    ? { projectId: 0, recorded: true, stored: false }
    : { ...row, stored: true };
}
