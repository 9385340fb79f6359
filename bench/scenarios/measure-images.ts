import type { Subject } from "../harness.ts";
import type { TransferResult } from "../load/plan.ts";
import type { Series } from "../report/series.ts";
import { median } from "../stats.ts";
import type { Store, StoreKind } from "../stores.ts";
import type { ImagesParameters } from "./images-parameters.ts";
import { alternating, type Context, measureUploads } from "./measure.ts";

type Case = { series: Series; name: string; store: StoreKind; ours: boolean };

const CASES: Case[] = [
  { series: "files", name: "Floodgate", store: "files", ours: true },
  { series: "formDataFiles", name: "formData()", store: "files", ours: false },
  { series: "s3", name: "Floodgate", store: "s3", ours: true },
  { series: "formDataS3", name: "formData()", store: "s3", ours: false },
];

export type Measured<Result> = Case & { storeLabel: string; label: string; results: Result[] };

/** Measures each case on a fresh, warmed-up process, in alternating order. */
export async function measureCases<Result>(
  context: Context<ImagesParameters>,
  phase: string,
  rounds: number,
  measure: (subject: Subject, store: Store, name: string, round: number) => Promise<Result>,
): Promise<Measured<Result>[]> {
  const { harness, parameters } = context;
  const measured = CASES.map((each) => ({
    ...each,
    storeLabel: harness.stores.label(each.store),
    label: `${each.name}, ${harness.stores.label(each.store)}`,
    results: new Array<Result>(),
  }));
  for (const [round, each] of alternating(rounds, measured)) {
    await using store = await harness.stores.open(each.store);
    const limit = { FILE_SIZE_LIMIT: String(2 * parameters.large.bytes) };
    await using subject = each.ours
      ? await harness.startFloodgate(store, limit)
      : await harness.startFormData(store);
    const { uploads: connections, bytes } = parameters.warmup;
    const about = { phase, name: each.label, subject, store, connections, bytes };
    await measureUploads(context, about, false);
    each.results.push(await measure(subject, store, each.label, round));
  }
  return measured;
}

export function pair<Result>(measured: Measured<Result>[], store: StoreKind) {
  const ours = measured.find((each) => each.store === store && each.ours);
  const theirs = measured.find((each) => each.store === store && !each.ours);
  if (ours === undefined || theirs === undefined) throw new Error(`no measurements on ${store}`);
  return [ours, theirs] as const;
}

/** Returns milliseconds of the server's CPU for 100 MB. */
export function cpuMsOf(results: TransferResult[]): number {
  return median(results.map(({ bytes, usage }) => (usage.serverCpuSeconds * 1e11) / bytes));
}
