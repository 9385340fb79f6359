import { type Clock } from "../../platform/clock.ts";
import { type Metrics } from "../../platform/telemetry/metrics.ts";
import { type Ping, INVISIBLE, deviceOf } from "../device.ts";
import { EventIds, type Since } from "./event-id.ts";
import { Bundle } from "./event.ts";
import { Expiry } from "./expiry.ts";
import { FanOut } from "./fan-out.ts";
import { type Subscriber } from "./subscriber.ts";
import { type Load, TopicReader } from "./topic-reader.ts";
import { type Cause, type Timing, Topic } from "./topic.ts";

// Users read at a time while the bus is down.
const POLL_USERS = 2000;
// Topics stay this long without subscribers, for clients that reconnect.
const LINGER_MS = 30_000;
const LINGERING_MAX = 10_000;

export type HubDeps = {
  load: Load;
  clock: Clock;
  ttlMs: number;
  metrics: Metrics;
};

/** Tracks the users that this process's subscribers watch, and delivers their changes. */
export class Hub {
  readonly #deps: HubDeps;
  readonly #timing: Timing;
  readonly #fanOut: FanOut;
  readonly #expiry: Expiry;
  readonly #reader: TopicReader;
  readonly #topics = new Map<string, Topic>();
  /** Topics without subscribers, with the time at which they lost the last one. */
  readonly #lingering = new Map<Topic, number>();
  /** Topics to read for the first time. */
  #fresh: Topic[] = [];
  #readingFresh: Promise<void> | undefined;
  /** Topics to read again, because the stores did not answer. */
  #unread = new Set<Topic>();
  /** True while a tick waits for the stores. */
  #isAsking = false;

  constructor(deps: HubDeps) {
    this.#deps = deps;
    this.#timing = { clock: deps.clock, ids: new EventIds(deps.clock), ttlMs: deps.ttlMs };
    this.#fanOut = new FanOut(this.#timing.ids, deps.metrics);
    this.#expiry = new Expiry(deps.clock.elapsedMs());
    this.#reader = new TopicReader(deps);
  }

  elapsedMs(): number {
    return this.#deps.clock.elapsedMs();
  }

  /** Returns the user's topic if it is known to be up to date. */
  find(userid: string): Topic | undefined {
    const topic = this.#topics.get(userid);
    return topic?.reading === undefined && topic?.isLate(this.elapsedMs()) === false
      ? topic
      : undefined;
  }

  /** Returns an id for an event that does not belong to a user. */
  newId(): string {
    const { ids, clock } = this.#timing;
    return ids.text(ids.next(clock.epochMs()), "");
  }

  /**
   * Resolves when the users' present state is known, or soon if it cannot be. The caller must
   * `watch` or `release` the topics.
   */
  async prepare(userids: Iterable<string>): Promise<Topic[]> {
    const topics = Array.from(userids, (userid) => this.#topicOf(userid));
    for (const topic of topics) {
      topic.pins++;
      this.#lingering.delete(topic);
    }
    await Promise.all(topics.map(async ({ reading }) => await reading));
    const nowMs = this.elapsedMs();
    await this.#confirm(topics.filter((topic) => topic.isLate(nowMs)));
    return topics;
  }

  release(topics: Topic[]): void {
    for (const topic of topics) {
      topic.pins--;
      this.#lingerIfAlone(topic);
    }
  }

  /** Sends the topics' state, or the part that changed after `since`, then each new event. */
  watch(subscriber: Subscriber, topics: Topic[], since?: Since): void {
    // Delivers pending changes to others first: the new subscriber gets them as part of the state.
    this.#fanOut.flush();
    for (const topic of topics) {
      topic.subscribers.add(subscriber);
      subscriber.topics.add(topic);
      topic.pins--;
    }
    this.#welcome(subscriber, topics, since);
  }

  unwatch(subscriber: Subscriber, userids: Iterable<string>): void {
    for (const userid of userids) {
      const topic = this.#topics.get(userid);
      if (topic !== undefined) this.#part(subscriber, topic);
    }
  }

  /** Must be called when a connection has closed. */
  leave(subscriber: Subscriber): void {
    for (const topic of subscriber.topics) this.#part(subscriber, topic);
  }

  /**
   * Returns the topics' state as the subscriber sees it, by id: clients resume from the last one.
   */
  state(subscriber: Subscriber, topics: Iterable<Topic>): Bundle {
    const { ids } = this.#timing;
    const known = [...topics].flatMap((topic) => {
      const view = topic.viewFor(subscriber.caller.userid);
      return view === undefined ? [] : [{ topic, view }];
    });
    known.sort((a, b) => a.view.us - b.view.us);
    return new Bundle(known.map(({ topic, view }) => topic.event(view, ids)));
  }

  /** Applies a ping that any process took. */
  take(ping: Ping): void {
    const topic = this.#topics.get(ping.userid);
    if (topic === undefined) return;
    const nowMs = this.elapsedMs();
    if (!topic.merge(deviceOf(ping), nowMs + this.#deps.ttlMs) || topic.reading !== undefined)
      return;
    this.#fanOut.add(topic, topic.update(this.#timing, causeOf(ping)));
    this.#schedule(topic, nowMs);
  }

  /** Must be called several times a second: expires devices, forgets topics that nobody watches. */
  async tick(): Promise<void> {
    const nowMs = this.elapsedMs();
    for (const [topic, sinceMs] of this.#lingering) {
      if (nowMs - sinceMs < LINGER_MS && this.#lingering.size <= LINGERING_MAX) break;
      this.#forget(topic);
    }
    const late = this.#expiry.due(nowMs).filter((topic) => this.#isLate(topic, nowMs));
    if (this.#isAsking) {
      for (const topic of late) this.#unread.add(topic);
      return;
    }
    this.#isAsking = true;
    await this.#confirm([...new Set([...late, ...this.#unread])]).finally(() => {
      this.#isAsking = false;
    });
  }

  /** Reads all watched users again, because messages may have been lost. */
  async resync(): Promise<void> {
    await this.#reread([...this.#topics.values()].filter(({ reading }) => reading === undefined));
  }

  /**
   * Reads some users again, or all of them in batches, while the bus does not report changes. Users
   * that no store could read are left to the next poll.
   */
  async poll(userids: Iterable<string> = this.#topics.keys()): Promise<void> {
    const topics = Array.from(userids).flatMap((userid) => this.#topics.get(userid) ?? []);
    for (let at = 0; at < topics.length; at += POLL_USERS) {
      const some = topics.slice(at, at + POLL_USERS).filter(({ reading }) => reading === undefined);
      const { changed } = await this.#reader.read(some);
      this.#tell(changed);
    }
  }

  #topicOf(userid: string): Topic {
    let topic = this.#topics.get(userid);
    if (topic === undefined) {
      topic = new Topic(userid);
      this.#topics.set(userid, topic);
      this.#fresh.push(topic);
      topic.reading = this.#readingFresh ??= this.#readFresh();
    }
    return topic;
  }

  #part(subscriber: Subscriber, topic: Topic): void {
    subscriber.topics.delete(topic);
    topic.subscribers.delete(subscriber);
    this.#lingerIfAlone(topic);
  }

  #lingerIfAlone(topic: Topic): void {
    if (topic.subscribers.size === 0 && topic.pins === 0)
      this.#lingering.set(topic, this.elapsedMs());
  }

