import { readdir } from "node:fs/promises";
import { join } from "node:path";

import { type Queryable, type Sql } from "./database.ts";
import { UsageError } from "../errors.ts";

const FOLDER = join(import.meta.dir, "../../../sql");
// Number that no other program uses; processes that migrate at the same time wait for one another.
const ADVISORY_LOCK = 7_286_977_268;

/** Applies new sql/NNNN_what.sql files in order, in one transaction. Returns their names. */
export async function migrate(sql: Sql, folder = FOLDER): Promise<string[]> {
  const files = (await readdir(folder)).filter((name) => name.endsWith(".sql")).toSorted();
  for (const [index, name] of files.entries())
    if (Number(name.slice(0, 4)) !== index + 1 || name[4] !== "_")
      throw new Error(`sql/${name} breaks the numbering: expected ${index + 1}`);

  return await sql.begin(async (tx) => {
    await tx`select pg_advisory_xact_lock(${ADVISORY_LOCK})`;
    await tx`create table if not exists migrations (
      name text primary key, checksum text not null, applied_at timestamptz not null default now())`;
    const applied = new Map(
      (await tx<{ name: string; checksum: string }[]>`select name, checksum from migrations`).map(
        (row) => [row.name, row.checksum],
      ),
    );
    const fresh: string[] = [];
    for (const name of files) if (await apply(tx, folder, name, applied)) fresh.push(name);
    return fresh;
  });
}

async function apply(tx: Queryable, folder: string, name: string, applied: Map<string, string>) {
  const text = await Bun.file(join(folder, name)).text();
  const checksum = new Bun.CryptoHasher("sha256").update(text).digest("hex");
  const known = applied.get(name);
  if (known === checksum) return false;
  if (known !== undefined)
    throw new UsageError(`sql/${name} was changed after it had been applied to this database`);
  await tx.unsafe(text);
  await tx`insert into migrations (name, checksum) values (${name}, ${checksum})`;
  return true;
}
