import { Meter } from "../load/meter.ts";
import type { Usage } from "../load/plan.ts";
import { barsOf } from "../report/findings.ts";
import { count, mib, msPerSecond, or } from "../report/units.ts";
import { STORE_KINDS, type StoreKind } from "../stores.ts";
import type { IngestParameters } from "./ingest-parameters.ts";
import { type Context, watched } from "./measure.ts";
import { workers } from "./saturate.ts";

const CPU_MS_MAX = 8;

type Measured = { series: StoreKind; label: string; usage: Usage; cpuMs: number };

/** Measures what `floodgate start` uses while nobody calls it: all its processes together. */
export async function measureNoClients(context: Context<IngestParameters>): Promise<void> {
  const { findings, parameters } = context;
  const { seconds } = parameters.noClients;
  const measured: Measured[] = [];
  for (const kind of STORE_KINDS) measured.push(await measureOn(context, kind));
  findings.section(
    `No clients: all processes of \`start\` with one that serves, over ${seconds} s`,
    ["", "CPU", "PostgreSQL", "RSS", "PUTs"],
    measured.map(({ label, cpuMs, usage }) => [
      label,
      msPerSecond(cpuMs),
      or(((usage.postgresCpuSeconds ?? Number.NaN) * 1000) / seconds, msPerSecond),
      mib(usage.rssPeakBytes),
      or(usage.puts, count),
    ]),
    "CPU is that of the supervisor, of `serve` and of `work`; PostgreSQL's includes its own upkeep.",
  );
  const limits = new Map(
    measured.map((each) => {
      const what = `CPU without clients, ${each.label}`;
      return [each, findings.atMost(what, each.cpuMs, CPU_MS_MAX, msPerSecond)];
    }),
  );
  findings.charts.push(
    barsOf("CPU without clients", msPerSecond, measured, ({ cpuMs }) => cpuMs, limits),
  );
}

async function measureOn(
  { harness, findings, parameters }: Context<IngestParameters>,
  kind: StoreKind,
): Promise<Measured> {
  const { settleSeconds, seconds } = parameters.noClients;
  const label = `Floodgate, ${harness.stores.label(kind)}`;
  await using store = await harness.stores.open(kind);
  await using subject = await workers(1)(harness, store);
  harness.progress.start(`no-clients: ${label}`);
  await Bun.sleep(settleSeconds * 1000);
  using meter = new Meter(watched(subject), store.simulator?.url);
  meter.restartPeak();
  const opened = await meter.open();
  await Bun.sleep(seconds * 1000);
  const usage = await meter.close(opened);
  harness.progress.stop();
  const cpuMs = (usage.serverCpuSeconds * 1000) / seconds;
  findings.measurements.push({
    phase: "no-clients",
    subject: label,
    store: store.label,
    round: 1,
    result: { name: "idle", figures: { "CPU ms/s": cpuMs, "RSS bytes": usage.rssPeakBytes } },
  });
  return { series: kind, label, usage, cpuMs };
}