  #forget(topic: Topic): void {
    this.#lingering.delete(topic);
    this.#unread.delete(topic);
    this.#topics.delete(topic.userid);
  }

  /** Reads new topics; those of one turn of the event loop share a query. */
  async #readFresh(): Promise<void> {
    await nextTurn();
    this.#readingFresh = undefined;
    const topics = this.#fresh;
    this.#fresh = [];
    await this.#read(topics);
    const read = this.#timing.ids.nextRead();
    for (const topic of topics) {
      topic.derive(this.#timing);
      topic.read = read;
      topic.reading = undefined;
      this.#schedule(topic, this.elapsedMs());
    }
  }

  /**
   * Expires topics, but only after a store was read: another process may have taken a ping that did
   * not reach this one. Until a store answers, each tick asks again.
   */
  async #confirm(late: Topic[]): Promise<void> {
    await this.#reread(late);
    const nowMs = this.elapsedMs();
    for (const topic of late)
      if (!this.#unread.has(topic) && topic.isLate(nowMs)) this.#expire(topic);
  }

  #welcome(subscriber: Subscriber, topics: Topic[], since: Since | undefined): void {
    const { ids } = this.#timing;
    const news = topics.filter((topic) => {
      const view = topic.viewFor(subscriber.caller.userid);
      return (
        view !== undefined &&
        (since === undefined || ids.isNews(view.us, topic.userid, since, topic.read))
      );
    });
    if (news.length > 0) subscriber.deliver(this.state(subscriber, news), news);
  }

  /** Reads the topics again and delivers what the stores knew and this process did not. */
  async #reread(topics: Topic[]): Promise<void> {
    if (topics.length === 0) return;
    for (const topic of topics) this.#unread.delete(topic);
    this.#tell(await this.#read(topics));
  }

  #tell(changed: Map<Topic, Cause>): void {
    for (const [topic, cause] of changed) {
      this.#fanOut.add(topic, topic.update(this.#timing, cause));
      this.#schedule(topic, this.elapsedMs());
    }
  }

  /** Merges the stores' devices and returns the topics that changed. */
  async #read(topics: Topic[]): Promise<Map<Topic, Cause>> {
    const { changed, unread } = await this.#reader.read(topics);
    for (const topic of unread) this.#unread.add(topic);
    return changed;
  }

  #schedule(topic: Topic, nowMs: number): void {
    const atMs = topic.nextExpiryMs(nowMs);
    if (atMs !== undefined) this.#expiry.schedule(topic, atMs);
  }

  /** Reschedules the topic; returns whether something has expired that changes what is seen. */
  #isLate(topic: Topic, nowMs: number): boolean {
    if (this.#topics.get(topic.userid) !== topic || topic.reading !== undefined) return false;
    this.#schedule(topic, nowMs);
    return topic.isLate(nowMs);
  }

  #expire(topic: Topic): void {
    const nowMs = this.elapsedMs();
    this.#fanOut.add(topic, topic.update(this.#timing));
    this.#schedule(topic, nowMs);
  }
}

function causeOf({ clientid, status }: Ping): Cause {
  return { clientid, isPing: status !== null, isSeen: status !== null && status !== INVISIBLE };
}

async function nextTurn(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}
