import { userInfo } from "node:os";

import { UsageError } from "../errors.ts";
import { type Parameters, decode, readParameters } from "./postgres-parameters.ts";

const PORT_DEFAULT = "5432";
const PORT_MAX = 65_535;
const CONNECT_S_DEFAULT = 5;
const ENCODE =
  "in a user or password write % @ : / ? # and spaces percent-encoded (@ is %40, / is %2F)";

/** Host of a URL: `name` is checked against the certificate; `to` is where to connect. */
export type PostgresHost = {
  name: string;
  port: number;
  to: { host: string; port: number } | { path: string };
};

/** PostgreSQL connection settings, read as libpq reads them. */
export type PostgresUrl = Omit<Parameters, "host" | "hostaddr" | "port" | "connectTimeoutS"> & {
  hosts: [PostgresHost, ...PostgresHost[]];
  user: string;
  database: string;
  connectTimeoutS: number;
};

type Authority = Pick<Parameters, "user" | "password"> & { hosts: string[]; ports: string[] };

/**
 * Parses a connection URI with libpq's names and meanings. Throws UsageError with a message that
 * contains none of the URL's values: a mistyped URL may have its password anywhere.
 */
export function parsePostgresUrl(url: string): PostgresUrl {
  const text = url.trim();
  const [scheme = ""] = /^postgres(?:ql)?:\/\//i.exec(text) ?? [];
  if (scheme === "") throw new UsageError("must begin with postgres:// or postgresql://");
  const rest = text.slice(scheme.length);
  if (/[\s\p{Cc}]/u.test(rest))
    throw new UsageError(`has a space or a control character: ${ENCODE}`);
  if (rest.includes("#")) throw new UsageError(`has a "#": ${ENCODE}`);
  const [, before = "", path = "", query = ""] =
    /^([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/.exec(rest) ?? [];
  if (/[@/]/.test(path))
    throw new UsageError(`has a "/" or "@" where the database is named: ${ENCODE}`);
  const authority = readAuthority(before);
  const parameters = readParameters(query);
  const user = parameters.user ?? authority.user ?? osUser();
  const { host, hostaddr, port, ...others } = parameters;
  return {
    ...others,
    hosts: hostsOf(
      { ...authority, ...(host && { hosts: host }), ...(port && { ports: port }) },
      hostaddr,
    ),
    user,
    password: parameters.password ?? authority.password,
    database: parameters.database ?? (decode(path, "database") || user),
    connectTimeoutS: parameters.connectTimeoutS ?? CONNECT_S_DEFAULT,
  };
}

function readAuthority(text: string): Authority {
  const parts = text.split("@");
  if (parts.length > 2) throw new UsageError(`has more than one "@": ${ENCODE}`);
  const [addresses = "", userinfo] = parts.toReversed();
  const list = addresses.split(",").map((address) => {
    const [, v6, name = "", port = ""] =
      /^(?:\[([0-9a-fA-F:.]+(?:%25\w+)?)\]|([^:[\]]*))(?::(\d*))?$/.exec(address) ?? [];
    if (v6 === undefined && name === "" && port === "" && address !== "" && address !== ":")
      throw new UsageError(
        `has an invalid host or port (an IPv6 address stands in brackets). Also, ${ENCODE}`,
      );
    return { host: v6 ?? decode(name, "host"), port };
  });
  const colon = userinfo?.indexOf(":") ?? -1;
  const user = colon === -1 ? userinfo : userinfo?.slice(0, colon);
  const password = colon === -1 ? undefined : userinfo?.slice(colon + 1);
  return {
    hosts: list.map(({ host }) => host),
    ports: list.map(({ port }) => port),
    user: user ? decode(user, "user") : undefined,
    password: password ? decode(password, "password") : undefined,
  };
}

function hostsOf(
  { hosts, ports }: Pick<Authority, "hosts" | "ports">,
  addresses: string[] | undefined,
): PostgresUrl["hosts"] {
  const count = addresses?.length ?? hosts.length;
  if (addresses !== undefined && hosts.length !== count && hosts.join("") !== "")
    throw new UsageError("must have as many hosts as hostaddr");
  if (ports.length !== count && ports.length !== 1)
    throw new UsageError("must have one port, or as many ports as hosts");
  const [first, ...more] = Array.from({ length: count }, (_, nth) => {
    const address = addresses?.[nth] || undefined;
    const name = hosts[nth] || address || "localhost";
    const port = portOf((ports.length === 1 ? ports[0] : ports[nth]) || PORT_DEFAULT);
    const to =
      address === undefined && name.startsWith("/")
        ? { path: `${name.replace(/\/$/, "")}/.s.PGSQL.${port}` }
        : { host: address ?? name, port };
    return { name, port, to };
  });
  if (first === undefined) throw new UsageError("names no host");
  return [first, ...more];
}

function portOf(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port < 1 || port > PORT_MAX)
    throw new UsageError(`has a port that is not a number from 1 to ${PORT_MAX}. Also, ${ENCODE}`);
  return port;
}

function osUser(): string {
  try {
    return userInfo().username;
  } catch (cause) {
    throw new UsageError("names no user, and this process's user has no name", { cause });
  }
}
