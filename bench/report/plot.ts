import type { Bar, Bars, Chart, Lines } from "./findings.ts";
import { type Colour, COLOURS, SERIES } from "./series.ts";

/**
 * Renders charts as one SVG without scripts, fonts or links, so that it opens offline. It is dark
 * where its reader prefers that.
 */

const PANEL = 560;
const COLUMNS = 2;
const EDGE = 16;
const LINE = 18;
const GAP = 8;
const BAR_STEP = 42;
const BAR_THICKNESS = 16;
const LINES_HEIGHT = 230;
const MARGIN = { left: 64, right: 24, bottom: 44 };
const TICKS = 5;
/** Width of a character to its size: what few fonts exceed, as the reader's font is not known. */
const CHARACTER = 0.62;
const SIZE = { title: 18, heading: 14, text: 12 };

type Drawn = { body: string; height: number };

export function renderPlot(title: string, subtitle: string, charts: Chart[]): string {
  const columns = Math.min(COLUMNS, charts.length);
  const width = PANEL * columns;
  const titles = wrapped(title, width - 2 * EDGE, SIZE.title);
  const subtitles = wrapped(subtitle, width - 2 * EDGE, SIZE.text);
  const drawn = charts.map((chart) => (chart.kind === "bars" ? drawBars(chart) : drawLines(chart)));
  let top = 26 + LINE * (titles.length + subtitles.length);
  const panels: string[] = [];
  for (let at = 0; at < drawn.length; at += columns) {
    const row = drawn.slice(at, at + columns);
    panels.push(
      ...row.map(({ body }, nth) => `<g transform="translate(${nth * PANEL} ${top})">${body}</g>`),
    );
    top += Math.max(...row.map(({ height }) => height));
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${top}" width="${width}" height="${top}" font-family="system-ui, sans-serif" font-size="${SIZE.text}">`,
    `<style>${style("light")}@media (prefers-color-scheme:dark){${style("dark")}}</style>`,
    `<rect width="100%" height="100%" class="paper"/>`,
    ...titles.map((each, nth) =>
      text(EDGE, 30 + nth * LINE, each, `font-size="${SIZE.title}" font-weight="600"`),
    ),
    ...subtitles.map((each, nth) =>
      text(EDGE, 32 + (titles.length + nth) * LINE, each, 'class="quiet"'),
    ),
    ...panels,
    "</svg>\n",
  ].join("\n");
}

function style(theme: "light" | "dark"): string {
  const [paper, ink, quiet, grid] =
    theme === "light"
      ? ["#fcfcfb", "#0b0b0b", "#52514e", "#e1e0d9"]
      : ["#1a1a19", "#f2f1ee", "#c3c2b7", "#383835"];
  const colours = Object.entries(COLOURS).map(
    ([name, colour]) => `.${name}{fill:${colour[theme]};stroke:${colour[theme]}}`,
  );
  return [
    `text{fill:${ink}}.quiet{fill:${quiet}}.paper{fill:${paper}}.grid{stroke:${grid}}`,
    `.mark,.limit{stroke:${ink};stroke-width:2}.limit{stroke-dasharray:4 3}`,
    ...colours,
    ".bar{stroke:none}.line{fill:none;stroke-width:2}",
  ].join("");
}

/** Draws each bar below its label, with its figure behind it and a mark where its target is. */
function drawBars({ title, show, bars }: Bars): Drawn {
  const head = heading(title);
  const rows = bars.map((bar) => ({
    ...bar,
    figure: figureOf(bar, show),
    reach: Math.max(bar.value, bar.limit?.value ?? 0),
  }));
  // Every figure has to fit behind its bar.
  const unit = Math.min(
    ...rows.map(
      ({ figure, reach }) =>
        (PANEL - 2 * EDGE - GAP - widthOf(figure, SIZE.text)) / Math.max(reach, 1e-9),
    ),
  );
  const at = (value: number) => EDGE + Math.max(value * unit, 1);
  const parts = rows.map(({ series, label, value, limit, figure, reach }, index) => {
    const top = head.height + BAR_STEP * index;
    const [from, to] = [top + LINE - 1, top + LINE + BAR_THICKNESS + 3];
    return [
      text(EDGE, top + 12, label, fitting(label, PANEL - 2 * EDGE)),
      `<rect x="${EDGE}" y="${top + LINE}" width="${round(at(value) - EDGE)}" height="${BAR_THICKNESS}" rx="2" class="bar ${SERIES[series]}"/>`,
      limit === undefined ? "" : line(at(limit.value), from, at(limit.value), to, "mark"),
      text(at(reach) + GAP, top + LINE + 12, figure),
    ].join("");
  });
  return {
    body: [head.body, ...parts].join("\n"),
    height: head.height + BAR_STEP * bars.length + 12,
  };
}

function figureOf({ value, limit }: Bar, show: Bars["show"]): string {
  return limit === undefined ? show(value) : `${show(value)} (target ${limit.label})`;
}

