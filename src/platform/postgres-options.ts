import { passwordFor } from "./postgres-passfile.ts";
import { type PostgresHost, type PostgresUrl } from "./postgres-url.ts";

const APPLICATION = "floodgate";
const LIFETIME_S_MIN = 1800;

/** What the driver is told of an address. Everything that it would else take from PG variables of the environment is said. */
export function driverOptions(url: PostgresUrl, host: () => PostgresHost) {
  const { connectTimeoutS } = url;
  return {
    // Only for messages: connections are made for the driver.
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
    // The driver's own waits grow to 20 s, longer than a request waits: a short outage would still fail what comes after it.
    backoff: () => 0.1 + Math.random() * 0.4,
    keep_alive: 60,
    fetch_types: true,
    debug: false,
    publications: "alltables",
    // Where a statement may meet another session than the one before, none is prepared, and none is sent before the last one is answered.
    prepare: !url.isPooled,
    max_pipeline: url.isPooled ? 0 : 100,
    connection: { application_name: APPLICATION, ...url.session },
    onnotice: () => undefined,
  };
}
