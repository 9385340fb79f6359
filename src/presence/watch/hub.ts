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
// A client that reconnects finds its users still here.
const LINGER_MS = 30_000;
const LINGERING_MAX = 10_000;

export type HubDeps = {
  load: Load;
  clock: Clock;
  ttlMs: number;
  metrics: Metrics;
};

/** The users that this process's subscribers watch, and who is to hear what of them. */
export class Hub {
  readonly #deps: HubDeps;
  readonly #timing: Timing;
  readonly #fanOut: FanOut;
  readonly #expiry: Expiry;
  readonly #reader: TopicReader;
  readonly #topics = new Map<string, Topic>();
  /** Topics without subscribers, and since when. */
  readonly #lingering = new Map<Topic, number>();
  /** To be read for the first time. */
  #fresh: Topic[] = [];
  #readingFresh: Promise<void> | undefined;
  /** The stores did not answer: to be read again. */
  #unread = new Set<Topic>();
  /** Whether a tick waits for the stores. */
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

  /** Undefined unless what this process knows of the user is the present. */
  find(userid: string): Topic | undefined {
    const topic = this.#topics.get(userid);
    return topic?.reading === undefined && topic?.isLate(this.elapsedMs()) === false
      ? topic
      : undefined;
  }

  /** An id for what is no change of any user. */
  newId(): string {
    const { ids, clock } = this.#timing;
    return ids.text(ids.next(clock.epochMs()), "");
  }

  /** Resolves when the users' present state is known, or soon if it cannot be. Who asked must `watch` or `release` them. */
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

  /** Sends the present state, or what of it is newer than `since`, and from then on each event. */
  watch(subscriber: Subscriber, topics: Topic[], since?: Since): void {
    // What has happened is in the state that the newcomer gets.
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

  /** To be called when a connection is gone. */
  leave(subscriber: Subscriber): void {
    for (const topic of subscriber.topics) this.#part(subscriber, topic);
  }

  /** What these topics look like to the subscriber now, in the order of their ids: a client goes on from the last that it has. */
  state(subscriber: Subscriber, topics: Iterable<Topic>): Bundle {
    const { ids } = this.#timing;
    const known = [...topics].flatMap((topic) => {
      const view = topic.viewFor(subscriber.caller.userid);
      return view === undefined ? [] : [{ topic, view }];
    });
    known.sort((a, b) => a.view.us - b.view.us);
    return new Bundle(known.map(({ topic, view }) => topic.event(view, ids)));
  }

  /** News of a device, from whichever process. */
  take(ping: Ping): void {
    const topic = this.#topics.get(ping.userid);
    if (topic === undefined) return;
    const nowMs = this.elapsedMs();
    if (!topic.merge(deviceOf(ping), nowMs + this.#deps.ttlMs) || topic.reading !== undefined)
      return;
    this.#fanOut.add(topic, topic.update(this.#timing, causeOf(ping)));
    this.#schedule(topic, nowMs);
  }

  /** To be called some times a second: expires devices, forgets what nobody watches. */
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

  /** Reads all watched users anew, because messages may have been lost. */
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

  /** All who subscribe in one turn of the event loop share a query. */
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
   * Another process may have heard what did not reach this one: a user is called offline only after a store was asked. Until one
   * answers the topics stay unread, and each tick asks again.
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

  /** What the stores know beyond this process: delivered as if it had been heard. */
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

  /** Merges what the stores know, and tells what of it was news. */
  async #read(topics: Topic[]): Promise<Map<Topic, Cause>> {
    const { changed, unread } = await this.#reader.read(topics);
    for (const topic of unread) this.#unread.add(topic);
    return changed;
  }

  #schedule(topic: Topic, nowMs: number): void {
    const atMs = topic.nextExpiryMs(nowMs);
    if (atMs !== undefined) this.#expiry.schedule(topic, atMs);
  }

  /** Whether something has expired since the topic was scheduled. */
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
