import { readFileSync } from "node:fs";
import { join } from "node:path";

export const ROOT = join(import.meta.dir, "../..");

/** Markdown files by path from the root of the repository. */
export const PAGES = ["*.md", "{docs,src,bench}/**/*.md"].flatMap((pattern) =>
  [...new Bun.Glob(pattern).scanSync(ROOT)].toSorted(),
);

export function readPage(path: string): string {
  return readFileSync(join(ROOT, path), "utf8");
}

/** Returns the cells of every table row in the page, without heads and separators. */
export function tableRows(path: string): string[][] {
  const lines = withoutCode(readPage(path)).split("\n");
  return lines.flatMap((line, at) => {
    const isHead = /^\|[-| :]+\|$/.test(lines[at + 1] ?? "");
    if (!line.startsWith("|") || isHead || /^\|[-| :]+\|$/.test(line)) return [];
    const cells = line.slice(1, line.lastIndexOf("|")).split(/(?<!\\)\|/);
    return [cells.map((cell) => cell.trim())];
  });
}

/** Returns the text if the cell begins with one in backticks. */
export function codeOf(cell = ""): string | undefined {
  return /^`([^`]+)`/.exec(cell)?.[1];
}

/** Returns the page's first code block in a language. Throws if there is none. */
export function codeBlock(path: string, language: string): string {
  const text = new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, "ms").exec(readPage(path))?.[1];
  if (text === undefined) throw new Error(`${path} has no block in ${language}`);
  return text;
}

/** Empties code blocks; lines keep their numbers. */
export function withoutCode(text: string): string {
  return text.replaceAll(/^ *```.*?^ *```$/gms, (block) => block.replaceAll(/.+/g, ""));
}
