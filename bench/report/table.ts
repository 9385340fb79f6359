import type { Findings, Section } from "./findings.ts";

const GAP = "  ";

type Reported = Pick<Findings, "sections" | "targets" | "failures">;

/** Renders the tables of a run as plain text. */
export function renderTables(findings: Reported): string {
  return renderParts(findings, renderSection);
}

/** Renders the tables of a run for a page of documentation. */
export function renderMarkdown(findings: Reported): string {
  return renderParts(findings, ({ title, columns, rows, notes }) => {
    const rule = columns.map((_, index) => (index === 0 ? "---" : "---:"));
    const table = [columns, rule, ...rows].map(
      (cells) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`,
    );
    return [`**${title}**`, table.join("\n"), ...notes].join("\n\n");
  });
}

function renderParts(
  { sections, targets, failures }: Reported,
  render: (section: Section) => string,
): string {
  const parts = sections.map(render);
  if (targets.length > 0)
    parts.push(
      render({
        title: "Targets",
        columns: ["", "measured", "target", ""],
        rows: targets.map(({ what, measured, limit, met }) => [
          what,
          measured,
          limit,
          met ? "pass" : "MISS",
        ]),
        notes: [],
      }),
    );
  if (failures.length > 0)
    parts.push(["Failures", ...failures.map((each) => `  ${each}`)].join("\n"));
  return `${parts.join("\n\n")}\n`;
}

function renderSection({ title, columns, rows, notes }: Section): string {
  const widths = columns.map((column, index) =>
    Math.max(...[column, ...rows.map((row) => row[index] ?? "")].map((cell) => cell.length)),
  );
  const line = (cells: string[]) =>
    cells
      // The first column, the row's name, is aligned left; figures are aligned right.
      .map((cell, index) =>
        index === 0 ? cell.padEnd(widths[index] ?? 0) : cell.padStart(widths[index] ?? 0),
      )
      .join(GAP)
      .trimEnd();
  const rule = "─".repeat(widths.reduce((sum, width) => sum + width + GAP.length, -GAP.length));
  const text = [title, rule, line(columns), rule, ...rows.map(line), rule];
  return [...text, ...notes.map((note) => `  ${note}`)].join("\n");
}
