import { type InternalRoute } from "elysia";

/** Who calls a route. */
export type Audience = "sdk" | "app" | "backend" | "publisher" | "operator";

/** Security schemes of `/docs`. */
export type Credential = "session" | "user" | "serverKey" | "signature";

/** What a slice says of its routes where it mounts them. Everything that the edge decides follows from it. */
export type Policy = {
  audience: Audience;
  /** Heading of the routes in `/docs`. */
  tag: string;
  /** Renders the errors of the routes, and of unknown paths below them. */
  errors: (error: unknown) => Response;
  /** What callers must show, where it does not follow from the audience. */
  credential?: Credential;
  /** Their 200 says that data is durable: its latency is measured under this label. */
  acknowledges?: "batch" | "images";
  /** A trailing slash makes another path, and HEAD is not answered. */
  exactPath?: boolean;
  /** Request headers that pages may send in addition to those that the audience always may. */
  headers?: readonly string[];
  /** Text of the refusal of a caller without a server key. */
  keyRefusal?: string;
};

type Traits = {
  /** Pages that may call: of any origin, or of CORS_ORIGINS. */
  origins: "any" | "configured";
  /** Anybody can call: requests are bounded, and counted by client address. */
  isOpen: boolean;
  /** A server key is required; its owner's requests are logged one and all. */
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

/** Returns a policy for any origin if there is one, or else the first. */
export function widest(policies: Policy[]): Policy {
  const isAny = (policy: Policy) => traitsOf(policy).origins === "any";
  const found = policies.find(isAny) ?? policies[0];
  if (found === undefined) throw new Error("there is no policy to choose from");
  return found;
}
