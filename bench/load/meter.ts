import { type Static, Type } from "typebox";
import { Value } from "typebox/value";

import { familyCpuSeconds, peakRssBytes, resetPeakRss, rssBytes } from "../accounting.ts";
import { Latency, type Usage, type Watched } from "./plan.ts";

const SAMPLE_MS = 100;

const StoreCounters = Type.Object({
  puts: Type.Number(),
  putBytes: Type.Number(),
  putLatency: Latency,
});
type StoreCounters = Static<typeof StoreCounters>;

type Reading = {
  server: number;
  postgres: number | undefined;
  generator: number;
  rssBytes: number;
  store: StoreCounters | undefined;
};

/** Reads what the watched processes use at both ends of a window, and their memory in between. */
export class Meter implements Disposable {
  readonly #watched: Watched;
  readonly #storeUrl: string | undefined;
  readonly #sampler: Timer;
  #highestSample = 0;
  #kernelPeak = false;

  constructor(watched: Watched, storeUrl: string | undefined) {
    this.#watched = watched;
    this.#storeUrl = storeUrl;
    this.#kernelPeak = peakRssBytes(watched.server) !== undefined;
    this.#sampler = setInterval(() => this.#sample(), SAMPLE_MS);
  }

  /** Forgets earlier peaks, so that what follows can be told from what start-up took. */
  restartPeak(): void {
    this.#kernelPeak = resetPeakRss(this.#watched.server);
    this.#highestSample = 0;
  }

  /** The store first, the CPU last: the window opens with the next statement. */
  async open(): Promise<Reading> {
    const store = await this.#readStore("?reset");
    return { ...this.#readProcesses(), store };
  }

  /** The CPU first: the window has just closed. */
  async close(opened: Reading): Promise<Usage> {
    const now = this.#readProcesses();
    const store = await this.#readStore("");
    this.#sample();
    const kernelPeak = this.#kernelPeak ? peakRssBytes(this.#watched.server) : undefined;
    return {
      serverCpuSeconds: now.server - opened.server,
      ...(now.postgres !== undefined &&
        opened.postgres !== undefined && { postgresCpuSeconds: now.postgres - opened.postgres }),
      generatorCpuSeconds: now.generator - opened.generator,
      rssStartBytes: opened.rssBytes,
      rssPeakBytes: Math.max(kernelPeak ?? 0, this.#highestSample),
      ...(store !== undefined &&
        opened.store !== undefined && {
          puts: store.puts - opened.store.puts,
          putBytes: store.putBytes - opened.store.putBytes,
          putLatency: store.putLatency,
        }),
    };
  }

  [Symbol.dispose](): void {
    clearInterval(this.#sampler);
  }

  #readProcesses() {
    const { server, postgres } = this.#watched;
    const { user, system } = process.cpuUsage();
    return {
      // With the processes that it keeps, if it does.
      server: familyCpuSeconds(server),
      postgres: postgres === undefined ? undefined : familyCpuSeconds(postgres),
      generator: (user + system) / 1_000_000,
      rssBytes: rssBytes(server),
    };
  }

  async #readStore(query: string): Promise<StoreCounters | undefined> {
    if (this.#storeUrl === undefined) return undefined;
    const response = await fetch(`${this.#storeUrl}/_stats${query}`);
    return Value.Parse(StoreCounters, await response.json());
  }

  #sample(): void {
    try {
      this.#highestSample = Math.max(this.#highestSample, rssBytes(this.#watched.server));
    } catch {
      // It ended; whoever waits for its answers reports that.
    }
  }
}
