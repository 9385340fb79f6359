import { expect, spyOn, test } from "bun:test";

import { warnRarely } from "../../src/platform/rare-warnings.ts";
import { LogLines } from "../support/log-lines.ts";

test("the same trouble is told at once and then once a minute, with how often it was met", () => {
  let nowMs = 0;
  using clock = spyOn(performance, "now").mockImplementation(() => nowMs);
  const log = new LogLines();
  const warn = (reason: string) => {
    const cause = new Error(`${reason} of ${crypto.randomUUID()}`);
    warnRarely(log.log, { err: new Error("no answer", { cause }) }, "away");
  };
  for (let attempt = 0; attempt < 100; attempt++) warn(`refused, attempt ${attempt}`);
  expect(log.lines).toHaveLength(1);
  nowMs += 59_000;
  warn("refused, attempt 100");
  warn("another reason");
  expect(log.lines).toHaveLength(2);
  nowMs += 1000;
  warn("refused, attempt 101");
  expect(log.lines).toHaveLength(3);
  expect(JSON.parse(log.lines[2] ?? "")).toMatchObject({ msg: "away", repeated: 100 });
  warnRarely(new LogLines().log, {}, "away");
  warnRarely(log.log, {}, "away");
  expect(log.lines).toHaveLength(4);

  for (let nth = 0; nth < 500; nth++) warn("other".repeat(nth + 1));
  expect(log.lines).toHaveLength(101);
  nowMs += 60_000;
  warn("and it goes on");
  expect(log.lines).toHaveLength(102);
  expect(clock).toHaveBeenCalled();
});
