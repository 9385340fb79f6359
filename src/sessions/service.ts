import { LRUCache } from "lru-cache";
import semver from "semver";

import { type CommitLog } from "../log/commit-log.ts";
import { type Quotas } from "../projects/quotas.ts";
import { type Clock } from "../platform/clock.ts";
import { type Sql } from "../platform/database/database.ts";
import { AppError } from "../platform/errors.ts";
import { type Metrics } from "../platform/telemetry/metrics.ts";
import { type RateLimits } from "../platform/http/rate-limits.ts";
import { type Project, type Projects } from "../projects/service.ts";
import { iosDeviceName, deviceType } from "./device.ts";
import { type Geo } from "./geo.ts";
import { isSampled } from "./sampling.ts";
import { type StartRequest } from "./schema.ts";
import { type SessionIds, timeOf } from "./session-id.ts";
import { type Tokens } from "./token.ts";
import { readUserAgent } from "./user-agent.ts";

const SESSION_MAX_MS = 7_200_000;
const SESSIONS_CACHED_MAX = 200_000;
// Short, because a rebuild of the database may restore an unknown session at any time.
const UNKNOWN_CACHED_MS = 1000;
const TRACKER_VERSION_MIN = "1.0.9";
const TRACKER_VERSION = /^v?\d{1,9}(\.\d{1,9}){0,2}$/;
// A client's clock is trusted within these bounds.
const CLOCK_BEHIND_MAX_MS = 30 * 86_400_000;
const CLOCK_AHEAD_MAX_MS = 86_400_000;

/** Part of a session that the data routes need, kept in memory after its first batch. */
export type KnownSession = {
  /** 0 if the project is unknown */
  projectId: number;
  recorded: boolean;
  /** false if there is no row for the session of a valid token */
  stored: boolean;
};

export type StartContext = {
  address: string;
  /** Undefined if many clients may share the address. */
  network: string | undefined;
  userAgent: string | null;
};

/** Differences between the documented contract `/v1/ios` and `/v1/mobile` of current SDKs. */
export type StartRules = { minVersion: boolean; sampledOut: (rate: number) => string };

export const IOS_RULES: StartRules = { minVersion: false, sampledOut: () => "cancel" };
export const MOBILE_RULES: StartRules = {
  minVersion: true,
  sampledOut: (rate) => `capture rate miss, rate: ${rate}`,
};

export type SessionsDeps = {
  sql: Sql;
  commitLog: CommitLog;
  projects: Projects;
  tokens: Tokens;
  ids: SessionIds;
  clock: Clock;
  geo: Geo;
  /** Lists the most used image names of a project. */
  imageNames: (projectId: number) => Promise<string[]>;
  rateLimits: RateLimits;
  quotas: Quotas;
  metrics: Metrics;
};

export type SessionsOptions = { beaconBytesMax: number; quality: string; fps: number };

export class Sessions {
  readonly #deps: SessionsDeps;
  readonly #options: SessionsOptions;
  readonly #known: LRUCache<bigint, KnownSession>;

  constructor(deps: SessionsDeps, options: SessionsOptions) {
    this.#deps = deps;
    this.#options = options;
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
    this.#admitProject(session.projectId);
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
      started_at: iso(timeOf(id)),
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
    return this.#deps.projects.get(projectId)?.beaconBytesMax ?? this.#options.beaconBytesMax;
  }

  /** Starts or resumes a session; its row is durable when this resolves. */
  async start(request: StartRequest, context: StartContext, rules: StartRules) {
    const project = await this.#project(request, rules);
    this.#admitProject(project.id);
    const { metrics, tokens, imageNames } = this.#deps;
    const resumed = await this.#resume(request.token, project);
    const userUUID =
      canonicalUuid(request.userUUID) === undefined
        ? crypto.randomUUID()
        : String(request.userUUID);
    const session = resumed ?? (await this.#begin(request, context, project, userUUID, rules));
    metrics.sessions.inc({
      outcome: resumed !== undefined ? "resumed" : request.doNotRecord ? "unrecorded" : "new",
    });
    return {
      token: tokens.sign({ sessionId: session.id, delay: 0, expiresAt: session.expiresAt }),
      sessionID: String(session.id),
      userUUID,
      imagesHashList: await imageNames(project.id),
      beaconSizeLimit: this.beaconBytesMax(project.id),
      projectID: String(project.id),
      quality: this.#options.quality,
      fps: this.#options.fps,
      framesSupport: true,
    };
  }

  #admitProject(id: number): void {
    this.#deps.rateLimits.project?.take(id);
    this.#deps.quotas.check(id);
  }

