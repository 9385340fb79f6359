import { AggregatorRegistry, type Registry } from "prom-client";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { unavailable } from "../errors.ts";

// Longer than what a process may read for, and both together shorter than the ten seconds that Prometheus waits.
const TELL_MS_MAX = 4000;
// Wait for a process that has missed heartbeats: it may just recover.
const SILENT_MS_MAX = 1000;
const ANSWER_MS_MAX = 5000;
// From when a process listens until its supervisor has heard of it.
const KEPT_MS_MAX = 1000;

/** A registry as JSON; whoever tells it is one of our own processes. */
const Part = Type.Array(Type.Object({ type: Type.Unknown() }));
type Part = Type.Static<typeof Part>;

const Ask = Type.Object({ metrics: Type.Literal("ask") });
const Tell = Type.Object({ metrics: Type.Literal("tell") });
const Own = Type.Object({ metrics: Type.Literal("own"), part: Part });
const All = Type.Object({ metrics: Type.Literal("all"), parts: Type.Array(Part) });

/** A process that a supervisor keeps. */
type Peer = { send: (message: unknown) => unknown };

/**
 * In the supervisor: whichever process is scraped, it gets the metrics of all. Counts of processes that have ended stay in the sum, as
 * they were last told: one that falls would be taken for one that has begun anew, and counted twice.
 */
export class MetricsRelay {
  /** By process, what it told last. */
  readonly #told = new Map<Peer, Part>();
  readonly #telling = new Map<Peer, () => void>();
  readonly #ended: Part[] = [];
  readonly #isSilent: (peer: Peer) => boolean;
  #collecting: Promise<Part[]> | undefined;

  /** `isSilent` returns whether a process has missed heartbeats and is not worth a long wait. */
  constructor(isSilent: (peer: Peer) => boolean) {
    this.#isSilent = isSilent;
  }

  /** The process is at its work. It learns from being asked that there is somebody to ask. */
  add(peer: Peer): void {
    this.#told.set(peer, []);
    send(peer, { metrics: "tell" });
  }

  remove(peer: Peer): void {
    this.#ended.push(countsOf(this.#told.get(peer) ?? []));
    this.#told.delete(peer);
    this.#telling.get(peer)?.();
  }

  take(peer: Peer, message: unknown): void {
    if (Value.Check(Own, message) && this.#told.has(peer)) {
      this.#told.set(peer, message.part);
      this.#telling.get(peer)?.();
    } else if (Value.Check(Ask, message)) void this.#answer(peer);
  }

  async #answer(peer: Peer): Promise<void> {
    this.#collecting ??= this.#collect().finally(() => (this.#collecting = undefined));
    send(peer, { metrics: "all", parts: await this.#collecting });
  }

  async #collect(): Promise<Part[]> {
    const silent = new Set<Peer>();
    const ask = async (peer: Peer) => {
      if (!(await this.#asked(peer))) silent.add(peer);
    };
    await Promise.all([...this.#told.keys()].map(ask));
    // One for all, however often processes ended.
    if (this.#ended.length > 1) this.#ended.push(await merge(this.#ended.splice(0)));
    const running = [...this.#told].map(([peer, part]) =>
      silent.has(peer) ? countsOf(part) : part,
    );
    return [...running, ...this.#ended];
  }

  /** False when the process does not answer in time. */
  async #asked(peer: Peer): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#telling.set(peer, resolve);
    send(peer, { metrics: "tell" });
    const late = await isLate(promise, this.#isSilent(peer) ? SILENT_MS_MAX : TELL_MS_MAX);
    this.#telling.delete(peer);
    return !late;
  }
}

/** In a process: its metrics, or with a supervisor those of all that are kept beside it. */
export class Scrapes {
  readonly #registry: Registry;
  /** A supervisor asks for the metrics as soon as this process is at its work. */
  readonly #kept = Promise.withResolvers<void>();
  #isAlone: boolean;
  #asked: Promise<Part[]> | undefined;
  #answered: (parts: Part[]) => void = () => undefined;

  constructor(registry: Registry) {
    this.#registry = registry;
    this.#isAlone = process.send === undefined;
    if (this.#isAlone) return;
    process.on("message", (message) => {
      // Who cannot tell counts as silent.
      this.#take(message).catch(() => undefined);
    });
  }

  /** In Prometheus' text format. Throws 503 when the supervisor does not answer. */
  async text(): Promise<string> {
    // Process managers have a channel, too, but ask for nothing on it.
    if (!this.#isAlone) this.#isAlone = await isLate(this.#kept.promise, KEPT_MS_MAX);
    if (this.#isAlone) return await this.#registry.metrics();
    this.#asked ??= this.#ask().finally(() => (this.#asked = undefined));
    return await AggregatorRegistry.aggregate(await this.#asked).metrics();
  }

  async #ask(): Promise<Part[]> {
    const { promise, resolve } = Promise.withResolvers<Part[]>();
    this.#answered = resolve;
    process.send?.({ metrics: "ask" });
    if (await isLate(promise, ANSWER_MS_MAX))
      throw unavailable("the other processes' metrics are not known");
    return await promise;
  }

  async #take(message: unknown): Promise<void> {
    if (Value.Check(Tell, message)) {
      this.#isAlone = false;
      this.#kept.resolve();
      process.send?.({ metrics: "own", part: await this.#registry.getMetricsAsJSON() });
    } else if (Value.Check(All, message)) this.#answered(message.parts);
  }
}

/** Whether it is not fulfilled within that time. */
async function isLate(promise: Promise<unknown>, ms: number): Promise<boolean> {
  const { promise: late, resolve } = Promise.withResolvers<true>();
  const timer = setTimeout(() => resolve(true), ms);
  const isDone = promise.then(() => false);
  return await Promise.race([isDone, late]).finally(() => clearTimeout(timer));
}

/** Without what only holds for a process that runs. */
function countsOf(part: Part): Part {
  return part.filter(({ type }) => type !== "gauge");
}

async function merge(parts: Part[]): Promise<Part> {
  return await AggregatorRegistry.aggregate(parts).getMetricsAsJSON();
}

function send(peer: Peer, message: unknown): void {
  try {
    peer.send(message);
  } catch {
    // It has just ended, which is told separately.
  }
}
