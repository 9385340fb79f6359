import type { Subject } from "../harness.ts";
import { BUILD_ABI, BUILD_NAME } from "../load/build-form.ts";
import type { TransferResult } from "../load/plan.ts";
import { barsOf, type Limits } from "../report/findings.ts";
import { count, mib, ms, percent } from "../report/units.ts";
import { growthOf, median, peakOf } from "../stats.ts";
import { STORE_KINDS, type Store, type StoreKind } from "../stores.ts";
import { measureUploads } from "./measure.ts";
import type { UpdatesContext } from "./updates-parameters.ts";

const MIB = 2 ** 20;
const GROWTH_BYTES_MAX = 64 * MIB;
const VERSION = 5000;
/** Path at which clients download the build. */
export const BUILD_PATH = `/source/${BUILD_ABI}/${VERSION}_01/${BUILD_NAME}`;

/** Measures the memory and CPU of publishing one huge build on each store. */
export async function measurePublish(context: UpdatesContext): Promise<void> {
  const { harness, findings, parameters } = context;
  const { rounds } = parameters.publish;
  const measured = STORE_KINDS.map((kind) => ({
    series: kind,
    kind,
    label: harness.stores.label(kind),
    results: new Array<TransferResult>(),
  }));
  for (let round = 1; round <= rounds; round++)
    for (const { kind, label, results } of measured)
      results.push(await measureOn(context, kind, label, round));
  findings.section(
    `Publish: one build of ${count(parameters.build.bytes / 1_000_000)} MB, median of ${rounds}`,
    ["", "throughput", "CPU/MiB", "server busy", "RSS growth", "peak RSS"],
    measured.map(({ label, results }) => row(label, results)),
    "RSS growth is the highest of all rounds: the peak during the upload minus the memory before it.",
    `MD5 and SHA-256 alone take ${ms(hashingMsPerMib())} of CPU per MiB.`,
  );
  const limits: Limits<(typeof measured)[number]> = new Map();
  for (const each of measured) {
    const what = `RSS growth, one huge build, ${each.label}`;
    limits.set(each, findings.atMost(what, growthOf(each.results), GROWTH_BYTES_MAX, mib));
  }
  findings.charts.push(
    barsOf(
      "RSS growth for one huge build",
      mib,
      measured,
      ({ results }) => growthOf(results),
      limits,
    ),
  );
}

async function measureOn(
  context: UpdatesContext,
  kind: StoreKind,
  name: string,
  round: number,
): Promise<TransferResult> {
  await using store = await context.harness.stores.open(kind);
  await using subject = await context.harness.startFloodgate(store);
  return await publishBuild(context, { phase: "publish", name, round, subject, store });
}

/** Publishes the build as the version that `BUILD_PATH` names, after a few small ones. */
export async function publishBuild(
  context: UpdatesContext,
  about: { phase: string; name: string; round?: number; subject: Subject; store: Store },
): Promise<TransferResult> {
  const { parameters, signature } = context;
  const { uploads: connections, bytes } = parameters.warmup;
  const warmup = { signature, version: VERSION + 1 };
  await measureUploads(context, { ...about, connections, bytes, build: warmup }, false);
  return await measureUploads(context, {
    ...about,
    connections: 1,
    bytes: parameters.build.bytes,
    build: { signature, version: VERSION },
  });
}

function row(label: string, results: TransferResult[]): string[] {
  const over = (read: (result: TransferResult) => number) => median(results.map(read));
  return [
    label,
    `${mib(over(({ bytes, seconds }) => bytes / seconds))}/s`,
    ms(over(({ bytes, usage }) => (usage.serverCpuSeconds * 1000) / (bytes / MIB))),
    percent(over(({ usage, seconds }) => usage.serverCpuSeconds / seconds)),
    mib(growthOf(results)),
    mib(peakOf(results)),
  ];
}

/** Returns the CPU time of hashing alone, which every publish needs. */
function hashingMsPerMib(): number {
  const rounds = 128;
  const piece = crypto.getRandomValues(new Uint8Array(65_536));
  const hashers = [new Bun.CryptoHasher("md5"), new Bun.CryptoHasher("sha256")];
  const before = process.cpuUsage();
  for (let at = 0; at < rounds * MIB; at += piece.length)
    for (const hasher of hashers) hasher.update(piece);
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000 / rounds;
}
