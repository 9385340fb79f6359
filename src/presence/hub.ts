import { type Clock } from "../platform/clock.ts";
import { type Log } from "../platform/log.ts";
import { type Metrics } from "../platform/metrics.ts";
import { type Device, type Ping, deviceOf } from "./device.ts";
import { EventIds, type Since } from "./event-id.ts";
import { Bundle } from "./event.ts";
import { Expiry } from "./expiry.ts";
import { FanOut } from "./fan-out.ts";
import { type Subscriber } from "./subscriber.ts";
import { type Timing, Topic } from "./topic.ts";

const LOAD_USERS_MAX = 500;
// The stores have so long to answer; after that what this process knows has to do.
const LOAD_MS = 400;
// A client that reconnects finds its users still here.
const LINGER_MS = 30_000;
const LINGERING_MAX = 10_000;

export type HubDeps = {
  /** What the stores know of the devices of users, by user id. */
  load: (userids: string[]) => Promise<Map<string, Device[]>>;
  clock: Clock;
  ttlMs: number;
  metrics: Metrics;
  log: Log;
};

/** The users that this process's subscribers watch, and who is to hear what of them. */
export class Hub {
  readonly #deps: HubDeps;
  readonly #timing: Timing;
  readonly #fanOut: FanOut;
  readonly #expiry: Expiry;
  readonly #topics = new Map<string, Topic>();
  /** Topics without subscribers, and since when. */
  readonly #lingering = new Map<Topic, number>();
  /** To be read for the first time. */
  #fresh: Topic[] = [];
  /** The stores did not answer: to be read again. */
  #unread = new Set<Topic>();

  constructor(deps: HubDeps) {
    this.#deps = deps;
    this.#timing = { clock: deps.clock, ids: new EventIds(), ttlMs: deps.ttlMs };
    this.#fanOut = new FanOut(this.#timing.ids, deps.metrics);
    this.#expiry = new Expiry(deps.clock.elapsedMs());
  }

  elapsedMs(): number {
    return this.#deps.clock.elapsedMs();
  }

  find(userid: string): Topic | undefined {
    const topic = this.#topics.get(userid);
    return topic?.waiting === undefined ? topic : undefined;
  }

  /** An id for what is no change of any user. */
  newId(): string {
    const { ids, clock } = this.#timing;
    return ids.text(ids.next(clock.epochMs()));
  }

  /** Sends the users' present state, or what of it is newer than `since`, and from then on each event. */
  watch(subscriber: Subscriber, userids: Iterable<string>, since?: Since): void {
    const ready: Topic[] = [];
    for (const userid of userids) {
      const topic = this.#topicOf(userid);
      subscriber.topics.add(topic);
      if (topic.waiting === undefined) {
        topic.subscribers.add(subscriber);
        ready.push(topic);
      } else topic.waiting.push({ subscriber, since });
    }
    this.#welcome(subscriber, ready, since);
  }

  unwatch(subscriber: Subscriber, userids: Iterable<string>): void {
    for (const userid of userids) {
      const topic = this.#topics.get(userid);
      if (topic !== undefined) this.#part(subscriber, topic);
    }
  }

  /** To be called when a connection is gone. */
  leave(subscriber: Subscriber): void {
    for (const topic of subscriber.topics) this.#part(subscriber, topic);
  }

  /** What these topics look like to the subscriber now, in the order of their ids: a client goes on from the last that it has. */
  state(subscriber: Subscriber, topics: Iterable<Topic>): Bundle {
    const { ids } = this.#timing;
    const views = Array.from(topics, (topic) => ({
      topic,
      view: topic.viewFor(subscriber.caller.userid),
    }));
    const known = views.flatMap(({ topic, view }) => (view === undefined ? [] : [{ topic, view }]));
    known.sort((a, b) => a.view.us - b.view.us);
    return new Bundle(known.map(({ topic, view }) => topic.event(view, ids)));
  }

