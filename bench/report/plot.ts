import type { Bars, Chart, Lines } from "./findings.ts";

/** Renders charts as one SVG without scripts, fonts or links, so that it opens offline. */

const WIDTH = 560;
const HEIGHT = 300;
const COLUMNS = 2;
const MARGIN = { left: 64, right: 20, top: 44, bottom: 44 };
const HEADER = 56;
const COLOURS = ["#1565c0", "#c62828", "#2e7d32", "#ef6c00", "#6a1b9a", "#00838f", "#5d4037"];
const TICKS = 5;

export function renderPlot(title: string, subtitle: string, charts: Chart[]): string {
  const rows = Math.ceil(charts.length / COLUMNS);
  const width = WIDTH * COLUMNS;
  const height = HEADER + HEIGHT * rows;
  const panels = charts.map((chart, index) => {
    const x = (index % COLUMNS) * WIDTH;
    const y = HEADER + Math.floor(index / COLUMNS) * HEIGHT;
    const body = chart.kind === "bars" ? renderBars(chart) : renderLines(chart);
    return `<g transform="translate(${x} ${y})">${body}</g>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, sans-serif" font-size="12">`,
    `<rect width="100%" height="100%" fill="#fff"/>`,
    text(16, 26, title, 'font-size="18" font-weight="600"'),
    text(16, 46, subtitle, 'fill="#555"'),
    ...panels,
    "</svg>\n",
  ].join("\n");
}

function renderBars({ title, bars }: Bars): string {
  const most = Math.max(...bars.map(({ value }) => value), Number.MIN_VALUE);
  const left = 236;
  const room = WIDTH - left - 90;
  const step = (HEIGHT - MARGIN.top - 20) / Math.max(bars.length, 1);
  const thickness = Math.min(step * 0.7, 26);
  const parts = bars.map(({ label, value }, index) => {
    const middle = MARGIN.top + step * (index + 0.5);
    const length = Math.max((value / most) * room, 1);
    return [
      text(left - 8, middle + 4, label, 'text-anchor="end"'),
      `<rect x="${left}" y="${round(middle - thickness / 2)}" width="${round(length)}" height="${round(thickness)}" fill="${colour(index)}"/>`,
      text(left + length + 6, middle + 4, short(value)),
    ].join("");
  });
  return [heading(title), ...parts].join("\n");
}

function renderLines({ title, xLabel, series }: Lines): string {
  const points = series.flatMap((each) => each.points);
  const xMax = niceCeiling(Math.max(...points.map(({ x }) => x), Number.MIN_VALUE));
  const yMax = niceCeiling(Math.max(...points.map(({ y }) => y), Number.MIN_VALUE));
  const across = WIDTH - MARGIN.left - MARGIN.right;
  const down = HEIGHT - MARGIN.top - MARGIN.bottom;
  const atX = (x: number) => round(MARGIN.left + (x / xMax) * across);
  const atY = (y: number) => round(MARGIN.top + down - (y / yMax) * down);
  const grid = Array.from({ length: TICKS + 1 }, (_, index) => {
    const y = (yMax * index) / TICKS;
    const x = (xMax * index) / TICKS;
    return [
      `<line x1="${MARGIN.left}" x2="${MARGIN.left + across}" y1="${atY(y)}" y2="${atY(y)}" stroke="#ddd"/>`,
      text(MARGIN.left - 6, atY(y) + 4, short(y), 'text-anchor="end" fill="#555"'),
      text(atX(x), MARGIN.top + down + 16, short(x), 'text-anchor="middle" fill="#555"'),
    ].join("");
  });
  const curves = series.map(({ label, points: own }, index) => {
    const path = own.map(({ x, y }) => `${atX(x)},${atY(y)}`).join(" ");
    const dots = own.map(
      ({ x, y }) => `<circle cx="${atX(x)}" cy="${atY(y)}" r="3" fill="${colour(index)}"/>`,
    );
    return [
      `<polyline points="${path}" fill="none" stroke="${colour(index)}" stroke-width="2"/>`,
      ...dots,
      `<rect x="${MARGIN.left + 8}" y="${MARGIN.top + 4 + index * 16}" width="10" height="10" fill="${colour(index)}"/>`,
      text(MARGIN.left + 24, MARGIN.top + 13 + index * 16, label),
    ].join("");
  });
  const caption = text(
    MARGIN.left + across / 2,
    HEIGHT - 10,
    xLabel,
    'text-anchor="middle" fill="#555"',
  );
  return [heading(title), ...grid, ...curves, caption].join("\n");
}

function heading(title: string): string {
  return text(16, 26, title, 'font-size="14" font-weight="600"');
}

function text(x: number, y: number, content: string, attributes = ""): string {
  const safe = content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  return `<text x="${round(x)}" y="${round(y)}" ${attributes}>${safe}</text>`;
}

function colour(index: number): string {
  return COLOURS[index % COLOURS.length] ?? "#000";
}

/** Returns the next of 1, 2, 2.5, 5 times a power of ten, so that the axis has round numbers. */
function niceCeiling(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 2.5, 5, 10].find((each) => each * power >= value) ?? 10) * power;
}

function short(value: number): string {
  if (value >= 10_000) return `${(value / 1000).toFixed(value >= 100_000 ? 0 : 1)}k`;
  return value >= 100 || Number.isInteger(value)
    ? value.toFixed(0)
    : value.toFixed(value < 10 ? 2 : 1);
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
