import { basename } from "node:path";

import { type Static, Type } from "typebox";
import { Value } from "typebox/value";

import type { PresenceResult, StageResult, TransferResult } from "../load/plan.ts";
import { median, putsPerMillion, rateOf, spread } from "../stats.ts";
import { Measurement, type Section, type Show } from "./findings.ts";
import { count, megabytes, microseconds, mib, ms, percent, perSecond, times } from "./units.ts";

/** Least change that counts: no figure of a shared machine repeats more exactly. */
const NOISE_MIN = 0.03;
/** Noise of a figure that was measured once, so that its spread is not known. */
const NOISE_OF_ONE = 0.15;
const RESULT_BYTES_MAX = 64 * 2 ** 20;

/** The part of a result file that is compared. */
const Result = Type.Object({
  scenario: Type.String(),
  startedAt: Type.String(),
  commit: Type.String(),
  machine: Type.Object({ cpu: Type.String(), cores: Type.Number() }),
  parameters: Type.Unknown(),
  measurements: Type.Array(Measurement),
});
export type Result = Static<typeof Result>;

/** Measurements under a name, such as that of a file or of a git ref. */
export type Side = { name: string; measurements: Measurement[] };

/** Reads a result file of an earlier run; throws if it is none. */
export async function readResult(path: string): Promise<Result> {
  const file = Bun.file(path);
  if (!(await file.exists())) throw new Error(`there is no file ${path}`);
  if (file.size > RESULT_BYTES_MAX) throw new Error(`${path} is too large for a result`);
  const result: unknown = await file.json().catch(() => undefined);
  if (!Value.Check(Result, result)) throw new Error(`${path} is no result of bun bench`);
  return result;
}

/** Compares two result files. */
export function compareResults(paths: [string, string], [a, b]: [Result, Result]): Section {
  const names = paths.map((path) => basename(path, ".json"));
  const [first = "", second = ""] = names[0] === names[1] ? paths : names;
  const section = compareSides(
    { name: first, measurements: a.measurements },
    { name: second, measurements: b.measurements },
  );
  const about = [a, b].map(
    ({ scenario, startedAt, commit, machine }, index) =>
      `${paths[index]}: ${scenario} at ${startedAt}, ${machine.cores} × ${machine.cpu}, commit ${commit.slice(0, 10)}`,
  );
  const isSame = Bun.deepEquals(a.machine, b.machine) && Bun.deepEquals(a.parameters, b.parameters);
  const warning = "Machine or parameters differ: so may the figures.";
  return { ...section, notes: [...section.notes, ...about, ...(isSame ? [] : [warning])] };
}

/** Tables every figure that both sides have, and marks those that moved beyond their noise. */
export function compareSides(a: Side, b: Side): Section {
  const [before, after] = [valuesOf(a.measurements), valuesOf(b.measurements)];
  const rows = [...before].flatMap(([key, { subject, figure, values }]) => {
    const others = after.get(key)?.values;
    if (others === undefined || [...values, ...others].every((each) => each === 0)) return [];
    return [row(subject, figure, values, others)];
  });
  const onlyOne = new Set(before.keys()).symmetricDifference(new Set(after.keys())).size;
  return {
    title: `${b.name} compared with ${a.name}`,
    columns: ["", a.name, b.name, "ratio", "noise", ""],
    rows,
    notes: [
      `Noise: the spread of the rounds of either side, ${percent(NOISE_OF_ONE, 0)} for a single one, at least ${percent(NOISE_MIN, 0)}.`,
      ...(onlyOne > 0 ? [`${onlyOne} figures are of one side only.`] : []),
    ],
  };
}

function row(subject: string, figure: Figure, before: number[], after: number[]): string[] {
  const { name, show, higherIsBetter } = figure;
  const ratio = median(after) / median(before);
  const noises = [before, after].map((each) => (each.length < 2 ? NOISE_OF_ONE : spread(each)));
  const noise = Math.max(NOISE_MIN, ...noises.filter(Number.isFinite));
  const moved = Number.isFinite(ratio) && Math.abs(Math.log(ratio)) > Math.log1p(noise);
  return [
    `${subject}: ${name}`,
    show(median(before)),
    show(median(after)),
    Number.isFinite(ratio) ? times(ratio) : "–",
    percent(noise),
    moved ? (ratio > 1 === higherIsBetter ? "better" : "worse") : "",
  ];
}

type Figure = { name: string; show: Show; higherIsBetter: boolean };
type Values = { subject: string; figure: Figure; values: number[] };

/** Groups the figures of all rounds. */
function valuesOf(measurements: Measurement[]): Map<string, Values> {
  const grouped = new Map<string, Values>();
  for (const { phase, subject, result } of measurements)
    for (const { of, value, ...figure } of readingsOf(result)) {
      const named = [...new Set([phase, subject, of])].join(", ");
      const key = `${named}: ${figure.name}`;
      const group = grouped.get(key) ?? { subject: named, figure, values: [] };
      group.values.push(value);
      grouped.set(key, group);
    }
  return grouped;
}

type Reading = Figure & { of: string; value: number };

function readingsOf(result: Measurement["result"]): Reading[] {
  const readings =
    "figures" in result
      ? Object.entries(result.figures).map(([name, value]) =>
          lower(result.name, name, value, (each) => each.toPrecision(4)),
        )
      : "windows" in result
        ? ofPresence(result)
        : "acknowledged" in result
          ? ofStage(result)
          : ofTransfer(result);
  return readings.filter(({ value }) => Number.isFinite(value));
}

function ofStage(result: StageResult): Reading[] {
  const { name: of, acknowledged, latency, usage } = result;
  const perRequest = (seconds = Number.NaN) => (seconds / acknowledged) * 1e6;
  return [
    higher(of, "rate", rateOf(result), perSecond),
    lower(of, "CPU", perRequest(usage.serverCpuSeconds), microseconds),
    lower(of, "PostgreSQL CPU", perRequest(usage.postgresCpuSeconds), microseconds),
    lower(of, "p50", latency.p50Ms, ms),
    lower(of, "p99", latency.p99Ms, ms),
    lower(of, "peak RSS", usage.rssPeakBytes, mib),
    lower(of, "PUTs per million", putsPerMillion(result) ?? Number.NaN, count),
  ];
}

function ofTransfer({ bytes, seconds, usage }: TransferResult): Reading[] {
  return [
    higher("", "throughput", bytes / seconds, megabytes),
    lower("", "CPU per 100 MB", (usage.serverCpuSeconds * 1e11) / bytes, ms),
    lower("", "RSS growth", usage.rssPeakBytes - usage.rssStartBytes, mib),
  ];
}

function ofPresence({ windows, marks }: PresenceResult): Reading[] {
  return [
    ...windows.flatMap(({ name, deliveries, seconds, latency, usage }) => [
      higher(name, "deliveries", deliveries / seconds, perSecond),
      lower(name, "CPU per delivery", (usage.serverCpuSeconds / deliveries) * 1e6, microseconds),
      lower(name, "p99", latency.p99Ms, ms),
    ]),
    ...marks.map(({ name, rssBytes }) => lower(name, "RSS", rssBytes, mib)),
  ];
}

function higher(of: string, name: string, value: number, show: Show): Reading {
  return { of, name, value, show, higherIsBetter: true };
}

function lower(of: string, name: string, value: number, show: Show): Reading {
  return { of, name, value, show, higherIsBetter: false };
}