  /** News of a device, from whichever process. */
  take(ping: Ping): void {
    const topic = this.#topics.get(ping.userid);
    if (topic === undefined) return;
    const nowMs = this.elapsedMs();
    if (!topic.merge(deviceOf(ping), nowMs + this.#deps.ttlMs) || topic.waiting !== undefined)
      return;
    this.#fanOut.add(topic, topic.update(ping.clientid, ping.status, this.#timing));
    this.#schedule(topic, nowMs);
  }

  /** To be called some times a second: expires devices, forgets what nobody watches. */
  async tick(): Promise<void> {
    const nowMs = this.elapsedMs();
    for (const [topic, sinceMs] of this.#lingering) {
      if (nowMs - sinceMs < LINGER_MS) break;
      this.#forget(topic);
    }
    const late = this.#expiry.due(nowMs).filter((topic) => this.#isLate(topic, nowMs));
    const unread = [...this.#unread];
    // Another process may have heard what did not reach this one: the stores are asked before a user is called offline.
    await this.#reread([...late, ...unread]);
    for (const topic of late) this.#expire(topic);
  }

  /** Reads all watched users anew, because messages may have been lost. */
  async resync(): Promise<void> {
    await this.#reread([...this.#topics.values()].filter(({ waiting }) => waiting === undefined));
  }

  #topicOf(userid: string): Topic {
    let topic = this.#topics.get(userid);
    if (topic === undefined) {
      topic = new Topic(userid);
      this.#topics.set(userid, topic);
      // All who subscribe in this turn of the event loop share a query.
      if (this.#fresh.length === 0) setImmediate(() => void this.#readFresh());
      this.#fresh.push(topic);
    }
    this.#lingering.delete(topic);
    return topic;
  }

  #part(subscriber: Subscriber, topic: Topic): void {
    subscriber.topics.delete(topic);
    topic.subscribers.delete(subscriber);
    if (topic.subscribers.size === 0 && topic.waiting === undefined) this.#linger(topic);
  }

  #linger(topic: Topic): void {
    this.#lingering.set(topic, this.elapsedMs());
    const [oldest] = this.#lingering.keys();
    if (this.#lingering.size > LINGERING_MAX && oldest !== undefined) this.#forget(oldest);
  }

  #forget(topic: Topic): void {
    this.#lingering.delete(topic);
    this.#unread.delete(topic);
    this.#topics.delete(topic.userid);
  }

  async #readFresh(): Promise<void> {
    const topics = this.#fresh;
    this.#fresh = [];
    await this.#read(topics);
    const welcomed = new Map<Subscriber, { topics: Topic[]; since: Since | undefined }>();
    for (const topic of topics) {
      topic.derive(this.#timing);
      topic.knownFrom = this.#timing.ids.last;
      this.#schedule(topic, this.elapsedMs());
      for (const { subscriber, since } of topic.waiting ?? []) {
        if (!subscriber.topics.has(topic)) continue;
        topic.subscribers.add(subscriber);
        const entry = welcomed.get(subscriber);
        if (entry === undefined) welcomed.set(subscriber, { topics: [topic], since });
        else entry.topics.push(topic);
      }
      topic.waiting = undefined;
      if (topic.subscribers.size === 0) this.#linger(topic);
    }
    for (const [subscriber, entry] of welcomed)
      this.#welcome(subscriber, entry.topics, entry.since);
  }

  #welcome(subscriber: Subscriber, topics: Topic[], since: Since | undefined): void {
    const { ids } = this.#timing;
    const news = topics.filter((topic) => {
      const view = topic.viewFor(subscriber.caller.userid);
      return (
        view !== undefined && (since === undefined || ids.isNews(view.us, since, topic.knownFrom))
      );
    });
    if (news.length > 0) subscriber.deliver(this.state(subscriber, news), news);
  }

  /** What the stores know beyond this process: delivered as if it had been heard. */
  async #reread(topics: Topic[]): Promise<void> {
    if (topics.length === 0) return;
    for (const topic of topics) this.#unread.delete(topic);
    const changed = await this.#read(topics);
    for (const [topic, newest] of changed) {
      const status = newest.gone ? null : newest.status;
      this.#fanOut.add(topic, topic.update(newest.clientid, status, this.#timing));
      this.#schedule(topic, this.elapsedMs());
    }
  }

  /** Merges what the stores know, and tells the newest device of each topic for which that was news. */
  async #read(topics: Topic[]): Promise<Map<Topic, Device>> {
    const changed = new Map<Topic, Device>();
    for (let at = 0; at < topics.length; at += LOAD_USERS_MAX) {
      const some = topics.slice(at, at + LOAD_USERS_MAX);
      const stored = await this.#load(some.map(({ userid }) => userid));
      for (const topic of some) {
        if (stored === undefined) this.#unread.add(topic);
        for (const device of stored?.get(topic.userid) ?? []) {
          if (!topic.merge(device, this.#aliveUntil(device))) continue;
          const newest = changed.get(topic);
          if (newest === undefined || device.changedAt > newest.changedAt)
            changed.set(topic, device);
        }
      }
    }
    return changed;
  }

  /** Undefined when the stores fail or take too long. */
  async #load(userids: string[]): Promise<Map<string, Device[]> | undefined> {
    const { load, log } = this.#deps;
    try {
      return (await Promise.race([load(userids), Bun.sleep(LOAD_MS)])) ?? undefined;
    } catch (error) {
      log.warn({ err: error }, "presence not read");
      return undefined;
    }
  }

  /** By the time that has passed since its ping, by this machine's wall clock. */
  #aliveUntil({ pingAt }: Device): number {
    const { clock, ttlMs } = this.#deps;
    const leftMs = Math.min(ttlMs, pingAt + ttlMs - clock.epochMs());
    return clock.elapsedMs() + leftMs;
  }

  #schedule(topic: Topic, nowMs: number): void {
    const atMs = topic.nextExpiryMs(nowMs);
    if (atMs !== undefined) this.#expiry.schedule(topic, atMs);
  }

  /** Whether something has expired since the topic was scheduled. */
  #isLate(topic: Topic, nowMs: number): boolean {
    if (this.#topics.get(topic.userid) !== topic || topic.waiting !== undefined) return false;
    this.#schedule(topic, nowMs);
    return topic.isLate(nowMs);
  }

  #expire(topic: Topic): void {
    const nowMs = this.elapsedMs();
    const expired = topic.lastExpired(nowMs);
    if (expired === undefined) return;
    this.#fanOut.add(topic, topic.update(expired.clientid, null, this.#timing));
    this.#schedule(topic, nowMs);
  }
}
