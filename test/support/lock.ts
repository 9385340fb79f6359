import { Database, SQLiteError } from "bun:sqlite";

/**
 * Lets one process at a time do the work. SQLite's lock is one of the kernel, which ends with the
 * process that holds it.
 */
export async function locked<T>(path: string, work: () => Promise<T>): Promise<T> {
  using lock = new Database(path);
  for (;;)
    try {
      lock.run("begin exclusive");
      break;
    } catch (error) {
      if (!(error instanceof SQLiteError) || error.code !== "SQLITE_BUSY") throw error;
      await Bun.sleep(50);
    }
  return await work();
}
