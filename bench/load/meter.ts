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

/** Measures the CPU of the watched processes over a window, and samples the server's memory. */
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

  /** Resets the peak of memory, so that it does not include start-up. */
  restartPeak(): void {
    this.#kernelPeak = resetPeakRss(this.#watched.server);
    this.#highestSample = 0;
  }

  /** Begins a window. Reads the CPU last, because the window begins when this returns. */
  async open(): Promise<Reading> {
    const store = await this.#readStore("?reset");
    return { ...this.#readProcesses(), store };
  }

  /** Ends a window. Reads the CPU first, because the window has just ended. */
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
      // Includes the processes that a supervisor started.
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
      // The server has ended, which its clients report.
    }
  }
}
