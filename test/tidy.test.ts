import { describe, expect, test } from "bun:test";

import {
  type Sources,
  commentProblems,
  folderProblems,
  importProblems,
  lengthProblems,
  nameProblems,
  readSources,
  tableProblems,
  testFolderProblems,
  unknownTables,
} from "./support/tidy.ts";

const src = await readSources("src/**/*.ts");
const all = new Map([...src, ...(await readSources("{test,bench}/**/*.ts"))]);
const schema = [...(await readSources("sql/*.sql")).values()].join("\n");

describe("in this repository", () => {
  test("rooms import what is below them, and slices nothing but types of each other", () => {
    expect(importProblems(src)).toEqual([]);
  });

  test("each table is written by the rooms that own it", () => {
    expect(tableProblems(src)).toEqual([]);
    expect(unknownTables(schema)).toEqual([]);
  });

  test("no file and no folder is too long", () => {
    expect(lengthProblems(all)).toEqual([]);
    expect(folderProblems(src)).toEqual([]);
  });

  test("folders of tests are named like the folders of what they test", () => {
    expect(testFolderProblems(all)).toEqual([]);
  });

  test("names and comments speak plainly", () => {
    expect(nameProblems(src)).toEqual([]);
    expect(commentProblems(src)).toEqual([]);
  });
});

describe("what would be found is", () => {
  test.each<[string, (sources: Sources) => string[], string, string]>([
    ["an import of a room above", importProblems, "src/log/a.ts", 'import "../ingest/b.ts";'],
    [
      "a type of a room above",
      importProblems,
      "src/platform/a.ts",
      'import { type A } from "./http/edge.ts";',
    ],
    [
      "a value of another slice",
      importProblems,
      "src/images/a.ts",
      'import { type A, b } from "../ingest/b.ts";',
    ],
    [
      "a dynamic import of another slice",
      importProblems,
      "src/images/a.ts",
      'await import("../ingest/b.ts")',
    ],
    ["an unknown room", importProblems, "src/images2/a.ts", 'import { A } from "../ingest/b.ts";'],
    ["a table of another slice", tableProblems, "src/images/a.ts", "sql`update devices set a = 1`"],
    ["a long file", lengthProblems, "src/a.ts", "\n".repeat(301)],
    ["a name that says nothing", nameProblems, "src/platform/utils.ts", ""],
    ["a banned name", nameProblems, "src/presence/a.ts", "const deaf = 1;"],
    ["a fragment", commentProblems, "src/a.ts", "  // What is no JSON."],
  ])("%s", (_what, problems, path, text) => {
    expect(problems(new Map([[path, text]]))).toHaveLength(1);
  });

  test("a folder with many files", () => {
    const files = Array.from({ length: 21 }, (_, nth) => [`src/a/${nth}.ts`, ""] as const);
    expect(folderProblems(new Map(files))).toEqual(["src/a has over 20 files"]);
  });

  test("a folder of tests that tests no folder", () => {
    const paths = ["src/a/b.ts", "test/a/b.test.ts", "test/deploy/b.test.ts", "test/b.test.ts"];
    const found = testFolderProblems(
      new Map([...paths, "test/c/d.test.ts"].map((path) => [path, ""])),
    );
    expect(found).toEqual(["test/c mirrors no folder of src"]);
  });

  test("a table without a writer", () => {
    expect(unknownTables("create table made_up (id integer);")).toEqual(["made_up"]);
  });

  test("nothing where a slice imports a type, or its own file", () => {
    const text = 'import { type A } from "../ingest/b.ts";\nimport { c } from "./c.ts";';
    expect(importProblems(new Map([["src/images/a.ts", text]]))).toEqual([]);
  });
});
