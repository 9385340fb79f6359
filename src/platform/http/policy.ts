import { type InternalRoute } from "elysia";

/** Kinds of callers of a route. */
export type Audience = "sdk" | "app" | "backend" | "publisher" | "operator";

/** Security schemes of `/docs`. */
export type Credential = "session" | "user" | "serverKey" | "signature";

/**
 * Rules that a slice states where it mounts its routes. Everything that the edge decides follows
 * from them.
 */
export type Policy = {
  audience: Audience;
  /** Heading of the routes in `/docs`. */
  tag: string;
  /** Renders the errors of the routes, and of unknown paths below them. */
  errors: (error: unknown) => Response;
  /**
   * Credential that `/docs` names, unless it follows from the audience. Server keys are checked
   * here; tokens and signatures are checked by the handlers.
   */
  credential?: Credential;
  /** Set if a 200 says that data is durable: its latency is measured under this label. */
  acknowledges?: "batch" | "images";
  /** Set if a trailing slash makes another path and HEAD is not answered. */
  exactPath?: boolean;
  /**
   * Set if the handlers use only the request, without parameters in the path, hooks or schemas of
   * Elysia: they are called without its pipeline, which takes as long as the rest of a small request.
   */
  bare?: boolean;
  /** Request headers that web pages may send in addition to those of the audience. */
  headers?: readonly string[];
  /** Error text for callers without a valid server key, instead of the usual ones. */
  keyRefusal?: string;
};

type Traits = {
  /** Origins whose web pages may call: any, or those in CORS_ORIGINS. */
  origins: "any" | "configured";
  /** Set if anybody can call: requests are bounded, and counted by client address. */
  isOpen: boolean;
  /** Set if a server key is required. Requests that succeed with one are all logged. */
  isKeyed: boolean;
  credential?: Credential;
  headers: string[];
};

/** Request headers with which a client resumes a download or revalidates a cached file. */
export const CONDITIONAL_HEADERS = [
  "range",
  "if-range",
  "if-match",
  "if-none-match",
  "if-modified-since",
  "if-unmodified-since",
];

const INSIDE = ["x-server-key", ...CONDITIONAL_HEADERS];

const TRAITS: Record<Audience, Traits> = {
  sdk: {
    origins: "any",
    isOpen: true,
    isKeyed: false,
    headers: ["authorization", "content-encoding", "datatype", "x-openreplay-batch"],
  },
  app: { origins: "any", isOpen: true, isKeyed: false, headers: [] },
  publisher: {
    origins: "configured",
    isOpen: true,
    isKeyed: false,
    credential: "signature",
    headers: ["signature"],
  },
  backend: {
    origins: "configured",
    isOpen: false,
    isKeyed: true,
    credential: "serverKey",
    headers: INSIDE,
  },
  operator: { origins: "configured", isOpen: false, isKeyed: false, headers: INSIDE },
};

/** Key of the policy in a route's `detail`, and so in `/docs/json`. */
const DETAIL = "x-policy";

/** Makes the options of an Elysia instance whose routes have the policy. */
export function mount(policy: Policy) {
  const credential = policy.credential ?? traitsOf(policy).credential;
  return {
    detail: {
      tags: [policy.tag],
      security: credential === undefined ? [] : [{ [credential]: [] }],
      // A list, because Elysia merges objects of nested instances, and replaces lists.
      [DETAIL]: [policy],
    },
  };
}

/** Returns the policy that a route was mounted with. Throws if there is none. */
export function policyOf({
  method,
  path,
  hooks,
}: Pick<InternalRoute, "method" | "path" | "hooks">): Policy {
  const { [DETAIL]: [policy] = [] }: { [DETAIL]?: Policy[] } = hooks.detail ?? {};
  if (policy === undefined) throw new Error(`nothing says who calls ${method} ${path}`);
  return policy;
}

export function traitsOf({ audience }: Policy): Traits {
  return TRAITS[audience];
}

/** Returns the first policy that allows any origin, or else the first policy. */
export function widest(policies: Policy[]): Policy {
  const isAny = (policy: Policy) => traitsOf(policy).origins === "any";
  const found = policies.find(isAny) ?? policies[0];
  if (found === undefined) throw new Error("there is no policy to choose from");
  return found;
}
