import type { Subject } from "../harness.ts";
import type { Stage, StageResult } from "../load/plan.ts";
import { limitTimes } from "../report/findings.ts";
import { count, microseconds, ms, percent, perSecond, times } from "../report/units.ts";
import { type Figures, figuresOf, median, rateOf } from "../stats.ts";
import { measureStage } from "./measure.ts";
import type { UpdatesContext } from "./updates-parameters.ts";

const RATE_TIMES_MIN = 0.5;
const P99_MS_MAX = 5;
const SEEN_TIMEOUT_MS = 5000;
const PATH = "/api/v1/updates/2263_05arm64";
// The newest build is in a rollout, so the server must compute whether this device is included.
const DEVICE_PATH = `${PATH}?device=0b8a4f0e-6b5f-4b43-9d0c-5a3c0c1f5f0e`;

const NAMES = ["floor", "ours", "device"] as const;
type Name = (typeof NAMES)[number];
const LABELS: Record<Name, string> = {
  floor: "floor (the same answer, ready-made)",
  ours: "Floodgate",
  device: "Floodgate, by a device of a rollout",
};

const CHECK_SERIES = { floor: "floor", ours: "files", device: "checkOfDevice" } as const;

type Results = Record<Name, StageResult[]>;

/** Measures checks for a newer build at saturation, then at a fixed rate. */
export async function measureCheck(context: UpdatesContext): Promise<void> {
  const { rounds, share } = context.parameters.check;
  const saturated: Results = { floor: [], ours: [], device: [] };
  const steady: Results = { floor: [], ours: [], device: [] };
  for (let round = 1; round <= rounds; round++)
    await measureRound(context, round, saturated, steady);
  const floor = figuresOf(saturated.floor);
  const ours = figuresOf(saturated.ours);
  const { connections } = context.parameters.check;
  const { findings } = context;
  findings.section(
    `Check: ${connections} connections always busy, ${count(context.parameters.builds)} builds, median of ${rounds}`,
    [
      "",
      "answered",
      "to floor",
      "CPU/request",
      "to floor",
      "server busy",
      "generator",
      "p50",
      "p99",
    ],
    shown(saturated).map((name) => saturatedRow(LABELS[name], saturated[name], floor)),
    "CPU is that of the server process. The generator shares the two cores with it and has its own column.",
    "A server that is not fully busy was limited by the generator: then the ratio of CPU says more than that of rates.",
  );
  findings.section(
    `Check: at ${percent(share)} of Floodgate's rate at saturation`,
    ["", "rate", "p50", "p90", "p99", "p99.9", "CPU/request", "generator late, p99"],
    shown(steady).map((name) => steadyRow(LABELS[name], steady[name])),
    "Latency counts from the intended start, including the generator's own delay.",
  );
  const limit = findings.atLeast(
    "checks per second to the floor's",
    ours.rate / floor.rate,
    RATE_TIMES_MIN,
    times,
  );
  findings.atMost("p99 of a check under load", figuresOf(steady.ours).p99Ms, P99_MS_MAX, ms);
  findings.charts.push({
    kind: "bars",
    title: "Checks answered at saturation",
    show: perSecond,
    bars: shown(saturated).map((name) => ({
      series: CHECK_SERIES[name],
      label: LABELS[name],
      value: figuresOf(saturated[name]).rate,
      limit: name === "ours" ? limitTimes(limit, floor.rate, "the floor") : undefined,
    })),
  });
}

async function measureRound(
  context: UpdatesContext,
  round: number,
  saturated: Results,
  steady: Results,
): Promise<void> {
  const { harness, parameters } = context;
  const { connections, warmupSeconds, seconds, share, extras } = parameters.check;
  await using store = await harness.stores.open("files");
  await using server = await harness.startFloodgate(store);
  await insertBuilds(context);
  const answer = await untilOffered(server);
  await using floor = await harness.startBaseline("floor-updates.ts", ["answer", answer], {});
  const measure = async (name: Name, stage: Pick<Stage, "name" | "rate">) =>
    await measureStage(context, {
      phase: "check",
      name: LABELS[name],
      round,
      subject: name === "floor" ? floor : server,
      store: name === "floor" ? undefined : store,
      work: { kind: "get", path: name === "device" ? DEVICE_PATH : PATH },
      connections,
      stage: { ...stage, warmupSeconds, seconds },
    });
  const names = extras ? NAMES : NAMES.slice(0, 2);
  // Reverses the order every second round, so that a machine that warms up favours no subject.
  for (const name of round % 2 === 1 ? names : names.toReversed())
    saturated[name].push(await measure(name, { name: "saturation" }));
  const rate = share * Math.max(...saturated.ours.slice(-1).map(rateOf));
  for (const name of ["floor", "ours"] as const)
    steady[name].push(await measure(name, { name: "steady", rate }));
}

/**
 * Inserts builds of two ABIs in turn: every tenth version is forced, the newest are in a rollout.
 */
async function insertBuilds({ harness, parameters }: UpdatesContext): Promise<void> {
  await harness.database`
    insert into builds (version, target_abi, name, notes, bytes, md5, sha256, object_id, skipped, rollout)
    select 3000 + n / 2 || case when n / 2 % 10 = 0 then '_00' else '_01' end,
      case when n % 2 = 0 then 'arm64' else 'arm' end, 'app-' || n || '.apk', 'What is new in this version', 52428800,
      md5(n::text), encode(sha256(n::text::bytea), 'hex'), gen_random_uuid(), n / 2 % 10 > 0,
      case when n >= ${parameters.builds - 2} then 20 else 100 end
    from generate_series(0, ${parameters.builds - 1}) as n
    on conflict do nothing`;
}

/** Returns the answer for clients without a device, once the builds are offered. */
async function untilOffered({ url }: Subject): Promise<string> {
  const deadline = performance.now() + SEEN_TIMEOUT_MS;
  for (;;) {
    const response = await fetch(url + PATH);
    const text = await response.text();
    if (response.status === 200) return text;
    if (performance.now() > deadline)
      throw new Error(`check: a client was answered ${response.status}`);
    await Bun.sleep(50);
  }
}

function shown(results: Results): Name[] {
  return NAMES.filter((name) => results[name].length > 0);
}

function saturatedRow(label: string, results: StageResult[], floor: Figures): string[] {
  const { rate, cpuMicroseconds, generatorMicroseconds, p50Ms, p99Ms } = figuresOf(results);
  return [
    label,
    perSecond(rate),
    times(rate / floor.rate),
    microseconds(cpuMicroseconds),
    times(cpuMicroseconds / floor.cpuMicroseconds),
    percent(median(results.map(({ usage, seconds }) => usage.serverCpuSeconds / seconds))),
    microseconds(generatorMicroseconds),
    ms(p50Ms),
    ms(p99Ms),
  ];
}

function steadyRow(label: string, results: StageResult[]): string[] {
  const { rate, p50Ms, p99Ms, p999Ms, cpuMicroseconds } = figuresOf(results);
  const p90Ms = median(results.map(({ latency }) => latency.p90Ms));
  return [
    label,
    perSecond(rate),
    ...[p50Ms, p90Ms, p99Ms, p999Ms].map(ms),
    microseconds(cpuMicroseconds),
    ms(median(results.map(({ lag }) => lag.p99Ms))),
  ];
}
