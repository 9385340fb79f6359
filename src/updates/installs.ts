import { type Sql } from "../platform/database/database.ts";
import { type Install } from "./install-schema.ts";

const PAGE_ROWS = 1000;

/** Stores clients' reports of themselves: one row for each session on a device. */
export class Installs {
  readonly #sql: Sql;

  constructor(sql: Sql) {
    this.#sql = sql;
  }

  /**
   * Stores a client's report, and counts its build if the session reports it for the first time.
   * Resolves to the row's id. Calls `admit`, which may throw, before it creates a row.
   */
  async report(install: Install, admit: () => void): Promise<bigint> {
    const known = await upsert(this.#sql, install, { mayAdd: false });
    if (known !== undefined) return known;
    admit();
    // If another report inserts the row at the same time, the first attempt inserts nothing and the
    // second one finds the row.
    const mayAdd = true;
    const id =
      (await upsert(this.#sql, install, { mayAdd })) ??
      (await upsert(this.#sql, install, { mayAdd }));
    if (id === undefined) throw new Error("an install can neither be found nor be inserted");
    return id;
  }

  /** Yields pages in the order of ids; a slow reader holds neither a connection nor a statement. */
  async *list(after: bigint, limit = Number.POSITIVE_INFINITY): AsyncGenerator<Install[]> {
    let last = after;
    for (let left = limit; left > 0; left -= PAGE_ROWS) {
      const rows = await selectPage(this.#sql, last, Math.min(left, PAGE_ROWS));
      if (rows.length > 0) yield rows;
      if (rows.length < PAGE_ROWS) return;
      last = rows.at(-1)?.ID ?? last;
    }
  }
}

/**
 * Updates the row, or inserts it with `mayAdd`; returns its id. One statement, so one transaction:
 * it locks the row first, then that of its build. The model stays as it was first reported.
 */
async function upsert(
  sql: Sql,
  install: Install,
  { mayAdd }: { mayAdd: boolean },
): Promise<bigint | undefined> {
  const [row] = await sql<{ id: bigint }[]>`
    with known as (
      select id, app_version from users
      where session_id = ${install.SessionID} and device_mac = ${install.DeviceMac} for update
    ), changed as (
      update users set app_locale = ${install.AppLocale}, app_version = ${install.AppVersion},
        device_locale = ${install.DeviceLocale}, device_sdk = ${install.DeviceSDK},
        session_activity = ${install.SessionActivity}, session_register = ${install.SessionRegister},
        tg_version = ${install.TgVersion}, target_abi = ${install.TargetABI}
      from known where users.id = known.id returning users.id
    ), added as (
      insert into users (app_locale, app_version, device_locale, device_mac, device_model, device_sdk,
        session_activity, session_id, session_register, tg_version, target_abi)
      select ${install.AppLocale}, ${install.AppVersion}, ${install.DeviceLocale}, ${install.DeviceMac},
        ${install.DeviceModel}, ${install.DeviceSDK}, ${install.SessionActivity}, ${install.SessionID},
        ${install.SessionRegister}, ${install.TgVersion}, ${install.TargetABI}
      where ${mayAdd} and not exists (select from known)
      on conflict (session_id, device_mac) do nothing returning id
    ), counted as (
      update builds set uploads = uploads + 1
      where version = ${install.AppVersion} and target_abi = ${install.TargetABI}
        and (exists (select from added) or exists (select from known where app_version <> ${install.AppVersion}))
    )
    select id from changed union all select id from added`;
  return row?.id;
}

async function selectPage(sql: Sql, after: bigint, limit: number): Promise<Install[]> {
  return await sql<Install[]>`
    select id as "ID", app_locale as "AppLocale", app_version as "AppVersion", device_locale as "DeviceLocale",
      device_mac as "DeviceMac", device_model as "DeviceModel", device_sdk as "DeviceSDK",
      session_activity as "SessionActivity", session_id as "SessionID", session_register as "SessionRegister",
      tg_version as "TgVersion", target_abi as "TargetABI"
    from users where id > ${after} order by id limit ${limit}`;
}
