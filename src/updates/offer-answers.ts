import { JSON_HEADERS } from "../platform/plain-text.ts";
import { stringifyExact } from "../platform/exact-json.ts";
import { type Build, describeBuild, integrityHeaders, mirrorUri } from "./build.ts";

// Clients may make up hosts, which links begin with.
const TEXTS_MAX = 100;

/** Answers to checks: all who are offered a build get the same text, until it is read from the database anew. Writing it each time is half of a check. */
export class OfferAnswers {
  readonly #texts = new WeakMap<Build, Map<string, string>>();

  of(build: Build, skipped: boolean, base: string): Response {
    return new Response(this.#text(build, skipped, base), {
      // It depends on who asks, and by which host.
      headers: { ...JSON_HEADERS, "cache-control": "no-store", ...integrityHeaders(build) },
    });
  }

  #text(build: Build, skipped: boolean, base: string): string {
    let texts = this.#texts.get(build);
    if (texts === undefined || texts.size >= TEXTS_MAX) {
      texts = new Map();
      this.#texts.set(build, texts);
    }
    const key = `${skipped} ${base}`;
    let text = texts.get(key);
    if (text === undefined) {
      const described = describeBuild(build, mirrorUri(base, build));
      text = stringifyExact({ ...described, Skipped: skipped });
      texts.set(key, text);
    }
    return text;
  }
}
