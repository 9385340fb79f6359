import { type Queryable } from "../platform/database/database.ts";
import { COLUMNS, type ProjectRecord } from "./stored-segment.ts";

/**
 * Applies the record of a project in a transaction; records may come in any order. The oldest
 * record owns the id and the key, and the newest one of that project has its settings. A younger
 * project with the same id and another key, or the same key and another id, was made while the
 * database was lost, like the demo project: it is deleted. Returns whether there were two such
 * projects.
 */
export async function mergeProject(sql: Queryable, record: ProjectRecord): Promise<boolean> {
  const { id, project_key: key, created_at: createdAt } = record;
  // One record at a time: of two concurrent ones the second could be the older. Reads are not blocked.
  await sql`lock table projects in share row exclusive mode`;
  const rivals = await sql<{ id: number; older: boolean }[]>`
    select id, created_at <= ${createdAt} as older from projects
    where (id = ${id} or project_key = ${key}) and not (id = ${id} and project_key = ${key})`;
  if (rivals.some(({ older }) => older)) return true;
  await sql`delete from projects where id = any(${rivals.map((rival) => rival.id)})`;

  const columns = sql.unsafe(COLUMNS.project);
  await sql`
    with record as (
      select * from jsonb_populate_record(null::projects, ${JSON.stringify(record)}::text::jsonb)
    )
    insert into projects (created_at, ${columns}) select created_at, ${columns} from record
    on conflict (id) do update set (${columns}) = (select ${columns} from record) where projects.changed_at < excluded.changed_at`;
  await sql`
    update projects set created_at = ${createdAt} where id = ${id} and created_at > ${createdAt}`;
  // A new project must not get an id that is in use again.
  await sql`
    select setval(pg_get_serial_sequence('projects', 'id'),
      greatest((select last_value from projects_id_seq), (select max(id) from projects)))`;
  return rivals.length > 0;
}
