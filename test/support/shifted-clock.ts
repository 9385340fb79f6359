import { needPrograms } from "./packages.ts";

const NEED = {
  programs: ["faketime"],
  packages: ["faketime"],
  otherwise: "The tests need libfaketime: install faketime",
};

/**
 * Returns the environment (libfaketime) that shifts a process's wall clock, but not its monotonic
 * clock.
 */
export async function shiftedClock(seconds: number): Promise<Record<string, string>> {
  await needPrograms(NEED);
  const [library] = [
    ...new Bun.Glob("/usr/lib/*/faketime/libfaketime.so.1").scanSync({ absolute: true }),
  ];
  if (library === undefined) throw new Error("libfaketime is not where Debian has it");
  return {
    LD_PRELOAD: library,
    FAKETIME: `${seconds < 0 ? "" : "+"}${seconds}s`,
    FAKETIME_DONT_FAKE_MONOTONIC: "1",
  };
}
