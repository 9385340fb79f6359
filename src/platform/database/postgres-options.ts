import { passwordFor } from "./postgres-passfile.ts";
import { type PostgresHost, type PostgresUrl } from "../config/postgres-url.ts";

const APPLICATION = "floodgate";
const LIFETIME_S_MIN = 1800;

/**
 * Returns the driver's options. Sets all of them explicitly, because the driver would take the rest
 * from PG* environment variables.
 */
export function driverOptions(url: PostgresUrl, host: () => PostgresHost) {
  const { connectTimeoutS } = url;
  return {
    // Used in messages only: connections are made outside of the driver.
    path: url.hosts.map(({ name, port }) => `${name}:${port}`).join(", "),
    // Not empty: the driver would take it from PGHOST.
    host: "-",
    port: 0,
    user: url.user,
    password: () => passwordFor(url, host()),
    database: url.database,
    ssl: false,
    sslnegotiation: null,
    target_session_attrs: undefined,
    connect_timeout: Number.isFinite(connectTimeoutS) ? connectTimeoutS : 0,
    idle_timeout: 0,
    max_lifetime: LIFETIME_S_MIN * (1 + Math.random()),
    // Shorter than the driver's own backoff of up to 20 s: requests would time out even after a
    // short outage.
    backoff: () => 0.1 + Math.random() * 0.4,
    keep_alive: 60,
    fetch_types: true,
    debug: false,
    publications: "alltables",
    // Transaction pooling: the next statement may run in another session, so prepared statements
    // and pipelining are off.
    prepare: !url.isPooled,
    max_pipeline: url.isPooled ? 0 : 100,
    connection: { application_name: APPLICATION, ...url.session },
    onnotice: () => undefined,
  };
}
