import * as fc from "fast-check";
import { expect, test } from "bun:test";

import { parseSchedule } from "../../src/campaigns/schedule.ts";
import { AppError } from "../../src/platform/errors.ts";
import { cpuMs } from "../support/eventually.ts";

const EPOCH = new Date(0);
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const two = (number: number) => String(number).padStart(2, "0");

type Moment = { year: number; month: number; day: number; hour: number; minute: number };

const moment = fc
  .record({
    ms: fc.integer({ min: Date.UTC(1999, 0), max: Date.UTC(2098, 0) }),
  })
  .map(({ ms }) => {
    const date = new Date(ms);
    return {
      year: date.getUTCFullYear(),
      month: date.getUTCMonth(),
      day: date.getUTCDate(),
      hour: date.getUTCHours(),
      minute: date.getUTCMinutes(),
    };
  });

const date = fc.constantFrom<(at: Moment) => string>(
  ({ year, month, day }) => `${year}-${two(month + 1)}-${two(day)}`,
  ({ year, month, day }) => `${year}-${month + 1}-${day}`,
  ({ year, month, day }) => `${year}/${two(month + 1)}/${two(day)}`,
  ({ year, month, day }) => `${month + 1}/${day}/${year}`,
  ({ year, month, day }) => `${two(month + 1)}-${two(day)}-${year}`,
  ({ year, month, day }) => `${day} ${MONTHS[month]} ${year}`,
  ({ year, month, day }) => `${day}-${MONTHS[month]}-${year}`,
  ({ year, month, day }) => `${MONTHS[month]} ${day}, ${year}`,
  ({ year, month, day }) => `${MONTHS[month]} ${two(day)} ${year}`,
);
const time = fc.constantFrom<(at: Moment) => string>(
  ({ hour, minute }) => `${two(hour)}:${two(minute)}`,
  ({ hour, minute }) => `${two(hour)}:${two(minute)}:00`,
  ({ hour, minute }) => `${two(hour)}:${two(minute)}:00.000`,
  ({ hour, minute }) => `${hour}:${two(minute)}`,
  ({ hour, minute }) => `${hour % 12 || 12}:${two(minute)} ${hour < 12 ? "AM" : "PM"}`,
  ({ hour, minute }) => `${hour % 12 || 12}:${two(minute)}${hour < 12 ? "am" : "pm"}`,
);
const offset = fc
  .record({
    minutes: fc.integer({ min: -14 * 4, max: 14 * 4 }).map((quarters) => quarters * 15),
    form: fc.constantFrom(
      "+HH:MM",
      "+HHMM",
      "+HH",
      "+H",
      "GMT+HHMM",
      "UTC+HH:MM",
      "GMT +H",
      "(+HH:MM)",
    ),
  })
  .map(({ minutes: given, form }) => {
    const minutes = form.includes("MM") ? given : Math.trunc(given / 60) * 60;
    const hours = Math.floor(Math.abs(minutes) / 60);
    const text = form
      .replace("+", minutes < 0 ? "-" : "+")
      .replace("HH", two(hours))
      .replace(/H(?!M)(?=$|\))/, String(hours))
      .replace("MM", two(Math.abs(minutes) % 60));
    return { minutes, text };
  });
/** Where in the text the offset is. */
const layout = fc.constantFrom<(date: string, time: string, offset: string) => string>(
  (...[day, hour, zone]) => `${day} ${hour}${zone}`,
  (...[day, hour, zone]) => `${day} ${hour} ${zone}`,
  (...[day, hour, zone]) => `${day}T${hour}${zone}`,
  (...[day, hour, zone]) => `${day}, ${hour}  ${zone}`,
  (...[day, hour, zone]) => `Thu ${day} ${hour} ${zone}`,
  (...[day, hour, zone]) => `${day} ${hour} ${zone} (Somewhere Time)`,
  (...[day, hour, zone]) => `${day} ${zone} ${hour}`,
  (...[day, hour, zone]) => `${day}${zone} ${hour}`,
  (...[day, hour, zone]) => `${zone} ${day} ${hour}`,
  (...[day, hour, zone]) => `${hour} ${zone} ${day}`,
  (...[day, hour, zone]) => `${hour} ${day} ${zone}`,
  (...[day, hour, zone]) => `${day} ${hour} ${zone} UTC`,
  (...[day, hour, zone]) => `${day} ${hour} UTC ${zone}`,
  (...[day, hour, zone]) => `${day} ${hour} ${zone} ${zone}`,
  (...[day, hour, zone]) => `${day} ${hour} about ${zone}`,
);

function instantOf(text: string): number | undefined {
  try {
    return parseSchedule(text, EPOCH).getTime();
  } catch (error) {
    expect(error).toBeInstanceOf(AppError);
    return undefined;
  }
}

test("what is accepted with an offset is that instant, wherever and however it is written", () => {
  let accepted = 0;
  fc.assert(
    fc.property(moment, date, time, offset, layout, (...[at, day, hour, zone, place]) => {
      const instant = instantOf(place(day(at), hour(at), zone.text));
      if (instant === undefined) return;
      accepted++;
      const { year, month, day: nth, hour: h, minute } = at;
      expect(instant).toBe(Date.UTC(year, month, nth, h, minute) - zone.minutes * 60_000);
    }),
    { numRuns: 5000 },
  );
  expect(accepted).toBeGreaterThan(1000);
});

test("what is accepted without one is in UTC", () => {
  fc.assert(
    fc.property(moment, date, time, (at, day, hour) => {
      const { year, month, day: nth, hour: h, minute } = at;
      expect(instantOf(`${day(at)} ${hour(at)}`)).toBe(Date.UTC(year, month, nth, h, minute));
      expect(instantOf(day(at))).toBe(Date.UTC(year, month, nth));
    }),
  );
});

test("any other text is refused or a date, and never takes long", () => {
  const part = fc.constantFrom(
    "2099",
    "12",
    "24",
    "Dec",
    "-",
    "/",
    ":",
    " ",
    "+02",
    "PM",
    "UTC",
    ",",
    "T",
    "00",
  );
  fc.assert(
    fc.property(fc.array(part, { maxLength: 12 }), (parts) => {
      const instant = instantOf(parts.join(""));
      if (instant !== undefined) expect(Number.isFinite(instant)).toBe(true);
    }),
    { numRuns: 2000 },
  );
  const ms = cpuMs(() => {
    expect(instantOf(`2099/12/24${" ".repeat(500_000)}x`)).toBeUndefined();
  });
  expect(ms).toBeLessThan(500);
});
