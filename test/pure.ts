/** Runs the tests that need no service. Arguments go to `bun test`. */
import { pureTests } from "./support/pure-tests.ts";
import { readSources } from "./support/tidy.ts";

const files = pureTests(await readSources("{src,test,bench}/**/*.ts"));
const child = Bun.spawn(
  [process.execPath, "test", "--timeout", "60000", ...Bun.argv.slice(2), ...files],
  { stdio: ["inherit", "inherit", "inherit"] },
);
process.exitCode = await child.exited;
