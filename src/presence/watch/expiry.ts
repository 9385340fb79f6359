import { type Topic } from "./topic.ts";

const BUCKET_MS = 250;

/** Timer wheel. A ping does not reschedule; a topic that is due is checked again and requeued. */
export class Expiry {
  readonly #buckets = new Map<number, Topic[]>();
  #done: number;

  constructor(nowMs: number) {
    this.#done = bucketOf(nowMs);
  }

  /** Schedules the topic, unless it is due earlier already. */
  schedule(topic: Topic, atMs: number): void {
    if (topic.dueMs <= atMs) return;
    topic.dueMs = atMs;
    // Uses the bucket after, which comes when all times in this one have passed.
    const bucket = Math.max(bucketOf(atMs), this.#done) + 1;
    const topics = this.#buckets.get(bucket);
    if (topics === undefined) this.#buckets.set(bucket, [topic]);
    else topics.push(topic);
  }

  /** Removes and returns the topics that are due. */
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
