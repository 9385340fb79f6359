import { exactRssBytes } from "../../accounting.ts";
import { endpointOf } from "../connection.ts";
import { Meter } from "../meter.ts";
import type {
  PresenceMark,
  PresencePlan,
  PresenceResult,
  PresenceStep,
  PresenceWindow,
} from "../plan.ts";
import { Deliveries } from "./deliveries.ts";
import { Names, PingRequests } from "./names.ts";
import { Pinger } from "./pinger.ts";
import { settle } from "./settle.ts";
import { Stalled } from "./stalled.ts";
import { type Subscriber, Subscribers } from "./subscribers.ts";

const GREET_ATTEMPTS = 10;
const GREET_WAIT_MS = 2000;
const LAST_PING_WAIT_MS = 10_000;
const POLL_MS = 10;
const PROGRESS_MS = 250;
/**
 * Number of subscribers, spread over all, that tell how far pings have got at saturation: checking
 * all would cost more than the events.
 */
const WATCHED = 8;

type Progress = (done: number, detail: string) => void;
type WindowStep = Extract<PresenceStep, { kind: "window" }>;

/** Runs the steps of a plan, one after another. */
export async function runPresence(plan: PresencePlan, progress: Progress): Promise<PresenceResult> {
  const run = await PresenceRun.open(plan, progress);
  try {
    for (const step of plan.steps) await run.take(step);
    return run.result();
  } finally {
    run.close();
  }
}

class PresenceRun {
  readonly #pid: number;
  readonly #progress: Progress;
  readonly #deliveries: Deliveries;
  readonly #subscribers: Subscribers;
  readonly #stalled: Stalled;
  readonly #pinger: Pinger;
  readonly #meter: Meter;
  readonly #marks: PresenceMark[] = [];
  readonly #windows: PresenceWindow[] = [];
  #watched: Subscriber[] = [];
  #users = 0;

  private constructor(
    plan: PresencePlan,
    progress: Progress,
    parts: {
      deliveries: Deliveries;
      subscribers: Subscribers;
      stalled: Stalled;
      pinger: Pinger;
    },
  ) {
    this.#pid = plan.watched.server;
    this.#progress = progress;
    this.#deliveries = parts.deliveries;
    this.#subscribers = parts.subscribers;
    this.#stalled = parts.stalled;
    this.#pinger = parts.pinger;
    this.#meter = new Meter(plan.watched, undefined);
  }

  static async open(plan: PresencePlan, progress: Progress): Promise<PresenceRun> {
    const endpoint = endpointOf(plan.url);
    const names = new Names(plan.nameLength);
    const deliveries = new Deliveries();
    const options = { transport: plan.transport, endpoint, names, deliveries };
    const requests = new PingRequests(plan, names, endpoint.host);
    return new PresenceRun(plan, progress, {
      deliveries,
      subscribers: new Subscribers(options),
      stalled: new Stalled(options),
      pinger: await Pinger.open(plan.pingConnections, endpoint, requests, deliveries),
    });
  }

  async take(step: PresenceStep): Promise<void> {
    switch (step.kind) {
      case "subscribe":
        await this.#subscribe(step.users, step.each);
        break;
      case "greet":
        await this.#greet();
        break;
      case "unsubscribe":
        this.#subscribers.close();
        break;
      case "stall":
        this.#meter.restartPeak();
        this.#marks.push({ name: "stall", seconds: 0, rssBytes: exactRssBytes(this.#pid) });
        await this.#stalled.open(step.subscribers);
        break;
      case "unstall":
        this.#stalled.close();
        break;
      case "settle":
        this.#progress(0, `waiting for memory to settle: ${step.name}`);
        this.#marks.push(await settle(this.#pid, step));
        break;
      case "window":
        this.#windows.push(await this.#window(step));
        break;
    }
  }

