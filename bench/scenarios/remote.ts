import type { Harness } from "../harness.ts";
import type { StageResult, StagesPlan } from "../load/plan.ts";
import type { Options } from "../options.ts";
import type { Findings } from "../report/findings.ts";
import { count, megabytes, ms, percent, perSecond, seconds } from "../report/units.ts";
import { rateOf } from "../stats.ts";

const DEFAULTS = { connections: 64, bytes: 16_384, seconds: 10, requests: 1_000_000 };
const FIRST_SECONDS = 10;

export type RemoteParameters = typeof DEFAULTS & { rate: number | undefined };

export const remotePhases = ["load"];

/** Sends batches to a server that runs elsewhere, for a bounded time and up to a bounded number. */
export async function runRemote(
  harness: Harness,
  findings: Findings,
  options: Options,
): Promise<RemoteParameters> {
  const { url = "", token, projectKey, rate } = options;
  const parameters = {
    connections: options.connections ?? DEFAULTS.connections,
    bytes: options.bytes ?? DEFAULTS.bytes,
    seconds: options.seconds ?? DEFAULTS.seconds,
    requests: options.requests ?? DEFAULTS.requests,
    rate,
  };
  const session = token === undefined ? { projectKey: projectKey ?? "" } : { token };
  const plan: StagesPlan = {
    kind: "stages",
    url,
    connections: parameters.connections,
    work: { kind: "batch", bytes: parameters.bytes, ...session },
    stages: [
      {
        name: "load",
        warmupSeconds: 0,
        seconds: parameters.seconds,
        requestsMax: parameters.requests,
        ...(rate !== undefined && { rate }),
      },
    ],
  };
  await sendOne(harness, plan);
  const { host } = new URL(url);
  const [result] = await harness.load.stages(`load on ${host}`, plan);
  if (result === undefined) throw new Error("load: no result");
  report(findings, host, parameters, result);
  return parameters;
}

function report(
  findings: Findings,
  host: string,
  { rate, connections, bytes }: RemoteParameters,
  result: StageResult,
): void {
  findings.measurements.push({ phase: "load", subject: host, store: "", round: 1, result });
  const { latency, statuses, sent, broken, unanswered, unsent } = result;
  const arriving = rate === undefined ? "always busy" : `${perSecond(rate)} arriving`;
  findings.section(
    `${host}: ${count(connections)} connections, ${count(bytes)} bytes a batch, ${arriving}`,
    ["", "time", "rate", "bytes", "p50", "p90", "p99", "p99.9", "max"],
    [
      [
        "acknowledged",
        seconds(result.seconds),
        perSecond(rateOf(result)),
        megabytes(rateOf(result) * bytes),
        ...[latency.p50Ms, latency.p90Ms, latency.p99Ms, latency.p999Ms, latency.maxMs].map(ms),
      ],
    ],
    "Latency counts from the intended start of each batch that was answered 200.",
    `The generator's own timer was late by ${ms(result.lag.p99Ms)} at p99.`,
  );
  const outcomes: [string, number][] = [
    ...Object.entries(statuses),
    ["connection lost", broken],
    ["never answered", unanswered],
    ["not sent, no connection was free", unsent],
  ];
  findings.section(
    "Answers by status",
    ["", "batches", "share"],
    outcomes
      .filter(([, times]) => times > 0)
      .map(([name, times]) => [name, count(times), percent(times / (sent + unsent), 2)]),
  );
  const points = result.perSecond.map((y, x) => ({ x: x + 1, y }));
  findings.charts.push({
    kind: "lines",
    title: "Acknowledged batches in each second",
    xLabel: "second",
    series: [{ series: "server", label: host, points }],
  });
}

/** Sends one batch, so that a wrong token or address ends the run before its load. */
async function sendOne(harness: Harness, plan: StagesPlan): Promise<void> {
  const stage = { name: "first", warmupSeconds: 0, seconds: FIRST_SECONDS, requestsMax: 1 };
  const only = { ...plan, connections: 1, stages: [stage] };
  const [first] = await harness.load.stages("first batch", only);
  const [status] = Object.keys(first?.statuses ?? {});
  if (status === "200") return;
  if (status !== undefined) throw new Error(`the first batch was answered ${status}`);
  throw new Error(
    (first?.broken ?? 0) > 0
      ? "the connection ended before the first batch was answered"
      : `the first batch was not answered in ${FIRST_SECONDS} s`,
  );
}
