import { type Clock } from "../../platform/clock.ts";
import { type Device, INVISIBLE } from "../device.ts";
import { type Known } from "../store.ts";
import { type Cause, type Topic } from "./topic.ts";

const LOAD_USERS_MAX = 500;

/** Loads the devices of users from the stores, by user id. */
export type Load = (userids: string[]) => Promise<Known>;

export type TopicReaderDeps = { load: Load; clock: Clock; ttlMs: number };

/** Merges the stores' devices into topics. */
export class TopicReader {
  readonly #deps: TopicReaderDeps;

  constructor(deps: TopicReaderDeps) {
    this.#deps = deps;
  }

  /** Returns the topics that changed, and those that no store could read. */
  async read(topics: Topic[]): Promise<{ changed: Map<Topic, Cause>; unread: Topic[] }> {
    const changed = new Map<Topic, Cause>();
    const unread: Topic[] = [];
    const groups: Topic[][] = [];
    for (let at = 0; at < topics.length; at += LOAD_USERS_MAX)
      groups.push(topics.slice(at, at + LOAD_USERS_MAX));
    await Promise.all(
      groups.map(async (group) => {
        const { users, isRead } = await this.#deps.load(group.map(({ userid }) => userid));
        if (!isRead) unread.push(...group);
        for (const topic of group) {
          const cause = this.#merge(topic, users.get(topic.userid) ?? []);
          if (cause !== undefined) changed.set(topic, cause);
        }
      }),
    );
    return { changed, unread };
  }

  #merge(topic: Topic, devices: Device[]): Cause | undefined {
    const news = devices.filter((device) => topic.merge(device, this.#aliveUntil(device)));
    const seen = news.filter(({ gone, status }) => !gone && status !== INVISIBLE);
    // Prefers a visible device: other users must not learn of an invisible one.
    const [newest] = (seen.length > 0 ? seen : news).toSorted((a, b) => b.changedAt - a.changedAt);
    return (
      newest && {
        clientid: newest.clientid,
        isPing: news.some(({ gone }) => !gone),
        isSeen: seen.length > 0,
      }
    );
  }

  /**
   * Returns until when the device is online, by the age of its last ping on the database's clock.
   */
  #aliveUntil({ pingAt }: Device): number {
    const { clock, ttlMs } = this.#deps;
    const leftMs = Math.min(ttlMs, pingAt + ttlMs - clock.epochMs());
    return clock.elapsedMs() + leftMs;
  }
}
