import { open, type CityResponse, type Reader } from "maxmind";

import { UsageError } from "../platform/errors.ts";

/** `country` is an ISO 3166-1 code, "UN" where unknown; `state` and `city` are English names or empty. */
export type Place = { country: string; state: string; city: string };

/** Where an address is, by a city database in MaxMind's format. The file is read once, at start. */
export class Geo {
  readonly #cities: Reader<CityResponse> | undefined;

  private constructor(cities: Reader<CityResponse> | undefined) {
    this.#cities = cities;
  }

  /** Without a path every place is unknown. Throws when the file cannot be read or is no MaxMind database. */
  static async open(path: string | undefined): Promise<Geo> {
    if (path === undefined) return new Geo(undefined);
    try {
      return new Geo(await open<CityResponse>(path));
    } catch (cause) {
      throw new UsageError(`the GeoIP database ${path} cannot be opened`, { cause });
    }
  }

  /** Unknown for what is no address, and for a damaged record: neither may fail the start of a session. */
  lookup(address: string): Place {
    try {
      const found = this.#cities?.get(address);
      return {
        country: found?.country?.iso_code ?? "UN",
        state: found?.subdivisions?.[0]?.names.en ?? "",
        city: found?.city?.names.en ?? "",
      };
    } catch {
      return { country: "UN", state: "", city: "" };
    }
  }
}
