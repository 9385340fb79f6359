import { AggregatorRegistry, type Registry } from "prom-client";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { unavailable } from "../errors.ts";
import { doneWithin } from "../time-limit.ts";

// Wait for the metrics of a process. Longer than its READ_MS_MAX, and both together shorter than the
// ten seconds that Prometheus waits.
const TELL_MS_MAX = 4000;
// Wait for a process that has missed heartbeats: it may just recover.
const SILENT_MS_MAX = 1000;
const ANSWER_MS_MAX = 5000;
// Time until the supervisor of a new process asks it for its metrics.
const CONTACT_MS_MAX = 1000;

/** Metrics of a registry as JSON; only Floodgate's own processes send them. */
const Part = Type.Array(Type.Object({ type: Type.Unknown() }));
type Part = Type.Static<typeof Part>;

const Ask = Type.Object({ metrics: Type.Literal("ask") });
const Tell = Type.Object({ metrics: Type.Literal("tell") });
const Own = Type.Object({ metrics: Type.Literal("own"), part: Part });
const All = Type.Object({ metrics: Type.Literal("all"), parts: Type.Array(Part) });

/** Process that the supervisor runs. */
type Peer = { send: (message: unknown) => unknown };

/**
 * Collects metrics in the supervisor, so that a scrape of any process returns those of all. Keeps
 * the last counts of processes that have ended: Prometheus would take a falling sum for a restart,
 * and count it twice.
 */
export class MetricsRelay {
  /** Last metrics by process. */
  readonly #latest = new Map<Peer, Part>();
  readonly #telling = new Map<Peer, () => void>();
  readonly #ended: Part[] = [];
  readonly #isSilent: (peer: Peer) => boolean;
  #collecting: Promise<Part[]> | undefined;

  /** `isSilent` returns whether a process has missed heartbeats and is not worth a long wait. */
  constructor(isSilent: (peer: Peer) => boolean) {
    this.#isSilent = isSilent;
  }

  /** Adds a process that has started its work. The request tells it that it has a supervisor. */
  add(peer: Peer): void {
    this.#latest.set(peer, []);
    send(peer, { metrics: "tell" });
  }

  remove(peer: Peer): void {
    this.#ended.push(countsOf(this.#latest.get(peer) ?? []));
    this.#latest.delete(peer);
    this.#telling.get(peer)?.();
  }

  take(peer: Peer, message: unknown): void {
    if (Value.Check(Own, message) && this.#latest.has(peer)) {
      this.#latest.set(peer, message.part);
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
    await Promise.all([...this.#latest.keys()].map(ask));
    // Merge them into one, however many processes have ended.
    if (this.#ended.length > 1) this.#ended.push(await merge(this.#ended.splice(0)));
    const running = [...this.#latest].map(([peer, part]) =>
      silent.has(peer) ? countsOf(part) : part,
    );
    return [...running, ...this.#ended];
  }

  /** Asks a process for its metrics. Returns false if it does not answer in time. */
  async #asked(peer: Peer): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#telling.set(peer, resolve);
    send(peer, { metrics: "tell" });
    const isAnswered = await doneWithin(
      this.#isSilent(peer) ? SILENT_MS_MAX : TELL_MS_MAX,
      promise,
    );
    this.#telling.delete(peer);
    return isAnswered;
  }
}

/** Metrics for a scrape of this process: its own, or with a supervisor those of all its processes. */
export class Scrapes {
  readonly #registry: Registry;
  /** Resolves once a supervisor asks for metrics, as it does when this process starts its work. */
  readonly #contacted = Promise.withResolvers<void>();
  #isAlone: boolean;
  #asked: Promise<Part[]> | undefined;
  #answered: (parts: Part[]) => void = () => undefined;

  constructor(registry: Registry) {
    this.#registry = registry;
    this.#isAlone = process.send === undefined;
    if (this.#isAlone) return;
    process.on("message", (message) => {
      // A process that cannot send its metrics counts as silent.
      this.#take(message).catch(() => undefined);
    });
  }

  /** Returns Prometheus' text format. Throws 503 if the supervisor does not answer. */
  async text(): Promise<string> {
    // Process managers open an IPC channel, too, but ask for nothing on it.
    if (!this.#isAlone)
      this.#isAlone = !(await doneWithin(CONTACT_MS_MAX, this.#contacted.promise));
    if (this.#isAlone) return await this.#registry.metrics();
    this.#asked ??= this.#ask().finally(() => (this.#asked = undefined));
    return await AggregatorRegistry.aggregate(await this.#asked).metrics();
  }

  async #ask(): Promise<Part[]> {
    const { promise, resolve } = Promise.withResolvers<Part[]>();
    this.#answered = resolve;
    process.send?.({ metrics: "ask" });
    if (!(await doneWithin(ANSWER_MS_MAX, promise)))
      throw unavailable("the metrics of the other processes are not available");
    return await promise;
  }

  async #take(message: unknown): Promise<void> {
    if (Value.Check(Tell, message)) {
      this.#isAlone = false;
      this.#contacted.resolve();
      process.send?.({ metrics: "own", part: await this.#registry.getMetricsAsJSON() });
    } else if (Value.Check(All, message)) this.#answered(message.parts);
  }
}

/** Returns the metrics without gauges, which describe a running process only. */
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
    // The process has just ended: `remove` will be called.
  }
}
