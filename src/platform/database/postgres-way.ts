import { type Socket } from "node:net";
import postgres from "postgres";

import { DialError, type Dialled, type Encryption, dial } from "./postgres-dial.ts";
import { driverOptions } from "./postgres-options.ts";
import { type SessionAttrs } from "../config/postgres-parameters.ts";
import { type PostgresHost, type PostgresUrl } from "../config/postgres-url.ts";

/** The host to connect to, and whether with TLS. */
export type Way = { host: PostgresHost; encryption: Encryption };

type State = { recovery: boolean; readOnly: boolean };

const FITS: Record<SessionAttrs, (state: State) => boolean> = {
  any: () => true,
  "read-write": ({ readOnly }) => !readOnly,
  "read-only": ({ readOnly }) => readOnly,
  primary: ({ recovery }) => !recovery,
  standby: ({ recovery }) => recovery,
  "prefer-standby": ({ recovery }) => recovery,
};
// Code of a server without a pg_hba.conf entry for this host, user and kind of connection.
const NO_ENTRY = "28000";

/**
 * Connects to the first host that answers and is of the requested kind. Remembers it until a
 * connection to it fails or `forget` is called.
 */
export class Ways {
  readonly #url: PostgresUrl;
  /** Host of the last connection. */
  host: PostgresHost;
  #found: Promise<Way> | undefined;
  /** Hosts that offer TLS but then refuse encrypted sessions. */
  readonly #plain = new Set<PostgresHost>();

  constructor(url: PostgresUrl) {
    this.#url = url;
    [this.host] = url.hosts;
  }

  /** Makes the next connection look for a host again. */
  forget(): void {
    this.#found = undefined;
    this.#plain.clear();
  }

  /** Returns a connected socket. Throws DialError, or the server's refusal of the session. */
  async connect(): Promise<Socket> {
    const known = this.#found;
    try {
      return await this.#follow(await this.#find());
    } catch (error) {
      this.#found = undefined;
      // The primary may have moved to another of the hosts.
      if (known === undefined || this.#isOnlyOne()) throw error;
      return await this.#follow(await this.#find());
    }
  }

  async #follow(way: Way): Promise<Socket> {
    const { host } = way;
    this.host = host;
    const isRefused = this.#plain.has(host);
    const { socket, isEncrypted } = await this.#dial(
      isRefused ? { host, encryption: "never" } : way,
    );
    if (way.encryption !== "ask" || !isEncrypted) return socket;
    // An offer of TLS does not mean that the session is allowed; libpq then retries without TLS.
    try {
      if (await this.#isAllowed({ host, encryption: "always" })) {
        way.encryption = "always";
        return socket;
      }
    } catch (error) {
      socket.destroy();
      throw error;
    }
    socket.destroy();
    this.#plain.add(host);
    return await this.#follow(way);
  }

  #isOnlyOne(): boolean {
    const { hosts, sessionAttrs, tls } = this.#url;
    return hosts.length === 1 && sessionAttrs === "any" && tls.mode !== "allow";
  }

  async #find(): Promise<Way> {
    this.#found ??= this.#search();
    return await this.#found;
  }

  async #search(): Promise<Way> {
    const { hosts, sessionAttrs, tls } = this.#url;
    const [first] = hosts;
    const [encryption, otherwise] = ENCRYPTIONS[tls.mode];
    if (this.#isOnlyOne()) return { host: first, encryption };
    const kinds: SessionAttrs[] =
      sessionAttrs === "prefer-standby" ? [sessionAttrs, "any"] : [sessionAttrs];
    let failure: unknown;
    for (const kind of kinds)
      for (const host of hosts)
        try {
          const way = await this.#firstOf(host, encryption, otherwise, kind);
          if (way !== undefined) return way;
          failure ??= new DialError("CONNECT_ATTRS", `no host of DATABASE_URL is ${sessionAttrs}`);
        } catch (error) {
          failure = error;
          // Give up, as libpq does: a wrong password is wrong on every host.
          if (error instanceof postgres.PostgresError && error.code.startsWith("28")) throw error;
        }
    throw failure;
  }

  /** Returns undefined if the host is not of the requested kind. */
  async #firstOf(
    host: PostgresHost,
    encryption: Encryption,
    otherwise: Encryption | undefined,
    kind: SessionAttrs,
  ): Promise<Way | undefined> {
    try {
      const way = { host, encryption };
      return FITS[kind](await this.#ask(way)) ? way : undefined;
    } catch (error) {
      if (otherwise === undefined || !isAboutTls(error)) throw error;
      return await this.#firstOf(host, otherwise, undefined, kind);
    }
  }

  async #isAllowed(way: Way): Promise<boolean> {
    try {
      await this.#ask(way);
      return true;
    } catch (error) {
      if (isAboutTls(error)) return false;
      throw error;
    }
  }

  /** Opens a short session to find out the host's state. */
  async #ask(way: Way): Promise<State> {
    // A separate constant, because the driver's types do not know `socket`.
    const options = {
      ...driverOptions(this.#url, () => way.host),
      max: 1,
      fetch_types: false,
      socket: async () => (await this.#dial(way)).socket,
    };
    const sql = postgres(options);
    try {
      const [state] = await sql<[State]>`
        select pg_is_in_recovery() as recovery, current_setting('transaction_read_only') = 'on' as "readOnly"`;
      return state;
    } finally {
      await sql.end({ timeout: 1 });
    }
  }

  async #dial({ host, encryption }: Way): Promise<Dialled> {
    const { tls, connectTimeoutS: timeoutS } = this.#url;
    return await dial(host, { encryption, tls, timeoutS });
  }
}

const ENCRYPTIONS: Record<PostgresUrl["tls"]["mode"], [Encryption, Encryption?]> = {
  disable: ["never"],
  allow: ["never", "always"],
  prefer: ["ask", "never"],
  require: ["always"],
  "verify-ca": ["always"],
  "verify-full": ["always"],
};

function isAboutTls(error: unknown): boolean {
  return error instanceof postgres.PostgresError
    ? error.code === NO_ENTRY
    : error instanceof DialError && error.code === "CONNECT_TLS";
}
