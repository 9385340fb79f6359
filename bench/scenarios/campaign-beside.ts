import type { StageResult } from "../load/plan.ts";
import { microseconds, ms, perSecond, times } from "../report/units.ts";
import { figuresOf } from "../stats.ts";
import { RECORDED_CURVE, type StoreKind } from "../stores.ts";
import type { CampaignParameters } from "./campaign-parameters.ts";
import { call, DELETED, draft, progressOf, startSenders } from "./campaign-senders.ts";
import { batchWork, type Context, measureStage } from "./measure.ts";

const P99_TIMES_MAX = 1.1;

/** Measures batches at a fixed rate, alone and beside a campaign at the default `PUSH_RATE`. */
export async function measureBeside(context: Context<CampaignParameters>): Promise<void> {
  for (const kind of ["s3", "files"] as const) await measureOn(context, kind);
}

async function measureOn(context: Context<CampaignParameters>, kind: StoreKind): Promise<void> {
  const { harness, findings, parameters } = context;
  const { rate, batchBytes, connections, warmupSeconds, seconds } = parameters.beside;
  await using store = await harness.stores.open(kind, RECORDED_CURVE);
  await using senders = await startSenders(harness, store, parameters.latencyMs);
  const { server } = senders;
  const measure = (name: string) =>
    measureStage(context, {
      phase: "beside",
      name: `${name}, ${store.label}`,
      subject: server,
      store,
      work: batchWork(server, batchBytes),
      connections,
      stage: { name: "steady", rate, warmupSeconds, seconds },
    });
  // Warms up the server and uses up the burst of eager PUTs.
  await measure("warm-up");
  const before = await measure("alone before");
  const uuid = await draft(server.url, parameters.devices);
  await call(server.url, `/notifications/${uuid}/:launch`, {});
  const startedMs = performance.now();
  const beside = await measure("beside a campaign");
  const { sent, targeted } = await progressOf(server.url, uuid);
  const sendsPerSecond = (sent / (performance.now() - startedMs)) * 1000;
  if (sent === parameters.devices)
    findings.failures.push("the campaign ended before the measurement");
  await call(server.url, `/notifications/${uuid}/status`, { status: DELETED }, "PUT");
  // Sends in progress end and are recorded within seconds.
  if (targeted > sent) await Bun.sleep(3000);
  const after = await measure("alone after");
  findings.section(
    `${rate} batches/s on ${store.label}, alone and beside a campaign`,
    ["", "p50", "p90", "p99", "p99.9", "CPU/batch", "sends"],
    [
      row("alone before", before, "–"),
      row("beside a campaign", beside, perSecond(sendsPerSecond)),
      row("alone after", after, "–"),
    ],
  );
  const alone = Math.max(before.latency.p99Ms, after.latency.p99Ms);
  findings.atMost(
    `ingest p99 beside a campaign to alone, ${store.label}`,
    beside.latency.p99Ms / alone,
    P99_TIMES_MAX,
    times,
  );
}

function row(name: string, result: StageResult, sends: string): string[] {
  const { p50Ms, p90Ms, p99Ms, p999Ms } = result.latency;
  const latencies = [p50Ms, p90Ms, p99Ms, p999Ms].map(ms);
  return [name, ...latencies, microseconds(figuresOf([result]).cpuMicroseconds), sends];
}
