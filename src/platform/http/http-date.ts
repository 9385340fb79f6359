/** Date formats of RFC 9110, 5.6.7: the preferred one, RFC 850's, and that of C's `asctime`. */
const FORMS = [
  /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?<day>\d\d) (?<month>\w{3}) (?<year>\d{4}) (?<time>[\d:]{8}) GMT$/,
  /^(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?<day>\d\d)-(?<month>\w{3})-(?<year>\d\d) (?<time>[\d:]{8}) GMT$/,
  /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (?<month>\w{3}) (?<day>[\d ]\d) (?<time>[\d:]{8}) (?<year>\d{4})$/,
];

/**
 * Parses an HTTP date to milliseconds since 1970. Returns undefined if the text is not a valid
 * date.
 */
export function parseHttpDate(text: string, now = new Date()): number | undefined {
  const match = FORMS.map((form) => form.exec(text)).find((one) => one !== null);
  if (match?.groups === undefined) return undefined;
  const { day = "", month = "", year = "", time = "" } = match.groups;
  const fullYear = year.length === 2 ? century(Number(year), now) : year;
  const date = `${day.replace(" ", "0")} ${month} ${fullYear} ${time} GMT`;
  const ms = Date.parse(date);
  // Format it back to compare: the parser accepts impossible dates such as the 31st of February.
  return Number.isNaN(ms) || !formatHttpDate(ms).endsWith(` ${date}`) ? undefined : ms;
}

export function formatHttpDate(ms: number): string {
  return new Date(ms).toUTCString();
}

/** Resolves a two-digit year to one at most 50 years in the future. */
function century(year: number, now: Date): number {
  const present = now.getUTCFullYear();
  const full = present - (present % 100) + year;
  return full > present + 50 ? full - 100 : full;
}
