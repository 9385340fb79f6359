import { expect, test } from "bun:test";

import { renderMarkdown, renderTables } from "../../bench/report/table.ts";

const findings = {
  sections: [
    {
      title: "Saturation",
      columns: ["", "rate"],
      rows: [
        ["a | b", "12/s"],
        ["c", "1,234/s"],
      ],
      notes: ["A note."],
    },
  ],
  targets: [{ what: "rate", measured: "12/s", limit: "≥ 20/s", met: false }],
  failures: [],
};

test("tables align figures to the right and say which targets are missed", () => {
  const lines = renderTables(findings).split("\n");
  expect(lines).toContain("a | b     12/s");
  expect(lines).toContain("c      1,234/s");
  expect(lines).toContain("rate      12/s  ≥ 20/s  MISS");
  expect(lines).toContain("  A note.");
});

test("tables in Markdown have a rule, and escape what would be a column", () => {
  expect(renderMarkdown(findings)).toStartWith(
    [
      "**Saturation**",
      "",
      "|  | rate |",
      "| --- | ---: |",
      "| a \\| b | 12/s |",
      "| c | 1,234/s |",
      "",
      "A note.",
    ].join("\n"),
  );
});
