import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";

import type { TransferResult } from "../load/plan.ts";
import { limitTimes } from "../report/findings.ts";
import { count, mib, ms, percent, times } from "../report/units.ts";
import { growthOf, median, peakOf } from "../stats.ts";
import type { Store } from "../stores.ts";
import { alternating, measureDownloads } from "./measure.ts";
import type { UpdatesContext } from "./updates-parameters.ts";
import { BUILD_PATH, publishBuild } from "./updates-publish.ts";

const RATE_TIMES_MIN = 0.5;
const GB = 1_000_000_000;

/** Measures downloads of one file by several clients at once, from Floodgate and a bare server. */
export async function measureDownload(context: UpdatesContext): Promise<void> {
  const { harness, findings, parameters } = context;
  const { rounds, connections } = parameters.download;
  const { bytes } = parameters.build;
  await using store = await harness.stores.open("files");
  await using server = await harness.startFloodgate(store);
  await publishBuild(context, { phase: "download", name: "publishing", subject: server, store });
  const path = largestObject(store);
  await using floor = await harness.startBaseline("floor-updates.ts", ["file", path], {});
  const contenders = [
    {
      series: "floor" as const,
      label: "bare Bun.file()",
      subject: floor,
      results: new Array<TransferResult>(),
    },
    {
      series: "files" as const,
      label: "Floodgate",
      subject: server,
      results: new Array<TransferResult>(),
    },
  ];
  for (const [round, { label, subject, results }] of alternating(rounds, contenders)) {
    const about = { phase: "download", name: label, round, subject, store };
    results.push(
      await measureDownloads(context, { ...about, connections, path: BUILD_PATH, bytes }),
    );
  }
  const [bare = 0, ours = 0] = contenders.map(({ results }) => rateOf(results));
  findings.section(
    `Download: a build of ${count(bytes / 1_000_000)} MB over ${connections} connections at once, files, median of ${rounds}`,
    ["", "throughput", "to bare", "CPU/GB", "server busy", "RSS growth", "peak RSS"],
    contenders.map(({ label, results }) => row(label, results, bare)),
    "The file is in the page cache; the receiving clients use the other core.",
  );
  const what = "bytes per second to bare Bun.file()";
  const limit = limitTimes(
    findings.atLeast(what, ours / bare, RATE_TIMES_MIN, times),
    bare,
    "bare Bun",
  );
  findings.charts.push({
    kind: "bars",
    title: "Bytes downloaded per second",
    show: mib,
    bars: contenders.map(({ series, label, results }) => ({
      series,
      label,
      value: rateOf(results),
      limit: series === "files" ? limit : undefined,
    })),
  });
}

/** Returns the path of the build's file, the largest one: the others are of the warm-up. */
function largestObject({ env }: Store): string {
  const folder = join(env["DATA_DIR"] ?? "", "objects/builds");
  const paths = readdirSync(folder).map((name) => join(folder, name));
  const [largest] = paths.toSorted((a, b) => statSync(b).size - statSync(a).size);
  if (largest === undefined) throw new Error("download: no build is stored");
  return largest;
}

function rateOf(results: TransferResult[]): number {
  return median(results.map(({ bytes, seconds }) => bytes / seconds));
}

function row(label: string, results: TransferResult[], bare: number): string[] {
  const over = (read: (result: TransferResult) => number) => median(results.map(read));
  return [
    label,
    `${mib(rateOf(results))}/s`,
    times(rateOf(results) / bare),
    ms(over(({ bytes, usage }) => (usage.serverCpuSeconds * 1000) / (bytes / GB))),
    percent(over(({ usage, seconds }) => usage.serverCpuSeconds / seconds)),
    mib(growthOf(results)),
    mib(peakOf(results)),
  ];
}
