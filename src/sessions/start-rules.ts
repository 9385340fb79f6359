import semver from "semver";

import { AppError } from "../platform/errors.ts";
import { type Project, type ProjectPlatform } from "../projects/service.ts";
import { type SessionDevice, mobileDevice, webDevice } from "./device.ts";
import { type StartRequest } from "./schema.ts";
import { type UserAgent } from "./user-agent.ts";

const DAY_MS = 86_400_000;
const VERSION = /^v?\d{1,9}(\.\d{1,9}){0,2}$/;
// A client's clock is trusted within these bounds.
const CLOCK_BEHIND_MAX_MS = 30 * DAY_MS;
const CLOCK_AHEAD_MAX_MS = DAY_MS;
// The web tracker may have recorded for that long before it starts a session.
const BUFFERED_MAX_MS = 300_000;

/** Throws if the start is refused. The agent is undefined if it is missing or a crawler's. */
type Check = (request: StartRequest, agent: UserAgent | undefined) => void;

/** `delay` is server minus client clock in ms. */
type Times = { startedMs: number; delay: number };

/** Differences between the contracts of SDKs. Checks are made in the order of their stages. */
export type StartRules = {
  /** Code of the refusal of a body that is too large, cut short or not coded as it says. */
  unreadable: "invalid" | "too_large";
  /** Stage before the project is looked up. */
  first: Check[];
  /** Platforms of the projects that the SDK can record for. */
  platforms: ProjectPlatform[];
  /** Stage after the project is known, and before a token counts. */
  known: Check[];
  /** Error text for users that are not sampled; undefined if all users are recorded. */
  sampledOut?: (rate: number) => string;
  /** Stage of new sessions, after sampling. */
  fresh: Check[];
  /** Lifetime of a token, whatever the project's is. */
  sessionMs?: number;
  times: (request: StartRequest, now: number) => Times;
  device: (request: StartRequest, agent: UserAgent, project: Project) => SessionDevice;
};

const MOBILE = {
  unreadable: "invalid",
  first: [],
  platforms: ["ios", "android"],
  fresh: [isNotCrawler],
  times: ({ timestamp }, now) => ({ startedMs: plausible(timestamp, now), delay: 0 }),
  device: mobileDevice,
} satisfies Partial<StartRules>;

/** The documented contract. */
export const IOS_RULES: StartRules = {
  ...MOBILE,
  known: [hasVersion],
  sampledOut: () => "cancel",
};

/** Current mobile SDKs. */
export const MOBILE_RULES: StartRules = {
  ...MOBILE,
  known: [hasVersionFrom("1.0.9")],
  sampledOut: missedRate,
};

export const WEB_RULES: StartRules = {
  unreadable: "too_large",
  first: [hasVersionFrom("6.0.0")],
  platforms: ["web"],
  known: [isNotCrawler],
  sampledOut: missedRate,
  fresh: [],
  times: webTimes,
  device: webDevice,
};

/** Product analytics. */
export const ANALYTICS_RULES: StartRules = {
  unreadable: "too_large",
  first: [namesProject],
  platforms: ["web", "ios", "android"],
  known: [],
  fresh: [],
  sessionMs: DAY_MS,
  times: (_request, now) => ({ startedMs: now, delay: 0 }),
  device: webDevice,
};

function hasVersion({ trackerVersion }: StartRequest): void {
  if (trackerVersion === undefined) throw new AppError("invalid", "trackerVersion is missing");
}

function hasVersionFrom(min: string): Check {
  return ({ trackerVersion = "" }) => {
    const [release = ""] = trackerVersion.split("-");
    // Tests the pattern first, because `coerce` finds a version inside any text.
    const parsed = VERSION.test(release) ? semver.coerce(release) : null;
    if (parsed === null || semver.lt(parsed, min))
      throw new AppError("upgrade_required", `trackerVersion must be at least ${min}`);
  };
}

function namesProject({ projectKey, projectID }: StartRequest): void {
  if (projectKey === undefined && projectID === undefined)
    throw new AppError("invalid", "projectKey is missing");
}

function isNotCrawler(_request: StartRequest, agent: UserAgent | undefined): void {
  if (agent === undefined) throw new AppError("forbidden", "the user agent is not accepted");
}

function missedRate(rate: number): string {
  return `capture rate miss, rate: ${rate}`;
}

function webTimes({ timestamp, bufferDiff = 0, isOffline }: StartRequest, now: number): Times {
  const delay = Math.round(now - (timestamp ?? now));
  return {
    startedMs: isOffline
      ? plausible(timestamp, now)
      : now - (bufferDiff < BUFFERED_MAX_MS ? bufferDiff : 0),
    // A token cannot hold any other number.
    delay: Number.isSafeInteger(delay) ? delay : 0,
  };
}

function plausible(timestamp: number | undefined, now: number): number {
  return timestamp !== undefined &&
    timestamp > now - CLOCK_BEHIND_MAX_MS &&
    timestamp < now + CLOCK_AHEAD_MAX_MS
    ? timestamp
    : now;
}
