import { describe, expect, test } from "bun:test";

import { compareResults, compareSides, type Result } from "../../bench/report/comparison.ts";
import type { Measurement } from "../../bench/report/findings.ts";

const latency = { count: 1, meanMs: 1, p50Ms: 10, p90Ms: 12, p99Ms: 20, p999Ms: 30, maxMs: 40 };

function stage(rate: number, cpuMicroseconds = 50, subject = "Floodgate, files"): Measurement {
  return {
    phase: "saturation",
    subject,
    store: "files",
    round: 1,
    result: {
      name: "saturation",
      connections: 64,
      bodyBytes: 16_384,
      seconds: 2,
      acknowledged: rate * 2,
      refused: 0,
      latency,
      refusal: latency,
      lag: latency,
      usage: {
        serverCpuSeconds: (rate * 2 * cpuMicroseconds) / 1e6,
        generatorCpuSeconds: 1,
        rssStartBytes: 1e6,
        rssPeakBytes: 2e6,
      },
      perSecond: [],
      sent: rate * 2,
      statuses: { "200": rate * 2 },
      refusedWithoutRetryAfter: 0,
      broken: 0,
      reconnects: 0,
      unsent: 0,
      unanswered: 0,
    },
  };
}

function rowOf(before: Measurement[], after: Measurement[], figure: string) {
  const { rows } = compareSides(
    { name: "a", measurements: before },
    { name: "b", measurements: after },
  );
  return rows.find(([what]) => what?.endsWith(`: ${figure}`));
}

describe("a figure of three rounds", () => {
  const before = [1000, 1020, 980].map((rate) => stage(rate));

  test("is better or worse if it moved further than the rounds are apart", () => {
    const faster = [1200, 1210, 1190].map((rate) => stage(rate));
    expect(rowOf(before, faster, "rate")).toEqual([
      "saturation, Floodgate, files: rate",
      "1,000/s",
      "1,200/s",
      "1.20×",
      "4.0 %",
      "better",
    ]);
    expect(rowOf(faster, before, "rate")?.at(-1)).toBe("worse");
  });

  test("is unmarked within the spread of either side", () => {
    const scattered = [1200, 1000, 1250].map((rate) => stage(rate));
    expect(rowOf(before, scattered, "rate")?.slice(3)).toEqual(["1.20×", "20.8 %", ""]);
  });

  test("is better the lower it is, if it is a cost", () => {
    const cheaper = [1000, 1000, 1000].map((rate) => stage(rate, 40));
    expect(rowOf(before, cheaper, "CPU")?.slice(1)).toEqual([
      "50.0 µs",
      "40.0 µs",
      "0.800×",
      "3.0 %",
      "better",
    ]);
  });
});

test("a figure of one round has to move further", () => {
  expect(rowOf([stage(1000)], [stage(1100)], "rate")?.slice(3)).toEqual(["1.10×", "15.0 %", ""]);
  expect(rowOf([stage(1000)], [stage(1200)], "rate")?.at(-1)).toBe("better");
});

test("figures of one side only are counted and not compared", () => {
  const { rows, notes } = compareSides(
    { name: "a", measurements: [stage(1000)] },
    { name: "b", measurements: [stage(1000), stage(5000, 20, "floor")] },
  );
  expect(rows.some(([what]) => what?.includes("floor"))).toBe(false);
  expect(notes).toContain("5 figures are of one side only.");
});

test("figures of other kinds of measurements are compared as well", () => {
  const usage = {
    serverCpuSeconds: 1,
    generatorCpuSeconds: 1,
    rssStartBytes: 0,
    rssPeakBytes: 1e7,
  };
  const others = (factor: number): Measurement[] => [
    {
      phase: "large",
      subject: "Floodgate, files",
      store: "files",
      round: 1,
      result: { connections: 1, bytes: 1e9 * factor, seconds: 2, statuses: {}, broken: 0, usage },
    },
    {
      phase: "no-clients",
      subject: "Floodgate, files",
      store: "files",
      round: 1,
      result: { name: "idle", figures: { "CPU ms/s": 8 * factor } },
    },
  ];
  expect(rowOf(others(1), others(2), "throughput")?.slice(1)).toEqual([
    "500 MB/s",
    "1000 MB/s",
    "2.00×",
    "15.0 %",
    "better",
  ]);
  expect(rowOf(others(1), others(2), "CPU ms/s")?.at(-1)).toBe("worse");
});

describe("two results", () => {
  const result: Result = {
    scenario: "ingest",
    startedAt: "2026-01-01T00:00:00.000Z",
    commit: "0123456789abcdef",
    machine: { cpu: "Xeon", cores: 2 },
    parameters: { connections: 64 },
    measurements: [stage(1000)],
  };

  test("of the same conditions are compared without a warning", () => {
    const { notes, columns } = compareResults(["out/a.json", "out/b.json"], [result, result]);
    expect(columns).toEqual(["", "a", "b", "ratio", "noise", ""]);
    expect(notes.join("\n")).not.toContain("differ");
  });

  test("of other parameters or machines are compared with a warning", () => {
    for (const change of [{ parameters: {} }, { machine: { cpu: "Xeon", cores: 4 } }]) {
      const { notes } = compareResults(["a.json", "b.json"], [result, { ...result, ...change }]);
      expect(notes.at(-1)).toContain("differ");
    }
  });
});
