import { JSON_HEADERS } from "../wire/wemesse.ts";
import { stringifyExact } from "../wire/exact-json.ts";
import { type Build, describeBuild, integrityHeaders } from "./build.ts";

// Bounded, because clients can invent hosts, and links begin with the host of the request.
const ANSWERS_MAX = 100;

type Answer = { text: string; headers: Headers };
type LinkOf = (base: string, build: Build) => string;

/**
 * Caches answers to checks: all clients that are offered a build get the same text, until the build
 * is read from the database again. Encoding it each time would be half the work of a check.
 */
export class OfferAnswers {
  readonly #answers = new WeakMap<Build, Map<string, Answer>>();
  readonly #linkOf: LinkOf;

  constructor(linkOf: LinkOf) {
    this.#linkOf = linkOf;
  }

  /** Returns the answer that offers the build; its links begin with `base`. */
  of(build: Build, skipped: boolean, base: string): Response {
    let answers = this.#answers.get(build);
    if (answers === undefined || answers.size >= ANSWERS_MAX) {
      answers = new Map();
      this.#answers.set(build, answers);
    }
    const key = skipped ? base : `forced ${base}`;
    let answer = answers.get(key);
    if (answer === undefined) {
      answer = answerOf(build, skipped, this.#linkOf(base, build));
      answers.set(key, answer);
    }
    return new Response(answer.text, answer);
  }
}

function answerOf(build: Build, skipped: boolean, uri: string): Answer {
  return {
    text: stringifyExact({ ...describeBuild(build, uri), Skipped: skipped }),
    headers: new Headers({
      ...JSON_HEADERS,
      // The answer depends on the client, and on the host that it asked.
      "cache-control": "no-store",
      ...integrityHeaders(build),
    }),
  };
}
