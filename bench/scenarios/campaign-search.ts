import { SERVER_KEY } from "../harness.ts";
import { count, ms } from "../report/units.ts";
import type { CampaignParameters } from "./campaign-parameters.ts";
import type { Context } from "./measure.ts";

const P95_MS_MAX = 50;
const BY_ID_MS_MAX = 5;
const WARMUP = 10;

type Search = { label: string; body: (nth: number) => object; limitMs: number };

/** Measures searches for a page of devices and their total, one after another. */
export async function measureSearch(context: Context<CampaignParameters>): Promise<void> {
  const { harness, findings, parameters } = context;
  await using store = await harness.stores.open("files");
  await using server = await harness.startFloodgate(store);
  const rows: string[][] = [];
  for (const { label, body, limitMs } of searches(parameters)) {
    harness.progress.start(`search: ${label}`);
    const taken: number[] = [];
    let total = 0;
    for (let nth = 0; nth < parameters.searches + WARMUP; nth++) {
      const startedMs = performance.now();
      total = await search(server.url, body(nth));
      if (nth >= WARMUP) taken.push(performance.now() - startedMs);
    }
    harness.progress.stop();
    taken.sort((a, b) => a - b);
    const at = (share: number) => taken[Math.floor(taken.length * share)] ?? Number.NaN;
    rows.push([label, count(total), ms(at(0.5)), ms(at(0.95)), ms(at(1 - 1 / taken.length))]);
    findings.atMost(`p95 of a search ${label}`, at(0.95), limitMs, ms);
  }
  findings.section(
    `Search among ${count(parameters.devices)} devices: a page of 10 and the total`,
    ["", "found", "p50", "p95", "worst"],
    rows,
  );
}

async function search(url: string, body: object): Promise<number> {
  const response = await fetch(`${url}/devices/-/:search`, {
    method: "POST",
    headers: { "x-server-key": SERVER_KEY },
    body: JSON.stringify(body),
  });
  if (response.status !== 200) throw new Error(`a search answered ${response.status}`);
  await response.arrayBuffer();
  return Number(response.headers.get("x-total-count"));
}

function searches({ devices, matching }: CampaignParameters): Search[] {
  const groups = Math.max(1, Math.floor(devices / matching));
  const of = (label: string, conditions: (nth: number) => object): Search => ({
    label,
    body: (nth) => ({ conditions: conditions((nth * 7919) % groups) }),
    limitMs: P95_MS_MAX,
  });
  return [
    of("by str_eq", (n) => leaf("segment", "str_eq", `s${n}`)),
    of("by str_exists", (n) => leaf("tags", "str_exists", `t${n}`)),
    of("by int_eq", (n) => leaf("level", "int_eq", n)),
    of("by a range", (n) =>
      group(
        "AND",
        leaf("score", "int_gte", n * matching),
        leaf("score", "int_lt", (n + 1) * matching),
      ),
    ),
    of("by a range and a broad text", (n) =>
      group(
        "AND",
        leaf("adult", "str_eq", "yes"),
        leaf("score", "int_gte", n * matching),
        leaf("score", "int_lt", (n + 1) * matching),
      ),
    ),
    of("by either of two", (n) =>
      group("OR", leaf("segment", "str_eq", `s${n}`), leaf("level", "int_eq", (n + 1) % groups)),
    ),
    {
      label: "by one external id",
      body: (nth) => ({ external_ids: [`device-${(nth * 7919) % devices}`] }),
      limitMs: BY_ID_MS_MAX,
    },
  ];
}

function leaf(key: string, operator: string, value: string | number) {
  return { key, operator, value: String(value) };
}

function group(join_type: string, ...conditions: object[]) {
  return { join_type, conditions };
}
