import { type Queryable } from "../platform/database/database.ts";
import { COLUMNS, type ProjectRecord } from "./stored-segment.ts";

/**
 * Applies the record of a project in a transaction, in whatever order they come: the oldest one says whose the id and the key are, the
 * newest one of that project what it is like. A younger project of another key under the same id, or of another id with the same key, was
 * made while the database was lost, like the demo project: it gives way. True when the record gave way, or something to it.
 */
export async function mergeProject(sql: Queryable, record: ProjectRecord): Promise<boolean> {
  const { id, project_key: key, created_at: createdAt } = record;
  // One at a time: of two that come at once, the one that had to wait could be the older. Reading goes on.
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
  // New ones must not get an id that is taken again.
  await sql`
    select setval(pg_get_serial_sequence('projects', 'id'),
      greatest((select last_value from projects_id_seq), (select max(id) from projects)))`;
  return rivals.length > 0;
}
