import { type CommitLog } from "../log/commit-log.ts";
import { type Clock } from "../platform/clock.ts";
import { AppError } from "../platform/errors.ts";
import { type RateLimits } from "../platform/http/rate-limits.ts";
import { type Metrics } from "../platform/telemetry/metrics.ts";
import { type Project, type Projects } from "../projects/service.ts";
import { type Geo, type Place } from "./geo.ts";
import { isSampled } from "./sampling.ts";
import { type StartRequest } from "./schema.ts";
import { type Sessions } from "./service.ts";
import { type SessionIds } from "./session-id.ts";
import { type StartRules } from "./start-rules.ts";
import { type Claims, type Tokens } from "./token.ts";
import { UNKNOWN_AGENT, type UserAgent, readUserAgent } from "./user-agent.ts";

const SESSION_MS = 7_200_000;

export type StartContext = {
  address: string;
  /** Undefined if many clients may share the address. */
  network: string | undefined;
  userAgent: string | null;
};

export type StartsDeps = {
  sessions: Sessions;
  commitLog: CommitLog;
  projects: Projects;
  tokens: Tokens;
  ids: SessionIds;
  clock: Clock;
  geo: Geo;
  rateLimits: RateLimits;
  metrics: Metrics;
};

/** Session that was started or resumed, and what is known of its client. */
export type Started = Claims & {
  token: string;
  request: StartRequest;
  project: Project;
  userUUID: string;
  agent: UserAgent;
  place: Place;
};

type Start = Omit<Started, keyof Claims | "token"> & { rules: StartRules; context: StartContext };

/** Starts and resumes sessions. */
export class Starts {
  readonly #deps: StartsDeps;

  constructor(deps: StartsDeps) {
    this.#deps = deps;
  }

  /** Starts or resumes a session; its row is durable when this resolves. */
  async start(request: StartRequest, context: StartContext, rules: StartRules): Promise<Started> {
    const { sessions, metrics, tokens, geo } = this.#deps;
    const accepted = readUserAgent(context.userAgent);
    for (const check of rules.first) check(request, accepted);
    const project = await this.#project(request, rules);
    for (const check of rules.known) check(request, accepted);
    sessions.admitProject(project.id);
    const resumed = await this.#resume(request, project);
    if (resumed === undefined) {
      this.#sample(request, context, project, rules);
      for (const check of rules.fresh) check(request, accepted);
    }
    const agent = accepted ?? UNKNOWN_AGENT;
    const isUuid = canonicalUuid(request.userUUID) !== undefined;
    const userUUID = isUuid ? String(request.userUUID) : crypto.randomUUID();
    const place = geo.lookup(context.address);
    const start = { request, context, rules, project, userUUID, agent, place };
    const claims = resumed ?? (await this.#begin(start));
    const outcome = isRecorded(request) ? "new" : "unrecorded";
    metrics.sessions.inc({ outcome: resumed === undefined ? outcome : "resumed" });
    return { ...start, ...claims, token: tokens.sign(claims) };
  }

  async #project(request: StartRequest, { platforms }: StartRules): Promise<Project> {
    const project = await this.#deps.projects.identify(request);
    if (!project.active) throw new AppError("not_found", "project is not active");
    if (!platforms.includes(project.platform))
      throw new AppError("forbidden", "the project is for another platform");
    return project;
  }

  /** Resumes the session of a valid token of the same project, without sampling it again. */
  async #resume({ token, reset }: StartRequest, project: Project): Promise<Claims | undefined> {
    const { tokens, clock, sessions } = this.#deps;
    if (token === undefined || reset === true) return undefined;
    const given = tokens.verify(token, clock.epochMs());
    if (given?.kind !== "valid") return undefined;
    const { projectId } = await sessions.find(given.sessionId);
    const { sessionId, delay, expiresAt } = given;
    return projectId === project.id ? { sessionId, delay, expiresAt } : undefined;
  }

  /** Throws 403 unless the user is recorded. */
  #sample(
    request: StartRequest,
    { address, userAgent }: StartContext,
    { id, sampleRate }: Project,
    { sampledOut }: StartRules,
  ): void {
    const draw = {
      projectId: id,
      rate: sampleRate,
      userUUID: canonicalUuid(request.userUUID),
      address,
      userAgent: userAgent ?? "",
      now: this.#deps.clock.epochMs(),
    };
    if (sampledOut === undefined || isSampled(draw)) return;
    this.#deps.metrics.sessions.inc({ outcome: "sampled_out" });
    throw new AppError("forbidden", sampledOut(sampleRate));
  }

  async #begin(start: Start): Promise<Claims> {
    const { request, context, rules, project, userUUID, agent, place } = start;
    const { sessions, ids, clock, metrics, commitLog, rateLimits } = this.#deps;
    // Counted only here, because a start that is resumed or refused makes no row.
    rateLimits.rows.starts.take(context.network);
    const now = clock.epochMs();
    const { startedMs, delay } = rules.times(request, now);
    const performance = request.performances ?? request.performance;
    const sessionId = ids.next();
    const row = {
      id: String(sessionId),
      project_id: project.id,
      recorded: isRecorded(request),
      started_at: new Date(startedMs).toISOString(),
      tracker_version: request.trackerVersion ?? null,
      rev_id: request.revID ?? null,
      user_uuid: canonicalUuid(userUUID) ?? null,
      user_id: request.userID ?? null,
      ...rules.device(request, agent, project),
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
    await commitLog.appendRow("session", row, { projectId: project.id, sessionId }).committed;
    sessions.remember(sessionId, { projectId: project.id, recorded: row.recorded, stored: true });
    const lifetimeMs = rules.sessionMs ?? project.sessionMs ?? SESSION_MS;
    return { sessionId, delay, expiresAt: now + lifetimeMs };
  }
}

function isRecorded({ doNotRecord, assistOnly }: StartRequest): boolean {
  return !doNotRecord && assistOnly !== true;
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
