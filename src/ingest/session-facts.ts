import { type Frames } from "./frames.ts";
import { type Signs, noSigns } from "./signs.ts";

const TIME_MAX_MS = Date.UTC(2100, 0);
const FACTS_BYTES = 300;

/** Facts that batches tell about their session. Times are epoch ms by the client's clock. */
export type SessionFacts = Signs & {
  /** Number of messages. */
  events: number;
  firstAt: number | null;
  lastAt: number | null;
};

/** A batch of a segment, and what it says about its session. */
export type FactsOfBatch = {
  sessionId: bigint;
  /** xxHash3 of the inflated bytes. */
  hash: bigint;
  facts: SessionFacts;
};

/** Returns the facts of a batch; all are 0 or null if it is malformed. */
export function factsOf(frames: Frames | undefined): SessionFacts {
  if (frames === undefined) return { events: 0, firstAt: null, lastAt: null, ...noSigns() };
  const { messages, firstAt, lastAt, ...signs } = frames;
  return { ...signs, events: messages, firstAt: plausible(firstAt), lastAt: plausible(lastAt) };
}

/** Adds facts of another batch, whose labels may be changed later. */
export function mergeFacts(facts: SessionFacts, other: SessionFacts): void {
  facts.events += other.events;
  facts.clicks += other.clicks;
  facts.pageViews += other.pageViews;
  facts.errors += other.errors;
  facts.firstAt = earlier(facts.firstAt, other.firstAt);
  facts.lastAt = later(facts.lastAt, other.lastAt);
  if (facts.labels === undefined) facts.labels = other.labels;
  else if (other.labels !== undefined) facts.labels.merge(other.labels);
}

/** Returns the facts by session. */
export function bySession(batches: Iterable<FactsOfBatch>): Map<bigint, SessionFacts> {
  const sessions = new Map<bigint, SessionFacts>();
  for (const { sessionId, facts } of batches) addFacts(sessions, sessionId, facts);
  return sessions;
}

export function addFacts(
  sessions: Map<bigint, SessionFacts>,
  sessionId: bigint,
  facts: SessionFacts,
): void {
  const known = sessions.get(sessionId);
  if (known !== undefined) mergeFacts(known, facts);
  else sessions.set(sessionId, { ...facts });
}

/** Returns about how many bytes of memory facts take. */
export function sizeOf({ labels }: SessionFacts): number {
  return FACTS_BYTES + 2 * (labels?.length ?? 0);
}

/** Returns null for times before 1970 and after 2100, since a client's clock may have any value. */
function plausible(ms: number): number | null {
  return ms >= 0 && ms < TIME_MAX_MS ? ms : null;
}

function earlier(a: number | null, b: number | null): number | null {
  return a === null || b === null ? (a ?? b) : Math.min(a, b);
}

function later(a: number | null, b: number | null): number | null {
  return a === null || b === null ? (a ?? b) : Math.max(a, b);
}
