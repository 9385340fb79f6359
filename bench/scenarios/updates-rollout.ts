import { isIn } from "../../src/updates/rollout.ts";
import { count, perSecond } from "../report/units.ts";
import type { UpdatesContext } from "./updates-parameters.ts";

const POINTS_MAX = 0.2;
const BUILD_ID = 7;
const CHUNK = 20_000;

/** Measures whether a rollout includes its share of devices, and keeps those it had as it grows. */
export async function measureRollout({
  harness,
  findings,
  parameters,
}: UpdatesContext): Promise<void> {
  const { ids, percents } = parameters.rollout;
  const inside = percents.map(() => 0);
  let dropped = 0;
  const startedMs = performance.now();
  harness.progress.start(`rollout: ${count(ids)} ids`);
  for (let nth = 0; nth < ids; nth++) {
    const device = `device-${nth}`;
    let wasIn = false;
    for (const [index, percent] of percents.entries()) {
      const isNowIn = isIn(BUILD_ID, device, percent);
      if (isNowIn) inside[index] = (inside[index] ?? 0) + 1;
      else if (wasIn) dropped++;
      wasIn = isNowIn;
    }
    if (nth % CHUNK > 0) continue;
    harness.progress.update(nth / ids, `${count(nth)} ids`);
    await Bun.sleep(0);
  }
  const took = (performance.now() - startedMs) / 1000;
  harness.progress.stop();
  const shares = inside.map((n) => (n / ids) * 100);
  const off = shares.map((share, index) => Math.abs(share - (percents[index] ?? Number.NaN)));
  findings.section(
    `Rollout: ${count(ids)} ids`,
    ["percent", "inside", "off by"],
    percents.map((percent, index) => [
      `${percent} %`,
      `${(shares[index] ?? Number.NaN).toFixed(3)} %`,
      points(off[index] ?? Number.NaN),
    ]),
    `${perSecond((ids * percents.length) / took)} decisions on one core.`,
  );
  findings.atMost("ids that a growing rollout drops", dropped, 0, count);
  findings.atMost("share off by", Math.max(...off), POINTS_MAX, points);
}

function points(value: number): string {
  return `${value.toFixed(3)} points`;
}
