import { type Frames, walkFrames } from "../../src/ingest/frames.ts";
import { walkWebFrames } from "../../src/ingest/web-frames.ts";
import { buildBatch } from "../load/batch.ts";
import type { WebType } from "../load/plan.ts";
import { buildWebBatch } from "../load/web-batch.ts";
import { count, gigabytes, kib } from "../report/units.ts";
import { median } from "../stats.ts";
import type { IngestParameters } from "./ingest-parameters.ts";
import { alternating, type Context } from "./measure.ts";

const BYTES_PER_SECOND_MIN = 1e9;

type Walked = {
  name: string;
  web: boolean;
  /** Batches of one body. */
  batches: Uint8Array[];
  walk: (bytes: Uint8Array) => Frames;
};

/** Measures how fast this process checks the framing of batches, without a server. */
export function measureWalks({ findings, parameters }: Context<IngestParameters>): void {
  const { batchBytes, web } = parameters;
  const measured = [
    mobile(batchBytes),
    ofWeb("player", batchBytes),
    ofWeb("devtools", batchBytes),
    mobile(web.pageBytes),
    ofWeb("visual", web.pageBytes),
  ].map((walked) => ({ ...walked, rates: new Array<number>() }));
  for (const [round, { rates, ...walked }] of alternating(web.walk.rounds, measured)) {
    const rate = rateOfWalk(walked, web.walk.ms);
    rates.push(rate);
    findings.measurements.push({
      phase: "web",
      subject: `frame walk, ${walked.name}`,
      store: "none",
      round,
      result: { name: "walk", figures: { "ns per KiB": (1024 * 1e9) / rate } },
    });
  }
  findings.section(
    `Frame walk in one process, median of ${web.walk.rounds}`,
    ["", "messages", "bytes a message", "rate"],
    measured.map(({ name, batches, walk, rates }) => {
      const messages = batches.reduce((sum, batch) => sum + walk(batch).messages, 0);
      const bytes = batches.reduce((sum, batch) => sum + batch.length, 0);
      return [name, count(messages), count(bytes / messages), gigabytes(median(rates))];
    }),
  );
  for (const { name, rates } of measured.filter((each) => each.web))
    findings.atLeast(`frame walk, ${name}`, median(rates), BYTES_PER_SECOND_MIN, gigabytes);
}

function mobile(bytes: number): Walked {
  const { bytes: batch } = buildBatch(bytes, Date.now());
  return { name: `mobile, ${kib(bytes)}`, web: false, batches: [batch], walk: walkFrames };
}

function ofWeb(type: WebType, size: number): Walked {
  const { bytes, split = bytes.length } = buildWebBatch(type, size);
  const batches = [bytes.subarray(0, split), bytes.subarray(split)].filter(
    ({ length }) => length > 0,
  );
  return { name: `${type}, ${kib(size)}`, web: true, batches, walk: walkWebFrames };
}

/** Returns how many bytes are walked per second of this thread's CPU. */
function rateOfWalk({ batches, walk }: Walked, milliseconds: number): number {
  const before = process.threadCpuUsage();
  const endsAt = performance.now() + milliseconds;
  let bytes = 0;
  while (performance.now() < endsAt)
    for (const batch of batches) {
      walk(batch);
      bytes += batch.length;
    }
  const { user, system } = process.threadCpuUsage(before);
  return bytes / ((user + system) / 1e6);
}
