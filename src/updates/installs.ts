import { type Sql } from "../platform/database/database.ts";
import { type User } from "./install-schema.ts";

const PAGE_ROWS = 1000;

/** Clients as they report themselves: one row for each session on a device. */
export class Users {
  readonly #sql: Sql;

  constructor(sql: Sql) {
    this.#sql = sql;
  }

  /**
   * Stores a client's report, and counts its build if the session reports it for the first time.
   * Resolves to the row's id. Calls `admit`, which may throw, before it creates a row.
   */
  async report(user: User, admit: () => void): Promise<bigint> {
    const known = await upsert(this.#sql, user, { mayAdd: false });
    if (known !== undefined) return known;
    admit();
    // The first attempt keeps nothing when the row is made by another report at the same time; the second one finds it.
    const mayAdd = true;
    const id =
      (await upsert(this.#sql, user, { mayAdd })) ?? (await upsert(this.#sql, user, { mayAdd }));
    if (id === undefined) throw new Error("a user can neither be found nor be made");
    return id;
  }

  /** In the order of ids, a page at a time: a slow reader holds neither a connection nor a statement. */
  async *list(after: bigint, limit = Number.POSITIVE_INFINITY): AsyncGenerator<User[]> {
    let last = after;
    for (let left = limit; left > 0; left -= PAGE_ROWS) {
      const rows = await selectPage(this.#sql, last, Math.min(left, PAGE_ROWS));
      if (rows.length > 0) yield rows;
      if (rows.length < PAGE_ROWS) return;
      last = rows.at(-1)?.ID ?? last;
    }
  }
}

/** One statement, so one transaction: the user's row is locked first, then its build's. The model is kept as it was first reported. */
async function upsert(
  sql: Sql,
  user: User,
  { mayAdd }: { mayAdd: boolean },
): Promise<bigint | undefined> {
  const [row] = await sql<{ id: bigint }[]>`
    with known as (
      select id, app_version from users
      where session_id = ${user.SessionID} and device_mac = ${user.DeviceMac} for update
    ), changed as (
      update users set app_locale = ${user.AppLocale}, app_version = ${user.AppVersion},
        device_locale = ${user.DeviceLocale}, device_sdk = ${user.DeviceSDK},
        session_activity = ${user.SessionActivity}, session_register = ${user.SessionRegister},
        tg_version = ${user.TgVersion}, target_abi = ${user.TargetABI}
      from known where users.id = known.id returning users.id
    ), added as (
      insert into users (app_locale, app_version, device_locale, device_mac, device_model, device_sdk,
        session_activity, session_id, session_register, tg_version, target_abi)
      select ${user.AppLocale}, ${user.AppVersion}, ${user.DeviceLocale}, ${user.DeviceMac},
        ${user.DeviceModel}, ${user.DeviceSDK}, ${user.SessionActivity}, ${user.SessionID},
        ${user.SessionRegister}, ${user.TgVersion}, ${user.TargetABI}
      where ${mayAdd} and not exists (select from known)
      on conflict (session_id, device_mac) do nothing returning id
    ), counted as (
      update builds set uploads = uploads + 1
      where version = ${user.AppVersion} and target_abi = ${user.TargetABI}
        and (exists (select from added) or exists (select from known where app_version <> ${user.AppVersion}))
    )
    select id from changed union all select id from added`;
  return row?.id;
}

async function selectPage(sql: Sql, after: bigint, limit: number): Promise<User[]> {
  return await sql<User[]>`
    select id as "ID", app_locale as "AppLocale", app_version as "AppVersion", device_locale as "DeviceLocale",
      device_mac as "DeviceMac", device_model as "DeviceModel", device_sdk as "DeviceSDK",
      session_activity as "SessionActivity", session_id as "SessionID", session_register as "SessionRegister",
      tg_version as "TgVersion", target_abi as "TargetABI"
    from users where id > ${after} order by id limit ${limit}`;
}
