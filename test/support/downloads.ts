import { expect } from "bun:test";

export const CHANGED: [number, string] = [
  412,
  "the file is not the one that the request expects\n",
];
/** An ETag that no build has. */
export const OTHER_TAG = `"${"0".repeat(64)}"`;

/** Validators of a build whose download a client has begun. */
export type Known = { etag: string; date: string };
export type Conditions = (known: Known) => Record<string, string>;

/** Returns a date that many seconds later. */
export function shifted(date: string, seconds: number): string {
  return new Date(Date.parse(date) + seconds * 1000).toUTCString();
}

export async function knownOf(link: string, method = "GET"): Promise<Known> {
  const { headers } = await fetch(link, { method });
  const [etag, date] = [headers.get("etag"), headers.get("last-modified")];
  if (etag === null || date === null) throw new Error(`nothing is known of ${link}`);
  return { etag, date };
}

/** Returns the validators of a HEAD request, without following redirects. */
export async function headOf(link: string): Promise<Known> {
  return await knownOf(link, "HEAD");
}

/** Conditions with which a client resumes a download. */
export const RESUMING: [string, Conditions][] = [
  ["If-Match", ({ etag }) => ({ "if-match": etag })],
  ["If-Unmodified-Since", ({ date }) => ({ "if-unmodified-since": date })],
  ["If-Range and the ETag", ({ etag }) => ({ "if-range": etag })],
  ["If-Range and the date", ({ date }) => ({ "if-range": date })],
];

/** Fails if a client that began with another build gets bytes of the link's current build. */
export async function expectRefused(link: string, known: Known): Promise<void> {
  const whole = await (await fetch(link)).text();
  for (const [what, conditions] of RESUMING) {
    const headers = { ...conditions(known), range: "bytes=5-" };
    const answer = await fetch(link, { headers });
    const expected = "if-range" in headers ? [200, whole] : CHANGED;
    expect([what, answer.status, await answer.text()]).toEqual([what, ...expected]);
  }
  const since = { headers: { "if-modified-since": known.date } };
  expect((await fetch(link, since)).status).toBe(200);
}