function drawLines(chart: Lines): Drawn {
  const { title, xLabel, logarithmic = false, series, limit } = chart;
  const head = heading(title);
  const legend = drawLegend(chart, head.height);
  const top = legend.height + 8;
  const points = series.flatMap((each) => each.points);
  const xs = [...new Set(points.map(({ x }) => x))].toSorted((a, b) => a - b);
  const xAxis = logarithmic ? undefined : axis(xs.at(-1) ?? 1);
  const yAxis = axis(Math.max(...points.map(({ y }) => y), limit?.value ?? 0));
  const across = PANEL - MARGIN.left - MARGIN.right;
  const atX = (x: number) => round(MARGIN.left + across * shareOf(x, xs, xAxis?.most));
  const atY = (y: number) => round(top + LINES_HEIGHT * (1 - y / yAxis.most));
  const bottom = top + LINES_HEIGHT;
  const right = MARGIN.left + across;
  const curves = series.map(({ series: name, points: own }) => {
    const path = own.map(({ x, y }) => `${atX(x)},${atY(y)}`).join(" ");
    const dots = own.length > 40 ? [] : own.map(({ x, y }) => dot(atX(x), atY(y), SERIES[name]));
    return `<polyline points="${path}" class="${SERIES[name]} line"/>${dots.join("")}`;
  });
  return {
    body: [
      head.body,
      legend.body,
      ...yAxis.ticks.flatMap((y) => [
        line(MARGIN.left, atY(y), right, atY(y), "grid"),
        text(MARGIN.left - 8, atY(y) + 4, short(y), 'text-anchor="end" class="quiet"'),
      ]),
      ...(xAxis?.ticks ?? xs).map((x) =>
        text(atX(x), bottom + 18, short(x), 'text-anchor="middle" class="quiet"'),
      ),
      text((MARGIN.left + right) / 2, bottom + 36, xLabel, 'text-anchor="middle" class="quiet"'),
      limit === undefined
        ? ""
        : line(MARGIN.left, atY(limit.value), right, atY(limit.value), "limit"),
      ...curves,
    ].join("\n"),
    height: bottom + MARGIN.bottom + 8,
  };
}

/** Returns where a value lies on its axis, from 0 to 1. */
function shareOf(x: number, xs: number[], most: number | undefined): number {
  if (most !== undefined) return x / most;
  const [least, greatest] = [Math.log(xs[0] ?? 1), Math.log(xs.at(-1) ?? 1)];
  return greatest === least ? 0 : (Math.log(x) - least) / (greatest - least);
}

function drawLegend({ series, limit }: Lines, top: number): Drawn {
  const entries = [
    ...series.map((each) => ({ label: each.label, colour: SERIES[each.series] })),
    ...(limit === undefined ? [] : [{ label: `target ${limit.label}`, colour: undefined }]),
  ];
  let [x, y] = [EDGE, top];
  const parts = entries.map(({ label, colour }) => {
    const width = 20 + widthOf(label, SIZE.text) + GAP;
    if (x > EDGE && x + width > PANEL - EDGE) [x, y] = [EDGE, y + LINE];
    const swatch =
      colour === undefined
        ? line(x, y + 6, x + 14, y + 6, "limit")
        : `<rect x="${x}" y="${y}" width="12" height="12" rx="2" class="bar ${colour}"/>`;
    const part = swatch + text(x + 18, y + 10, label, fitting(label, PANEL - x - 18 - EDGE));
    x = round(x + width);
    return part;
  });
  return { body: parts.join(""), height: y + LINE };
}

function heading(title: string): Drawn {
  const lines = wrapped(title, PANEL - 2 * EDGE, SIZE.heading);
  const attributes = `font-size="${SIZE.heading}" font-weight="600"`;
  return {
    body: lines.map((each, nth) => text(EDGE, 26 + nth * LINE, each, attributes)).join(""),
    height: 40 + (lines.length - 1) * LINE,
  };
}

/** Breaks a text into lines that are no wider than the room. */
function wrapped(content: string, room: number, size: number): string[] {
  const lines: string[] = [];
  for (const word of content.split(" ")) {
    const longer = `${lines.at(-1) ?? ""} ${word}`;
    if (lines.length > 0 && widthOf(longer, size) <= room) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

/** Narrows a text that cannot be broken and would be wider than the room. */
function fitting(content: string, room: number): string {
  const isWide = widthOf(content, SIZE.text) > room;
  return isWide ? `textLength="${room}" lengthAdjust="spacingAndGlyphs"` : "";
}

function widthOf(content: string, size: number): number {
  return content.length * size * CHARACTER;
}

function text(x: number, y: number, content: string, attributes = ""): string {
  const safe = content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  return `<text x="${round(x)}" y="${round(y)}" ${attributes}>${safe}</text>`;
}

function line(x1: number, y1: number, x2: number, y2: number, name: string): string {
  return `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" class="${name}"/>`;
}

function dot(x: number, y: number, colour: Colour): string {
  return `<circle cx="${x}" cy="${y}" r="3.5" class="${colour}"/>`;
}

/** Returns round numbers from 0 to the first that is no less than every value. */
function axis(greatest: number): { most: number; ticks: number[] } {
  const least = Math.max(greatest, 1e-9) / TICKS;
  const power = 10 ** Math.floor(Math.log10(least));
  const step = ([1, 2, 2.5, 5].find((each) => each * power >= least) ?? 10) * power;
  const count = Math.ceil(Math.max(greatest, 1e-9) / step);
  return { most: count * step, ticks: Array.from({ length: count + 1 }, (_, nth) => nth * step) };
}

function short(value: number): string {
  const digits = value >= 100 || Number.isInteger(value) ? 0 : 2;
  return Number(value.toFixed(digits)).toLocaleString("en-US");
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
