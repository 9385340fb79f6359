import { AppError } from "../platform/errors.ts";

const LENGTH_MAX = 100;

const ISO =
  /^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?))?\s*(z|[+-]\d{2}(?::?\d{2})?)?$/i;

const WEEKDAY = "(?:(?:sun|mon|tue|tues|wed|wednes|thu|thur|thurs|fri|sat|satur)(?:day)?,?\\s+)?";
const NTH = "(?<day>\\d{1,2})(?:st|nd|rd|th)?";
const MONTH = "(?<name>[a-z]{3,9})\\.?";
const DATE = [
  `${NTH}[\\s-]+${MONTH},?[\\s-]+(?<year>\\d{4})`,
  `${MONTH}[\\s-]+${NTH}(?:,\\s*|[\\s-]+)(?<year>\\d{4})`,
  "(?<month>\\d{1,2})(?<mark>[/-])(?<day>\\d{1,2})\\k<mark>(?<year>\\d{4})",
  "(?<year>\\d{4})(?<mark>[/-])(?<month>\\d{1,2})\\k<mark>(?<day>\\d{1,2})",
].join("|");
const TIME =
  "(?<hour>\\d{1,2})(?::(?<minute>\\d{2})(?::(?<second>\\d{2})(?:[.,](?<fraction>\\d{1,9}))?)?)?(?:\\s*(?<half>[ap])\\.?m\\.?)?";
const OFFSET = "(?:gmt|utc)?\\s*(?<sign>[+-])(?<hours>\\d{1,2})(?::?(?<minutes>\\d{2}))?";
const ZONE = `(?:${OFFSET}|(?<zone>gmt|utc|z|[ecmp][sd]t))(?:\\s*\\([\\p{L} .]+\\))?`;
/** Matches the whole text, because a part that is not understood could change its meaning. */
const FREE = new RegExp(
  `^${WEEKDAY}(?:${DATE})(?:(?:,\\s*|\\s+|T)(?:at\\s+)?${TIME})?(?:\\s*${ZONE})?$`,
  "iu",
);

const MONTHS = [
  "january",
  "february",
  "march",
  "april",
  "may",
  "june",
  "july",
  "august",
  "september",
  "october",
  "november",
  "december",
];
/** Offsets of American time zones in winter, by their first letter. */
const HOURS_BEHIND = new Map([
  ["e", 5],
  ["c", 6],
  ["m", 7],
  ["p", 8],
]);

/** Description of schedules for `/docs`. */
export const SCHEDULE = {
  type: "string",
  format: "date-time",
  nullable: true,
  description: "ISO 8601 or a date in English, in UTC by default; empty: now",
};

/**
 * Parses ISO 8601 or a date in English, with months before days in numbers. The zone defaults to
 * UTC, and an empty text means now. Throws 400.
 */
export function parseSchedule(value: unknown, now: Date): Date {
  if (typeof value !== "string")
    throw new AppError("invalid", "scheduled_at must be a date as text");
  const text = value.trim();
  if (text === "") return now;
  const date = text.length > LENGTH_MAX ? undefined : (readIso(text) ?? readFreely(text));
  if (date === undefined || Number.isNaN(date.getTime()) || date.getUTCFullYear() > 9999)
    throw new AppError("invalid", "scheduled_at is no date");
  if (date < now) throw new AppError("invalid", "scheduled_at should later than current time");
  return date;
}

/** Returns undefined unless the text is ISO 8601, and an invalid Date if there is no such day. */
function readIso(text: string): Date | undefined {
  const [all, day = "", time = "00:00", zone = "Z"] = ISO.exec(text) ?? [];
  if (all === undefined) return undefined;
  const [hours, minutes = "00"] = zone.split(/(?<=^[+-]\d{2}):?/);
  const offset = /^z$/i.test(zone) ? "Z" : `${hours}:${minutes || "00"}`;
  // `Date` turns a day that does not exist into one of the next month.
  const exists = new Date(`${day}T00:00Z`).toJSON()?.startsWith(day) ?? false;
  return new Date(exists ? `${day}T${time}${offset}` : Number.NaN);
}

type Groups = Partial<Record<string, string>>;

function readFreely(text: string): Date | undefined {
  const groups: Groups | undefined = FREE.exec(text)?.groups;
  if (groups === undefined) return undefined;
  const dayMs = dayOf(groups);
  const timeMs = timeOf(groups);
  const offsetMinutes = offsetOf(groups);
  if (dayMs === undefined || timeMs === undefined || offsetMinutes === undefined) return undefined;
  return new Date(dayMs + timeMs - offsetMinutes * 60_000);
}

function dayOf({ year, month, name, day }: Groups): number | undefined {
  const named = name?.toLowerCase();
  const index =
    named === undefined
      ? Number(month) - 1
      : MONTHS.findIndex(
          (one) => one.startsWith(named) || (named === "sept" && one === "september"),
        );
  const ms = Date.UTC(Number(year), index, Number(day));
  const date = new Date(ms);
  return date.getUTCMonth() === index && date.getUTCDate() === Number(day) ? ms : undefined;
}

function timeOf({ hour, minute, second = "0", fraction = "0", half }: Groups): number | undefined {
  if (hour === undefined) return 0;
  // An hour needs minutes or am/pm: a number alone is ambiguous.
  if (minute === undefined && half === undefined) return undefined;
  const [from, to] = half === undefined ? [0, 23] : [1, 12];
  const hours = Number(hour);
  const minutes = Number(minute ?? 0);
  const seconds = Number(second);
  if (hours < from || hours > to || minutes > 59 || seconds > 59) return undefined;
  const past = half === undefined ? hours : (hours % 12) + (half.toLowerCase() === "p" ? 12 : 0);
  const ms = Number(fraction.padEnd(3, "0").slice(0, 3));
  return ((past * 60 + minutes) * 60 + seconds) * 1000 + ms;
}

/** Returns the offset in minutes. */
function offsetOf({ sign, hours = "0", minutes = "0", zone }: Groups): number | undefined {
  if (Number(hours) > 23 || Number(minutes) > 59) return undefined;
  if (sign !== undefined) return Number(`${sign}1`) * (Number(hours) * 60 + Number(minutes));
  const [letter = "", season] = zone?.toLowerCase() ?? "";
  const behind = HOURS_BEHIND.get(letter);
  return behind === undefined ? 0 : -60 * (season === "d" ? behind - 1 : behind);
}
