/** Result of one push, after all attempts. */
export type Outcome =
  | { kind: "sent" }
  /** The provider knows no such device; APNs may tell since when, in epoch ms. */
  | { kind: "invalid_token"; reason: string; timestamp?: number }
  | { kind: "failed"; reason: string }
  /** Credentials, topic or content are refused persistently: other devices would fail, too. */
  | { kind: "refused"; reason: string };

/** Result of one attempt. */
export type Verdict =
  | Outcome
  /**
   * `limited` tells that too much was sent: to this device, or "unknown" where the provider does
   * not say to whom.
   */
  | { kind: "retry"; reason: string; limited?: "device" | "unknown" }
  /** The credential is no longer valid. */
  | { kind: "renew"; reason: string };
