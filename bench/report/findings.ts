import { type Static, Type } from "typebox";

import { PresenceResult, StageResult, TransferResult } from "../load/plan.ts";
import type { Series } from "./series.ts";

export type Section = { title: string; columns: string[]; rows: string[][]; notes: string[] };

export type Target = { what: string; measured: string; limit: string; met: boolean };

export type Show = (value: number) => string;

/** Target of a figure in a chart; `label` is what the table of targets says. */
export type Limit = { value: number; label: string };

export type Bar = { series: Series; label: string; value: number; limit?: Limit | undefined };
export type Bars = { kind: "bars"; title: string; show: Show; bars: Bar[] };
export type Lines = {
  kind: "lines";
  title: string;
  xLabel: string;
  /** Spaces x evenly by its logarithm, for values that double. */
  logarithmic?: boolean;
  series: { series: Series; label: string; points: { x: number; y: number }[] }[];
  limit?: Limit | undefined;
};
export type Chart = Bars | Lines;

/** Figures of one kind of measurement that only it has; lower is better. */
const OwnFigures = Type.Object({
  name: Type.String(),
  figures: Type.Record(Type.String(), Type.Number()),
});

/** A result with what was measured. */
export const Measurement = Type.Object({
  phase: Type.String(),
  subject: Type.String(),
  store: Type.String(),
  round: Type.Number(),
  result: Type.Union([StageResult, TransferResult, PresenceResult, OwnFigures]),
});
export type Measurement = Static<typeof Measurement>;

/** Findings of a run, in order. */
export class Findings {
  /** False for a quick run, whose figures mean too little to be held against targets. */
  readonly judged: boolean;
  readonly sections: Section[] = [];
  readonly targets: Target[] = [];
  readonly charts: Chart[] = [];
  readonly measurements: Measurement[] = [];
  /** Failures that make the figures worthless: unexpected answers, counts that disagree. */
  readonly failures: string[] = [];

  constructor(judged: boolean) {
    this.judged = judged;
  }

  section(title: string, columns: string[], rows: string[][], ...notes: string[]): void {
    this.sections.push({ title, columns, rows, notes });
  }

  /** Judges a figure; returns the limit for a chart, unless this run is not judged. */
  atMost(what: string, value: number, limit: number, show: Show): Limit | undefined {
    return this.#target(what, value, limit, value <= limit, `≤ ${show(limit)}`, show);
  }

  atLeast(what: string, value: number, limit: number, show: Show): Limit | undefined {
    return this.#target(what, value, limit, value >= limit, `≥ ${show(limit)}`, show);
  }

  #target(
    what: string,
    value: number,
    limit: number,
    met: boolean,
    label: string,
    show: Show,
  ): Limit | undefined {
    if (!this.judged) return undefined;
    const measured = Number.isFinite(value) ? show(value) : "not measured";
    this.targets.push({ what, measured, limit: label, met });
    return { value: limit, label };
  }
}

/** Returns a limit of a ratio as one of the figure itself. */
export function limitTimes(
  limit: Limit | undefined,
  base: number,
  name: string,
): Limit | undefined {
  return limit && { value: limit.value * base, label: `${limit.label} ${name}` };
}

/** Targets of the subjects of a chart that have one. */
export type Limits<Each> = Map<Each, Limit | undefined>;

/** Returns a chart with a bar for each of the measured subjects. */
export function barsOf<Each extends { series: Series; label: string }>(
  title: string,
  show: Show,
  measured: Each[],
  value: (each: Each) => number,
  limits?: Limits<Each>,
): Bars {
  const bars = measured.map((each) => ({
    series: each.series,
    label: each.label,
    value: value(each),
    limit: limits?.get(each),
  }));
  return { kind: "bars", title, show, bars };
}