  result(): PresenceResult {
    return { marks: this.#marks, windows: this.#windows, problems: this.#deliveries.problems };
  }

  close(): void {
    this.#meter[Symbol.dispose]();
    this.#pinger.close();
    this.#subscribers.close();
    this.#stalled.close();
  }

  async #subscribe(users: number, each: number): Promise<void> {
    this.#users = users;
    const total = users * each;
    await this.#subscribers.open(users, each, (done) =>
      this.#progress(done, `${Math.round(done * total)} subscribers open`),
    );
    const { all } = this.#subscribers;
    const step = Math.max((all.length - 1) / (WATCHED - 1), 1);
    this.#watched = all.filter((_, index) => Math.floor(index % step) === 0);
    for (const subscriber of this.#watched) subscriber.watched = true;
  }

  /**
   * Pings until all subscribers have received one: WebSocket subscriptions are not answered, so the
   * first ping may be too early.
   */
  async #greet(): Promise<void> {
    const everyone = Array.from({ length: this.#users }, (_, user) => user);
    let missing = everyone;
    for (let attempt = 0; attempt < GREET_ATTEMPTS && missing.length > 0; attempt++) {
      await this.#pinger.burst(missing);
      missing = await this.#whoMisses(GREET_WAIT_MS);
    }
    if (missing.length > 0)
      this.#deliveries.problem(`subscribers of ${missing.length} users never received a ping`);
  }

  /** Returns the users whose newest ping has not reached all their subscribers in time. */
  async #whoMisses(waitMs: number): Promise<number[]> {
    const deadlineMs = performance.now() + waitMs;
    for (;;) {
      const missing = new Set<number>();
      for (const { user, newest } of this.#subscribers.all)
        if (newest < this.#deliveries.lastSent(user)) missing.add(user);
      if (missing.size === 0 || performance.now() > deadlineMs) return [...missing];
      await Bun.sleep(POLL_MS);
    }
  }

  async #window(step: WindowStep): Promise<PresenceWindow> {
    const startedAtMs = performance.now();
    const totalMs = (step.warmupSeconds + step.seconds) * 1000;
    const timer = setInterval(
      () => this.#progress((performance.now() - startedAtMs) / totalMs, step.name),
      PROGRESS_MS,
    );
    if (step.rate !== undefined) this.#pinger.startRate(step.rate, this.#users);
    else if (step.quiet !== true) this.#pinger.startSaturated(() => this.#arrived());
    await Bun.sleep(step.warmupSeconds * 1000);
    this.#pinger.restartLag();
    const opened = await this.#meter.open();
    const answeredBefore = this.#pinger.answered;
    this.#deliveries.openWindow();
    await Bun.sleep(step.seconds * 1000);
    const seconds = this.#deliveries.closeWindow();
    const usage = await this.#meter.close(opened);
    const pings = this.#pinger.answered - answeredBefore;
    const { lag } = this.#pinger;
    const rssBytes = exactRssBytes(this.#pid);
    clearInterval(timer);
    if (step.quiet !== true) await this.#drain();
    return {
      name: step.name,
      ...(step.rate !== undefined && { rate: step.rate }),
      subscribers: this.#subscribers.all.length,
      stalled: this.#stalled.count,
      seconds,
      pings,
      ...this.#deliveries.result(),
      lag,
      usage,
      rssBytes,
    };
  }

  #arrived(): number {
    let least = Number.POSITIVE_INFINITY;
    for (const subscriber of this.#watched) least = Math.min(least, subscriber.newest);
    return least;
  }

  /**
   * Checks that the last ping of each user arrives. Older states may be skipped, but a subscriber
   * without the last one would be wrong until the next change.
   */
  async #drain(): Promise<void> {
    await this.#pinger.stop();
    await this.#pinger.burst(Array.from({ length: this.#users }, (_, user) => user));
    const missing = await this.#whoMisses(LAST_PING_WAIT_MS);
    if (missing.length > 0)
      this.#deliveries.problem(
        `the last ping of ${missing.length} users did not reach all their subscribers`,
      );
  }
}
