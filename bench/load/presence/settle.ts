import { exactRssBytes } from "../../accounting.ts";
import type { PresenceMark } from "../plan.ts";

const SAMPLE_MS = 500;
const CHANGE_MAX = 0.01;

/**
 * Waits until a process's memory has changed by less than one percent over `seconds`, but at most
 * `secondsMax`: opening connections leaves garbage, which the runtime releases only later.
 */
export async function settle(
  pid: number,
  { name, seconds, secondsMax }: { name: string; seconds: number; secondsMax: number },
): Promise<PresenceMark> {
  const startedAtMs = performance.now();
  const kept = Math.ceil((seconds * 1000) / SAMPLE_MS) + 1;
  const samples: number[] = [];
  for (;;) {
    samples.push(exactRssBytes(pid));
    if (samples.length > kept) samples.shift();
    const elapsed = (performance.now() - startedAtMs) / 1000;
    const highest = Math.max(...samples);
    const isStill = highest - Math.min(...samples) <= highest * CHANGE_MAX;
    if ((samples.length === kept && isStill) || elapsed >= secondsMax)
      return { name, seconds: elapsed, rssBytes: samples.at(-1) ?? Number.NaN };
    await Bun.sleep(SAMPLE_MS);
  }
}
