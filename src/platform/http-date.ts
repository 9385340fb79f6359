/** The forms of RFC 9110, 5.6.7: the preferred one, that of RFC 850, and that of C's `asctime`. */
const FORMS = [
  /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?<day>\d\d) (?<month>\w{3}) (?<year>\d{4}) (?<time>[\d:]{8}) GMT$/,
  /^(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?<day>\d\d)-(?<month>\w{3})-(?<year>\d\d) (?<time>[\d:]{8}) GMT$/,
  /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (?<month>\w{3}) (?<day>[\d ]\d) (?<time>[\d:]{8}) (?<year>\d{4})$/,
];

/** The second of a date in a header, in milliseconds since 1970. Returns undefined if the text is not a valid HTTP date. */
export function parseHttpDate(text: string, now = new Date()): number | undefined {
  const match = FORMS.map((form) => form.exec(text)).find((one) => one !== null);
  if (match?.groups === undefined) return undefined;
  const { day = "", month = "", year = "", time = "" } = match.groups;
  const fullYear = year.length === 2 ? century(Number(year), now) : year;
  const date = `${day.replace(" ", "0")} ${month} ${fullYear} ${time} GMT`;
  const ms = Date.parse(date);
  // The parser takes more than there is, such as the 31st of February.
  return Number.isNaN(ms) || !formatHttpDate(ms).endsWith(` ${date}`) ? undefined : ms;
}

export function formatHttpDate(ms: number): string {
  return new Date(ms).toUTCString();
}

/** A year of two digits is never more than 50 years ahead. */
function century(year: number, now: Date): number {
  const present = now.getUTCFullYear();
  const full = present - (present % 100) + year;
  return full > present + 50 ? full - 100 : full;
}
