import type { TransferResult } from "../load/plan.ts";
import { barsOf, type Limits } from "../report/findings.ts";
import { count, kib, mib, ms, or } from "../report/units.ts";
import { growthOf, peakOf } from "../stats.ts";
import type { ImagesParameters } from "./images-parameters.ts";
import { cpuMsOf, type Measured, measureCases } from "./measure-images.ts";
import { type Context, measureUploads } from "./measure.ts";

const GROWTH_BYTES_MAX = 192 * 1024;

/** Measures the memory of hundreds of uploads from slow networks. */
export async function measureSlow(context: Context<ImagesParameters>): Promise<void> {
  const { findings, parameters } = context;
  const { connections, bytesPerSecond, seconds } = parameters.slow;
  const bytes = bytesPerSecond * seconds;
  const measured = await measureCases(context, "slow", 1, async (subject, store, name) =>
    measureUploads(context, {
      phase: "slow",
      name,
      subject,
      store,
      connections,
      bytes,
      bytesPerSecond,
    }),
  );
  const perConnection = (results: TransferResult[]) => growthOf(results) / connections;
  findings.section(
    `Slow: ${connections} uploads at ${kib(bytesPerSecond)}/s each for ${seconds} s`,
    ["", "RSS growth", "per connection", "peak RSS", "CPU/100 MB", "PUTs"],
    measured.map(({ label, results }) => [
      label,
      mib(growthOf(results)),
      kib(perConnection(results)),
      mib(peakOf(results)),
      ms(cpuMsOf(results)),
      or(results[0]?.usage.puts, count),
    ]),
  );
  const limits: Limits<Measured<TransferResult>> = new Map();
  for (const each of measured.filter(({ ours }) => ours)) {
    const what = `RSS growth per slow upload, ${each.storeLabel}`;
    const growth = perConnection(each.results);
    limits.set(each, findings.atMost(what, growth, GROWTH_BYTES_MAX, kib));
  }
  findings.charts.push(
    barsOf("RSS growth per slow upload", kib, measured, (of) => perConnection(of.results), limits),
  );
}
