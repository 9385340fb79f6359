import { type Static, Type } from "typebox";
import { Value } from "typebox/value";

import { familyCpuSeconds, peakRssBytes, resetPeakRss, rssBytes } from "../accounting.ts";
import { Latency, type Usage, type Watched } from "./plan.ts";

const SAMPLE_MS = 100;
const KEPT_SAMPLE_MS = 1000;

const StoreCounters = Type.Object({
  puts: Type.Number(),
  putBytes: Type.Number(),
  putLatency: Latency,
});
type StoreCounters = Static<typeof StoreCounters>;

type Reading = {
  server: number;
  postgres: number | undefined;
  proxy: number | undefined;
  generator: number;
  rssBytes: number;
  store: StoreCounters | undefined;
  atMs: number;
};

/** Measures the CPU of the watched processes over a window, and samples the server's memory. */
export class Meter implements Disposable {
  readonly #watched: Watched | undefined;
  readonly #storeUrl: string | undefined;
  readonly #sampler: Timer;
  #highestSample = 0;
  #samples: { atMs: number; bytes: number }[] = [];
  #kernelPeak = false;

  constructor(watched: Watched | undefined, storeUrl: string | undefined) {
    this.#watched = watched;
    this.#storeUrl = storeUrl;
    this.#kernelPeak = watched !== undefined && peakRssBytes(watched.server) !== undefined;
    this.#sampler = setInterval(() => this.#sample(), SAMPLE_MS);
  }

  /** Resets the peak of memory, so that it does not include start-up. */
  restartPeak(): void {
    this.#kernelPeak = this.#watched !== undefined && resetPeakRss(this.#watched.server);
    this.#highestSample = 0;
  }

  /** Begins a window. Reads the CPU last, because the window begins when this returns. */
  async open(): Promise<Reading> {
    const store = await this.#readStore("?reset");
    this.#samples = [];
    return { ...this.#readProcesses(), store, atMs: performance.now() };
  }

  /** Ends a window. Reads the CPU first, because the window has just ended. */
  async close(opened: Reading): Promise<Usage> {
    const now = this.#readProcesses();
    const store = await this.#readStore("");
    this.#sample();
    const kernelPeak =
      this.#kernelPeak && this.#watched ? peakRssBytes(this.#watched.server) : undefined;
    return {
      serverCpuSeconds: now.server - opened.server,
      ...(now.postgres !== undefined &&
        opened.postgres !== undefined && { postgresCpuSeconds: now.postgres - opened.postgres }),
      ...(now.proxy !== undefined &&
        opened.proxy !== undefined && { proxyCpuSeconds: now.proxy - opened.proxy }),
      generatorCpuSeconds: now.generator - opened.generator,
      rssStartBytes: opened.rssBytes,
      rssPeakBytes: Math.max(kernelPeak ?? 0, this.#highestSample),
      rssSamples: this.#samples.map(({ atMs, bytes }) => ({
        seconds: (atMs - opened.atMs) / 1000,
        bytes,
      })),
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
    const { server, postgres, proxy } = this.#watched ?? {};
    const { user, system } = process.cpuUsage();
    return {
      server: cpuOf(server) ?? 0,
      postgres: cpuOf(postgres),
      proxy: cpuOf(proxy),
      generator: (user + system) / 1_000_000,
      rssBytes: server === undefined ? 0 : rssBytes(server),
    };
  }

  async #readStore(query: string): Promise<StoreCounters | undefined> {
    if (this.#storeUrl === undefined) return undefined;
    const response = await fetch(`${this.#storeUrl}/_stats${query}`);
    return Value.Parse(StoreCounters, await response.json());
  }

  #sample(): void {
    if (this.#watched === undefined) return;
    try {
      const bytes = rssBytes(this.#watched.server);
      const atMs = performance.now();
      this.#highestSample = Math.max(this.#highestSample, bytes);
      if (atMs - (this.#samples.at(-1)?.atMs ?? 0) >= KEPT_SAMPLE_MS)
        this.#samples.push({ atMs, bytes });
    } catch {
      // The server has ended, which its clients report.
    }
  }
}

/** Includes the processes that a supervisor started. */
function cpuOf(pid: number | undefined): number | undefined {
  return pid === undefined ? undefined : familyCpuSeconds(pid);
}
