import { open, type CityResponse, type Reader } from "maxmind";

import { UsageError } from "../platform/errors.ts";

/** `country` is an ISO 3166-1 code or "UN" if unknown; `state` and `city` are English or empty. */
export type Place = { country: string; state: string; city: string };

/**
 * Looks up IP addresses in a city database of MaxMind's format. The file is read once, at start.
 */
export class Geo {
  readonly #cities: Reader<CityResponse> | undefined;

  private constructor(cities: Reader<CityResponse> | undefined) {
    this.#cities = cities;
  }

  /**
   * Opens the database; without a path every place is unknown. Throws if the file cannot be read or
   * is not a MaxMind database.
   */
  static async open(path: string | undefined): Promise<Geo> {
    if (path === undefined) return new Geo(undefined);
    try {
      return new Geo(await open<CityResponse>(path));
    } catch (cause) {
      throw new UsageError(`the GeoIP database ${path} cannot be opened`, { cause });
    }
  }

  /**
   * Returns the place of an address. It is unknown for an invalid address or a damaged record:
   * neither may fail the start of a session.
   */
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
