import { type Metrics } from "../../platform/telemetry/metrics.ts";
import { type EventIds } from "./event-id.ts";
import { Bundle } from "./event.ts";
import { type Change, type LiveView, type Topic } from "./topic.ts";

/** Delivers changes once per turn of the event loop, so that one write can carry several events. */
export class FanOut {
  readonly #ids: EventIds;
  readonly #metrics: Metrics;
  #changes = new Map<Topic, Change[]>();
  #delivered = 0;

  constructor(ids: EventIds, metrics: Metrics) {
    this.#ids = ids;
    this.#metrics = metrics;
  }

  add(topic: Topic, change: Change): void {
    if (topic.subscribers.size === 0) return;
    if (this.#changes.size === 0) setImmediate(() => this.flush());
    const changes = this.#changes.get(topic);
    if (changes === undefined) this.#changes.set(topic, [change]);
    else changes.push(change);
  }

  flush(): void {
    const changed = this.#changes;
    this.#changes = new Map();
    let deliveries = 0;
    for (const [topic, changes] of changed) {
      for (const { public: open, own } of changes) {
        this.#order(open);
        if (own !== open) this.#order(own);
      }
      const topics = [topic];
      let open: Bundle | undefined;
      let own: Bundle | undefined;
      for (const subscriber of topic.subscribers) {
        const isOwn = subscriber.caller.userid === topic.userid;
        if (isOwn) own ??= this.#bundle(topic, changes, "own");
        else open ??= this.#bundle(topic, changes, "public");
        const bundle = isOwn ? own : open;
        if (bundle === undefined || bundle.events.length === 0) continue;
        subscriber.deliver(bundle, topics);
        deliveries += bundle.events.length;
      }
    }
    this.#metrics.presenceDeliveries.inc(deliveries);
  }

  /**
   * Gives a change a new id if a higher one was delivered: changes are delivered user by user, and
   * a client that resumes from an id must not lack a change with a lower one.
   */
  #order(view: LiveView | undefined): void {
    if (view === undefined) return;
    if (view.us <= this.#delivered) view.us = this.#ids.next(view.at);
    this.#delivered = view.us;
  }

  #bundle(topic: Topic, changes: Change[], view: keyof Change): Bundle {
    const views = changes.map((change) => change[view]).filter((one) => one !== undefined);
    return new Bundle(views.map((one) => topic.event(one, this.#ids)));
  }
}
