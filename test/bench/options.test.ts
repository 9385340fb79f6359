import { describe, expect, test } from "bun:test";

import { comparesFiles, readOptions, UsageError } from "../../bench/options.ts";

const PHASES = {
  ingest: ["saturation", "steady", "soak"],
  images: ["large", "small"],
  remote: ["load"],
};

function read(line: string) {
  const options = readOptions(line.split(" "), PHASES);
  if (options === undefined) throw new Error("help was printed");
  return options;
}

test("a scenario runs all its phases but those that take long", () => {
  expect(read("ingest").phases).toEqual(["saturation", "steady"]);
  expect(read("images").phases).toEqual(["large", "small"]);
});

test("phases that are asked for run in their own order", () => {
  expect(read("ingest --phases soak,saturation").phases).toEqual(["saturation", "soak"]);
});

test("a soak is a number of minutes and runs alone", () => {
  expect(read("ingest --soak 30")).toMatchObject({ phases: ["soak"], soak: 30 });
});

test("a URL is loaded with what an operator has: a session token or a project key", () => {
  expect(read("--url https://example.com/ingest --token abc --rate 50")).toMatchObject({
    scenario: "remote",
    phases: ["load"],
    url: "https://example.com/ingest",
    token: "abc",
    rate: 50,
  });
  expect(read("--url http://localhost:8080 --project-key abc").projectKey).toBe("abc");
});

test("git refs are compared at saturation unless other phases or another scenario are named", () => {
  expect(read("compare main HEAD~3 v1.0")).toMatchObject({
    scenario: "ingest",
    phases: ["saturation"],
    compared: ["main", "HEAD~3", "v1.0"],
  });
  expect(read("compare main HEAD --phases steady").phases).toEqual(["steady"]);
  expect(read("compare main HEAD --scenario images")).toMatchObject({
    scenario: "images",
    phases: ["large", "small"],
  });
});

test("results of runs are told from git refs by their name", () => {
  expect(comparesFiles(read("compare a.json b.json"))).toBe(true);
  expect(comparesFiles(read("compare main HEAD"))).toBe(false);
  expect(comparesFiles(read("ingest"))).toBe(false);
});

describe("bad usage is refused", () => {
  test.each([
    ["an unknown scenario", "nothing"],
    ["an unknown phase", "ingest --phases nothing"],
    ["a soak of a scenario without one", "images --soak 5"],
    ["a surplus argument", "ingest images"],
    ["no connections", "ingest --connections 0"],
    ["more connections than a process has", "ingest --connections 20001"],
    ["a fraction of a second", "ingest --seconds 0.5"],
    ["a run without end", "ingest --seconds 3601"],
    ["requests without bound", "--url http://a --token b --requests 1000000001"],
    ["a batch that is too large", "--url http://a --token b --bytes 1000001"],
    ["a URL without credentials", "--url http://a"],
    ["a URL with two kinds of them", "--url http://a --token b --project-key c"],
    ["a URL beside a scenario", "ingest --url http://a --token b"],
    ["a URL of another kind", "--url ftp://a --token b"],
    ["credentials without a URL", "ingest --token b"],
    ["a server elsewhere without its URL", "remote"],
    ["one ref to compare", "compare main"],
    ["a file and a ref to compare", "compare a.json main"],
    ["three files to compare", "compare a.json b.json c.json"],
    ["refs on one database", "compare main HEAD --database-url postgres://a"],
    ["a scenario for something else than a comparison", "ingest --scenario images"],
  ])("%s", (_what, line) => {
    expect(() => read(line)).toThrow(UsageError);
  });
});
