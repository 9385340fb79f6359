import { join } from "node:path";

/**
 * Entry file of the program that tests start: the source, or for a run of all tests a bundle of it,
 * because reading more than a thousand modules costs each process half a second of CPU.
 */
export const MAIN = process.env["TEST_PROGRAM"] ?? join(import.meta.dir, "../../src/main.ts");

// At the depth of the source's own folders, and where its packages are found.
const FOLDER = join(import.meta.dir, "../../node_modules/.cache/floodgate");

/** Bundles the program, and has all processes of this run start the bundle. */
export async function bundleProgram(): Promise<void> {
  const { outputs } = await Bun.build({
    entrypoints: [MAIN],
    outdir: FOLDER,
    target: "bun",
    splitting: true,
    sourcemap: "linked",
  });
  const main = outputs.find(({ kind }) => kind === "entry-point");
  if (main === undefined) throw new Error("the program was not bundled");
  process.env["TEST_PROGRAM"] = main.path;
}
