import { type Sources, importsOf } from "./tidy.ts";

const STARTS_PROCESSES = /\bBun\.spawn|\bchild_process\b/;

/** Lists the tests that need no service: neither they nor what they import can start a process. */
export function pureTests(sources: Sources): string[] {
  const starters = [...sources.keys()].filter((path) =>
    STARTS_PROCESSES.test(sources.get(path) ?? ""),
  );
  const users = Map.groupBy(
    [...sources].flatMap(([path, text]) => importsOf(path, text).filter(({ isType }) => !isType)),
    ({ to }) => to,
  );
  const impure = new Set(starters);
  // A set's iteration goes on to what is added meanwhile.
  for (const path of impure) for (const { from } of users.get(path) ?? []) impure.add(from);
  return [...sources.keys()].filter((path) => path.endsWith(".test.ts") && !impure.has(path));
}
