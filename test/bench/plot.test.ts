import { describe, expect, test } from "bun:test";

import { barsOf, type Chart, Findings, limitTimes } from "../../bench/report/findings.ts";
import { renderPlot } from "../../bench/report/plot.ts";
import { COLOURS, SERIES, type Series } from "../../bench/report/series.ts";
import { perSecond } from "../../bench/report/units.ts";

const PANEL = 560;
const HOST = "a-very-long-host-name-of-an-object-store.in-some-region.example-provider.com:9000";
const MEASURED = [
  { series: "floor" as const, label: "floor (read the body, answer)", rate: 50_000 },
  { series: "files" as const, label: "Floodgate, files", rate: 14_000 },
  { series: "s3" as const, label: `Floodgate, S3 at ${HOST}`, rate: 8000 },
];

const bars = barsOf("Acknowledged batches at saturation", perSecond, MEASURED, ({ rate }) => rate);
const lines: Chart = {
  kind: "lines",
  title: "A title that is longer than a panel, and has to be continued on another line of it",
  xLabel: "connections",
  logarithmic: true,
  series: [
    { series: "s3", label: `Floodgate, S3 at ${HOST}`, points: [64, 512, 8192].map(point) },
    { series: "files", label: "Floodgate, files", points: [64, 512, 8192].map(point) },
  ],
  limit: { value: 100, label: "≤ 100 ms" },
};

function point(x: number) {
  return { x, y: Math.sqrt(x) * 2 };
}

type Text = { x: number; y: number; content: string; attributes: string };

function textsOf(svg: string): Text[] {
  return [...svg.matchAll(/<text x="([\d.]+)" y="([\d.]+)" ([^>]*)>([^<]*)</g)].map(
    ([, x, y, attributes = "", content = ""]) => ({
      x: Number(x),
      y: Number(y),
      content,
      attributes,
    }),
  );
}

/** Returns where a text ends in its panel, if its characters are as wide as those of wide fonts. */
function endOf({ x, content, attributes }: Text): number {
  const [, fixed] = /textLength="([\d.]+)"/.exec(attributes) ?? [];
  const size = Number(/font-size="(\d+)"/.exec(attributes)?.[1] ?? 12);
  const width = fixed === undefined ? content.length * size * 0.6 : Number(fixed);
  if (attributes.includes('text-anchor="end"')) return x;
  return attributes.includes('text-anchor="middle"') ? x + width / 2 : x + width;
}

describe("no label is cut off", () => {
  test.each<[string, Chart[]]>([
    ["in one panel", [bars]],
    ["in several", [bars, lines, bars]],
  ])("%s", (_what, charts) => {
    const svg = renderPlot("Floodgate", "a machine ".repeat(30), charts);
    const [, width = "", height = ""] = /viewBox="0 0 (\d+) ([\d.]+)"/.exec(svg) ?? [];
    const texts = textsOf(svg);
    expect(texts.length).toBeGreaterThan(6);
    const heading = texts.findIndex(({ content }) => content.startsWith("Acknowledged"));
    for (const [index, text] of texts.entries()) {
      expect(endOf(text)).toBeLessThanOrEqual(index < heading ? Number(width) : PANEL);
      expect(text.y).toBeLessThan(Number(height));
    }
  });
});

test("panels of a row do not reach into the next row", () => {
  const svg = renderPlot("Floodgate", "", [bars, lines, bars, lines]);
  const tops = [...svg.matchAll(/<g transform="translate\(\d+ ([\d.]+)\)">/g)].map(([, y]) =>
    Number(y),
  );
  const heights = svg
    .split("<g ")
    .slice(1)
    .map((panel) => Math.max(...textsOf(panel).map(({ y }) => y)));
  const [first = 0, second = 0, third = 0, fourth = 0] = tops;
  expect(first).toBe(second);
  expect(third).toBe(fourth);
  expect(third).toBeGreaterThan(first + Math.max(heights[0] ?? 0, heights[1] ?? 0));
});

function heightOf(charts: Chart[]): number {
  return Number(/viewBox="0 0 \d+ ([\d.]+)"/.exec(renderPlot("Floodgate", "", charts))?.[1]);
}

test("a row is as high as its own panels", () => {
  expect(heightOf([bars, lines, bars])).toBe(heightOf([bars, lines, bars, bars]));
});

test("a series has the same colour in each panel", () => {
  const svg = renderPlot("Floodgate", "", [bars, lines]);
  for (const name of ["files", "s3"] as Series[])
    expect(svg.split(`class="bar ${SERIES[name]}"`).length - 1).toBe(2);
  expect(svg).toContain(`class="${SERIES.s3} line"`);
});

test("a plot is dark where its reader prefers that", () => {
  const [light = "", dark = ""] = renderPlot("Floodgate", "", [bars]).split("@media");
  expect(dark.startsWith(" (prefers-color-scheme:dark)")).toBe(true);
  for (const [name, colour] of Object.entries(COLOURS)) {
    expect(light).toContain(`.${name}{fill:${colour.light}`);
    expect(dark).toContain(`.${name}{fill:${colour.dark}`);
  }
});

describe("a target", () => {
  test("is drawn where it was judged, in the figure's own unit", () => {
    const findings = new Findings(true);
    const limit = findings.atLeast("rate", 0.28, 0.33, (value) => `${value}×`);
    const [, files] = MEASURED;
    if (files === undefined) throw new Error("no series");
    const limits = new Map([[files, limitTimes(limit, 50_000, "the floor")]]);
    const chart = barsOf("Rate", perSecond, MEASURED, ({ rate }) => rate, limits);
    const svg = renderPlot("Floodgate", "", [chart]);
    expect(svg).toContain("14,000/s (target ≥ 0.33× the floor)");
    expect(svg.split('class="mark"').length - 1).toBe(1);
    const mark = Number(/x1="([\d.]+)"[^>]*class="mark"/.exec(svg)?.[1]);
    const floor = Number(/width="([\d.]+)"[^>]*class="bar grey"/.exec(svg)?.[1]);
    expect((mark - 16) / floor).toBeCloseTo(0.33, 1);
  });

  test("of lines is drawn across the panel and named in the legend", () => {
    const svg = renderPlot("Floodgate", "", [lines]);
    expect(svg).toContain(">target ≤ 100 ms<");
    expect(svg.split('class="limit"').length - 1).toBe(2);
  });

  test("is neither judged nor drawn in a quick run", () => {
    const findings = new Findings(false);
    expect(findings.atLeast("rate", 0.28, 0.33, String)).toBeUndefined();
    expect(findings.atMost("rate", 0.28, 0.33, String)).toBeUndefined();
    expect(findings.targets).toEqual([]);
  });
});