  async #project(request: StartRequest, rules: StartRules): Promise<Project> {
    const project = await this.#deps.projects.identify(request);
    if (!project.active) throw new AppError("not_found", "project is not active");
    if (request.trackerVersion === undefined && !rules.minVersion)
      throw new AppError("invalid", "trackerVersion is missing");
    if (project.platform === "web")
      throw new AppError("forbidden", "the project is for another platform");
    if (rules.minVersion && !isSupported(request.trackerVersion ?? ""))
      throw new AppError(
        "upgrade_required",
        `trackerVersion must be at least ${TRACKER_VERSION_MIN}`,
      );
    return project;
  }

  /** Resumes the session of a valid token of the same project, without sampling it again. */
  async #resume(token: string | undefined, project: Project) {
    const given =
      token === undefined ? undefined : this.#deps.tokens.verify(token, this.#deps.clock.epochMs());
    if (given?.kind !== "valid") return undefined;
    const session = await this.find(given.sessionId);
    return session.projectId === project.id
      ? { id: given.sessionId, expiresAt: given.expiresAt }
      : undefined;
  }

  async #begin(
    request: StartRequest,
    context: StartContext,
    project: Project,
    userUUID: string,
    rules: StartRules,
  ) {
    const { ids, clock, metrics, commitLog } = this.#deps;
    const { address } = context;
    const now = clock.epochMs();
    const draw = {
      projectId: project.id,
      rate: project.sampleRate,
      userUUID: canonicalUuid(request.userUUID),
      address,
      userAgent: context.userAgent ?? "",
      now,
    };
    if (!isSampled(draw)) {
      metrics.sessions.inc({ outcome: "sampled_out" });
      throw new AppError("forbidden", rules.sampledOut(project.sampleRate));
    }
    const agent = readUserAgent(context.userAgent);
    if (agent === undefined) throw new AppError("forbidden", "the user agent is not accepted");

    // Counted only here, because a start that is resumed or refused makes no row.
    this.#deps.rateLimits.rows.starts.take(context.network);
    const id = ids.next();
    const isIos = (request.platform ?? "ios") === "ios";
    const place = this.#deps.geo.lookup(address);
    const performance = request.performances ?? request.performance;
    const row = {
      id: String(id),
      project_id: project.id,
      recorded: !request.doNotRecord,
      started_at: iso(plausible(request.timestamp, now)),
      platform: isIos ? "ios" : "android",
      tracker_version: request.trackerVersion ?? null,
      rev_id: request.revID ?? null,
      user_uuid: canonicalUuid(userUUID) ?? null,
      user_id: request.userID ?? null,
      user_os: isIos ? "IOS" : "Android",
      user_os_version: request.userOSVersion ?? null,
      user_browser: agent.browser,
      user_browser_version: agent.browserVersion,
      user_device: (isIos ? iosDeviceName(request.userDevice) : request.userDevice) ?? null,
      user_device_type: deviceType(isIos ? "ios" : "android", request),
      user_country: place.country,
      user_state: place.state,
      user_city: place.city,
      timezone: request.timezone ?? null,
      device_memory_kib: request.deviceMemory ?? null,
      screen_width: request.width ?? null,
      screen_height: request.height ?? null,
      performance: performance?.text ?? null,
    };
    if (performance !== undefined && performance.text === undefined)
      metrics.droppedPerformance.inc();
    await commitLog.appendRow("session", row, { projectId: project.id, sessionId: id }).committed;
    this.#known.set(id, { projectId: project.id, recorded: row.recorded, stored: true });
    return { id, expiresAt: now + SESSION_MAX_MS };
  }
}

async function selectKnown(sql: Sql, id: bigint): Promise<KnownSession> {
  const [row] = await sql<{ projectId: number; recorded: boolean }[]>`
    select coalesce(project_id, 0) as "projectId", recorded from sessions where id = ${id}`;
  return row === undefined
    ? { projectId: 0, recorded: true, stored: false }
    : { ...row, stored: true };
}

function isSupported(version: string): boolean {
  const [release = ""] = version.split("-");
  // Tests the pattern first, because `coerce` finds a version inside any text.
  const parsed = TRACKER_VERSION.test(release) ? semver.coerce(release) : null;
  return parsed !== null && semver.gte(parsed, TRACKER_VERSION_MIN);
}

function plausible(timestamp: number | undefined, now: number): number {
  return timestamp !== undefined &&
    timestamp > now - CLOCK_BEHIND_MAX_MS &&
    timestamp < now + CLOCK_AHEAD_MAX_MS
    ? timestamp
    : now;
}

/**
 * Returns the canonical form of a UUID in any form that clients use; undefined if it is not one.
 */
function canonicalUuid(value: string | undefined): string | undefined {
  const hex = value?.match(
    /^(?:urn:uuid:)?\{?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})\}?$/i,
  );
  return hex?.slice(1).join("-").toLowerCase();
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
