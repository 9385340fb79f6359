import { type Topic } from "./topic.ts";

const BUCKET_MS = 250;

/** Which topics to look at when. A ping moves nothing: that a topic's time has moved on is found when it is due. */
export class Expiry {
  readonly #buckets = new Map<number, Topic[]>();
  #done: number;

  constructor(nowMs: number) {
    this.#done = bucketOf(nowMs);
  }

  /** Unless the topic is due before that anyway. */
  schedule(topic: Topic, atMs: number): void {
    if (topic.dueMs <= atMs) return;
    topic.dueMs = atMs;
    // The end of the bucket: what is due in it is past then.
    const bucket = Math.max(bucketOf(atMs), this.#done) + 1;
    const topics = this.#buckets.get(bucket);
    if (topics === undefined) this.#buckets.set(bucket, [topic]);
    else topics.push(topic);
  }

  /** Those whose time has come; they are no longer scheduled. */
  due(nowMs: number): Topic[] {
    const due: Topic[] = [];
    for (const until = bucketOf(nowMs); this.#done < until;) {
      this.#done++;
      for (const topic of this.#buckets.get(this.#done) ?? []) {
        topic.dueMs = Number.POSITIVE_INFINITY;
        due.push(topic);
      }
      this.#buckets.delete(this.#done);
    }
    return due;
  }
}

function bucketOf(ms: number): number {
  return Math.floor(ms / BUCKET_MS);
}
