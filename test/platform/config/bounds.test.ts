import { expect, test } from "bun:test";

import { BOUNDS } from "../../../src/platform/config/bounds.ts";
import { readConfig } from "../../../src/platform/config/config.ts";
import { UsageError } from "../../../src/platform/errors.ts";
import { codeOf, readPage, tableRows } from "../../support/markdown.ts";

test("without variables every bound has its documented default", () => {
  const { rowLimits, presenceBounds, requestsMax } = readConfig({});
  expect(requestsMax).toBe(30_000);
  expect(rowLimits).toEqual({
    starts: { perSecond: 1000, perAddress: 100 },
    installs: { perSecond: 1000, perAddress: 100 },
    image_names: { perSecond: 10_000, perAddress: 1000 },
    presence_users: { perSecond: 5000, perAddress: 500 },
  });
  expect(presenceBounds).toEqual({
    connections: 50_000,
    connectionsOfAddress: 10_000,
    connectionsOfUser: 100,
    watched: 500_000,
    watchedByUser: 10_000,
  });
});

test("every bound is read, and can be switched off", () => {
  const { rowLimits, presenceBounds, requestsMax } = readConfig({
    REQUESTS_MAX: "10",
    RATE_LIMIT_STARTS: "off",
    RATE_LIMIT_STARTS_ADDRESS: "1",
    RATE_LIMIT_INSTALLS: "2",
    RATE_LIMIT_INSTALLS_ADDRESS: "off",
    RATE_LIMIT_IMAGE_NAMES: "3",
    RATE_LIMIT_IMAGE_NAMES_ADDRESS: "4",
    RATE_LIMIT_PRESENCE_USERS: "5",
    RATE_LIMIT_PRESENCE_USERS_ADDRESS: "6",
    PRESENCE_CONNECTIONS: "7",
    PRESENCE_CONNECTIONS_ADDRESS: "off",
    PRESENCE_CONNECTIONS_USER: "8",
    PRESENCE_WATCHED: "off",
    PRESENCE_WATCHED_USER: "9",
  });
  expect(requestsMax).toBe(10);
  expect(rowLimits).toEqual({
    starts: { perSecond: undefined, perAddress: 1 },
    installs: { perSecond: 2, perAddress: undefined },
    image_names: { perSecond: 3, perAddress: 4 },
    presence_users: { perSecond: 5, perAddress: 6 },
  });
  expect(presenceBounds).toEqual({
    connections: 7,
    connectionsOfAddress: undefined,
    connectionsOfUser: 8,
    watched: undefined,
    watchedByUser: 9,
  });
});

test.each(["docs/configuration.md", ".env.example", "docs/limits.md"])(
  "%s names every bound",
  (file) => {
    const text = readPage(file);
    expect(Object.keys(BOUNDS).filter((name) => !new RegExp(`\\b${name}\\b`).test(text))).toEqual(
      [],
    );
  },
);

test("docs/limits.md has every bound with its default", () => {
  const rows = new Map(
    tableRows("docs/limits.md").map(([, name, usual = ""]) => [
      codeOf(name),
      /^[\d,]+/.exec(usual)?.[0].replaceAll(",", ""),
    ]),
  );
  for (const [name, schema] of Object.entries(BOUNDS))
    expect([name, rows.get(name)]).toEqual([name, String("default" in schema && schema.default)]);
});

test.each(Object.keys(BOUNDS))("%s is a whole number from 1 or off", (name) => {
  for (const value of ["0", "-1", "1.5", "1e3", "none", "OFF", "1000000000"])
    expect(() => readConfig({ [name]: value })).toThrow(UsageError);
});
