import { type AnyNode, parse } from "acorn";
import * as fc from "fast-check";
import { expect, test } from "bun:test";

/** Short ones first: on a long one an exponential search would never end. */
const LENGTHS = [24, 1000, 10_000];
/** A linear search of the longest takes some microseconds, a quadratic one tens of milliseconds, each time. */
const CPU_MS_MAX = 15;
const TRIES = 3;
/** Texts of such a class would be looked for among all of Unicode. */
const NEGATED_CLASS = /\[\^(?:\\.|[^\]\\])*\]/g;
const SAMPLES = { numRuns: 3, seed: 1 };
const SAMPLE_LENGTH_MAX = 10;

/** These meet the configuration, the command line's own texts and what Linux tells. */
const NOT_FOR_CLIENTS = [
  String.raw`src/main.ts: /\s*\n\s*/g`,
  String.raw`src/platform/config/config.ts: /\/+$/`,
  String.raw`src/platform/database/embedded-postgres.ts: /\((.*)\) (\w)/s`,
  String.raw`src/platform/objects/s3-objects.ts: /\/+$/`,
  String.raw`src/push/apns.ts: /\/+$/`,
  String.raw`src/push/fcm.ts: /\/+$/`,
];

type Found = { file: string; pattern: RegExp };

/** The regular expressions of a file: its literals, and its texts that begin like one, as schemas have them. */
function regexpsIn(file: string, text: string): Found[] {
  const found: Found[] = [];
  const visit = (node: AnyNode) => {
    if (node.type === "Literal") {
      if (node.value instanceof RegExp) found.push({ file, pattern: node.value });
      if (typeof node.value === "string" && node.value.startsWith("^"))
        found.push({ file, pattern: new RegExp(node.value) });
    }
    for (const child of Object.values(node).flat()) if (isNode(child)) visit(child);
  };
  const script = new Bun.Transpiler({ loader: "ts", target: "bun" }).transformSync(text);
  visit(parse(script, { ecmaVersion: "latest", sourceType: "module" }));
  return found;
}

function isNode(value: unknown): value is AnyNode {
  return typeof value === "object" && value !== null && "type" in value && "start" in value;
}

async function sources(): Promise<[file: string, text: string][]> {
  const files = [...new Bun.Glob("src/**/*.ts").scanSync()].toSorted();
  return await Promise.all(
    files.map(async (file): Promise<[string, string]> => [file, await Bun.file(file).text()]),
  );
}

/** Texts that the pattern nearly matches, in which a piece comes over and over again. */
function* hostileTexts(samples: string[], length: number): Generator<string> {
  for (const sample of samples)
    for (let at = 0; at < sample.length; at++)
      for (const letters of [1, 2]) {
        const piece = sample.slice(at, at + letters);
        const start = sample.slice(0, at) + piece.repeat(length / letters);
        yield `${start}\0`;
        yield `${start}${sample.slice(at + letters)}\0`;
      }
}

function samplesOf({ source, flags }: RegExp): string[] {
  const letters = [...new Set(`${source.replaceAll(/[^\w ]/g, "")} 0a.-/"`)];
  try {
    const simple = source.replaceAll(NEGATED_CLASS, "[a-z=]");
    const texts = fc.stringMatching(new RegExp(simple, flags.replaceAll(/[gyuv]/g, "")));
    return [
      ...fc.sample(texts, SAMPLES).map((text) => text.slice(0, SAMPLE_LENGTH_MAX)),
      ...letters,
    ];
  } catch {
    // Look-around is beyond it.
    return letters;
  }
}

function isSlow(pattern: RegExp, text: string): boolean {
  for (let tries = 0; tries < TRIES; tries++)
    if (cpuMs(() => text.replace(pattern, "")) <= CPU_MS_MAX) return false;
  return true;
}

function cpuMs(act: () => unknown): number {
  const before = process.threadCpuUsage();
  act();
  const { user, system } = process.threadCpuUsage(before);
  return (user + system) / 1000;
}

/** The text that makes a search for the pattern slow; undefined where none does. */
function slowText(pattern: RegExp): string | undefined {
  const samples = samplesOf(pattern);
  for (const length of LENGTHS)
    for (const text of hostileTexts(samples, length)) if (isSlow(pattern, text)) return text;
  return undefined;
}

test("every regular expression takes linear time on text that is made to be slow", async () => {
  const found = (await sources()).flatMap(([file, text]) => regexpsIn(file, text));
  expect(found.length).toBeGreaterThan(80);
  const slow = found.flatMap(({ file, pattern }) => {
    const text = NOT_FOR_CLIENTS.includes(`${file}: ${String(pattern)}`)
      ? undefined
      : slowText(pattern);
    return text === undefined ? [] : [`${file}: ${String(pattern)}: ${text.slice(0, 20)}…`];
  });
  expect(slow).toEqual([]);
});

test("none is over the paths of routes: what depends on the route is in its policy", async () => {
  const found = (await sources()).flatMap(([file, text]) => regexpsIn(file, text));
  const onPaths = found.filter(({ pattern }) => pattern.source.startsWith(String.raw`^\/`));
  expect(onPaths.map(({ file, pattern }) => `${file}: ${String(pattern)}`)).toEqual([]);
});

test("those that are put together at run time are few, and known", async () => {
  const makers = (await sources()).filter(([, text]) => text.includes("new RegExp("));
  expect(makers.map(([file]) => file)).toEqual([
    "src/campaigns/schedule.ts",
    "src/platform/bodies/media-type.ts",
    "src/platform/objects/object-keys.ts",
  ]);
});

test("the search finds what is slow", () => {
  for (const slow of [/^0*(\d+)_(\d{2})(.*)$/s, /[ \t]+$/, /^(a+)+$/, /^\s*x?\s*y/])
    expect(slowText(slow)).toBeDefined();
});
