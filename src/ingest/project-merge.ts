import { type Queryable } from "../platform/database.ts";
import { type ProjectRecord } from "./stored-segment.ts";

/**
 * Applies the record of a project, in whatever order they come: the oldest one says whose the id and the key are, the newest one of that
 * project what it is like. A younger project of another key under the same id, or of another id with the same key, was made while the
 * database was lost, like the demo project: it gives way. True when the record gave way, or something to it.
 */
export async function mergeProject(sql: Queryable, record: ProjectRecord): Promise<boolean> {
  const { id, project_key: key, created_at: createdAt, changed_at: changedAt } = record;
  const rivals = await sql<{ id: number; older: boolean }[]>`
    select id, created_at <= ${createdAt} as older from projects
    where (id = ${id} or project_key = ${key}) and not (id = ${id} and project_key = ${key})
    for update`;
  if (rivals.some(({ older }) => older)) return true;
  await sql`delete from projects where id = any(${rivals.map((rival) => rival.id)})`;

  // The row of the newest record, whatever columns there are.
  const [replaced] = await sql<{ createdAt: Date }[]>`
    delete from projects where id = ${id} and changed_at < ${changedAt} returning created_at as "createdAt"`;
  await sql`
    insert into projects select * from jsonb_populate_recordset(null::projects, ${JSON.stringify([record])}::text::jsonb)
    on conflict (id) do nothing`;
  await sql`
    update projects set created_at = least(created_at, ${replaced?.createdAt ?? createdAt}, ${createdAt}) where id = ${id}`;
  // New ones must not get an id that is taken again.
  await sql`
    select setval(pg_get_serial_sequence('projects', 'id'),
      greatest((select last_value from projects_id_seq), (select max(id) from projects)))`;
  return rivals.length > 0;
}
