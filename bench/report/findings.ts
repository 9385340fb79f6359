import type { PresenceResult, StageResult, TransferResult } from "../load/plan.ts";

export type Section = { title: string; columns: string[]; rows: string[][]; notes: string[] };

export type Target = { what: string; measured: string; limit: string; met: boolean };

export type Bars = { kind: "bars"; title: string; bars: { label: string; value: number }[] };
export type Lines = {
  kind: "lines";
  title: string;
  xLabel: string;
  series: { label: string; points: { x: number; y: number }[] }[];
};
export type Chart = Bars | Lines;

/** A result of the load process, with what was measured. */
export type Measurement = {
  phase: string;
  subject: string;
  store: string;
  round: number;
  result: StageResult | TransferResult | PresenceResult;
};

/** Findings of a run, in order. */
export class Findings {
  readonly sections: Section[] = [];
  readonly targets: Target[] = [];
  readonly charts: Chart[] = [];
  readonly measurements: Measurement[] = [];
  /** Failures that make the figures worthless: unexpected answers, counts that disagree. */
  readonly failures: string[] = [];

  section(title: string, columns: string[], rows: string[][], ...notes: string[]): void {
    this.sections.push({ title, columns, rows, notes });
  }

  atMost(what: string, value: number, limit: number, show: (value: number) => string): void {
    this.#target(what, value, value <= limit, `≤ ${show(limit)}`, show);
  }

  atLeast(what: string, value: number, limit: number, show: (value: number) => string): void {
    this.#target(what, value, value >= limit, `≥ ${show(limit)}`, show);
  }

  #target(
    what: string,
    value: number,
    met: boolean,
    limit: string,
    show: (value: number) => string,
  ): void {
    const measured = Number.isFinite(value) ? show(value) : "not measured";
    this.targets.push({ what, measured, limit, met });
  }
}
