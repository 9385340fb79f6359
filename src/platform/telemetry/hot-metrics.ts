import { isDeepStrictEqual } from "node:util";

import {
  AggregatorRegistry,
  Counter,
  Histogram,
  type HistogramConfiguration,
  type LabelValues,
  Registry,
} from "prom-client";

// Metrics of every request. prom-client looks a series up by a string that it builds from the labels
// each time, which took a sixth of the time of an update check. Here a series is looked up once and
// counts in numbers of its own, which `get` reports beside those of `inc` and `observe`.

type Total<Label extends string> = { labels: LabelValues<Label>; value: number };

/**
 * Registry of hot metrics. Its text is made from its JSON, because the library's own text has the
 * values of histograms without calling their `get`.
 */
export class HotRegistry extends Registry {
  override async metrics(): Promise<string> {
    return await AggregatorRegistry.aggregate([await this.getMetricsAsJSON()]).metrics();
  }
}

/** Counter whose series are looked up once. */
export class HotCounter<Label extends string> extends Counter<Label> {
  readonly #totals: Total<Label>[] = [];

  /** Returns a function that counts one with those labels. */
  series(labels: LabelValues<Label>): () => void {
    const total = find(this.#totals, labels) ?? { labels, value: 0 };
    if (!this.#totals.includes(total)) this.#totals.push(total);
    return () => {
      total.value++;
    };
  }

  override async get() {
    const described = await super.get();
    const totals = this.#totals.map((total) => ({ ...total }));
    return { ...described, values: [...described.values, ...totals] };
  }
}

type Observed<Label extends string> = {
  labels: LabelValues<Label>;
  /** Observations in each bucket alone; the last one has no upper bound. */
  buckets: number[];
  sum: number;
};

/** Histogram whose series are looked up once. Belongs in a HotRegistry. */
export class HotHistogram<Label extends string> extends Histogram<Label> {
  readonly #name: string;
  readonly #bounds: number[];
  readonly #observed: Observed<Label>[] = [];

  constructor(configuration: HistogramConfiguration<Label> & { buckets: number[] }) {
    super(configuration);
    this.#name = configuration.name;
    this.#bounds = configuration.buckets;
  }

  /** Returns a function that observes a value with those labels. */
  series(labels: LabelValues<Label>): (value: number) => void {
    const buckets = Array.from<number>({ length: this.#bounds.length + 1 }).fill(0);
    const observed = find(this.#observed, labels) ?? { labels, buckets, sum: 0 };
    if (!this.#observed.includes(observed)) this.#observed.push(observed);
    return (value) => {
      observed.sum += value;
      const bucket = this.#bounds.findIndex((bound) => value <= bound);
      observed.buckets[bucket === -1 ? this.#bounds.length : bucket]!++;
    };
  }

  override async get() {
    const described = await super.get();
    const own = this.#observed.flatMap((observed) => this.#export(observed));
    return { ...described, values: [...described.values, ...own] };
  }

  /** Returns the values of a series as Prometheus has them: cumulative buckets, sum and count. */
  #export({ labels, buckets, sum }: Observed<Label>) {
    let count = 0;
    const cumulative = [...this.#bounds, "+Inf"].map((le, index) => ({
      labels: { le, ...labels },
      value: (count += buckets[index] ?? 0),
      metricName: `${this.#name}_bucket`,
    }));
    return [
      ...cumulative,
      { labels, value: sum, metricName: `${this.#name}_sum` },
      { labels, value: count, metricName: `${this.#name}_count` },
    ];
  }
}

function find<Series extends { labels: object }>(
  all: Series[],
  labels: object,
): Series | undefined {
  return all.find((one) => isDeepStrictEqual(one.labels, labels));
}
