import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { Geo } from "../../src/sessions/geo.ts";
import { cityRecord, encodeMmdb } from "../support/mmdb.ts";

const UNKNOWN = { country: "UN", state: "", city: "" };

let folder: string;
let geo: Geo;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "floodgate-geo-"));
  const path = join(folder, "city.mmdb");
  const networks = {
    "203.0.113.0/24": cityRecord("DE", "Land Berlin", "Berlin"),
    "198.51.100.0/25": cityRecord("FR", "Île-de-France", "Paris"),
    "192.0.2.0/25": { country: { iso_code: "JP" } },
    "192.0.2.128/25": { country: { iso_code: "JP" }, city: "Tokyo" },
  };
  await writeFile(path, encodeMmdb(networks));
  geo = await Geo.open(path);
});

afterAll(async () => {
  await rm(folder, { recursive: true });
});

describe("with a city database", () => {
  test("an address inside a network has its country, state and city", () => {
    expect(geo.lookup("203.0.113.0")).toEqual({
      country: "DE",
      state: "Land Berlin",
      city: "Berlin",
    });
    expect(geo.lookup("203.0.113.255").city).toBe("Berlin");
    expect(geo.lookup("198.51.100.127").state).toBe("Île-de-France");
  });

  test("an address outside every network is unknown", () => {
    expect(geo.lookup("203.0.114.0")).toEqual(UNKNOWN);
    expect(geo.lookup("198.51.100.128")).toEqual(UNKNOWN);
    expect(geo.lookup("2001:db8::1")).toEqual(UNKNOWN);
  });

  test("a record without a city has only its country", () => {
    expect(geo.lookup("192.0.2.1")).toEqual({ country: "JP", state: "", city: "" });
  });

  test("a record of another shape is unknown", () => {
    expect(geo.lookup("192.0.2.129")).toEqual(UNKNOWN);
  });

  test.each(["", "localhost", "999.1.1.1", "1.2.3.4, 5.6.7.8", "::g"])(
    "%p is no address, so its place is unknown",
    (address) => {
      expect(geo.lookup(address)).toEqual(UNKNOWN);
    },
  );
});

test("without a database every place is unknown", async () => {
  const nowhere = await Geo.open(undefined);
  expect(nowhere.lookup("203.0.113.1")).toEqual(UNKNOWN);
});

test("a database that is missing or damaged is refused at start, by name", async () => {
  const damaged = join(folder, "damaged.mmdb");
  await writeFile(damaged, "not a database");
  for (const path of [damaged, join(folder, "missing.mmdb")]) {
    const opened = await Geo.open(path).catch(String);
    expect(opened).toContain(path);
  }
});
