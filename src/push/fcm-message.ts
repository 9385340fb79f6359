import { createHash } from "node:crypto";

import { type SharedMessage, TTL_S, sizeProblem } from "./message.ts";

/** Body of a request after its token; `problem` is set if FCM would refuse it for every device. */
export type FcmBody = { body: string; problem: string | undefined };

const TOPIC_LENGTH = 32;

/** Builds a message in the forms of FCM's three device platforms. */
export function fcmBodies(shared: SharedMessage): { android: FcmBody; ios: FcmBody; web: FcmBody } {
  return {
    android: fcmBody(shared, { android: androidBlock(shared) }),
    ios: fcmBody(shared, { apns: apnsBlock(shared) }),
    web: fcmBody(shared, { webpush: webBlock(shared) }),
  };
}

function fcmBody({ message, data }: SharedMessage, block: object): FcmBody {
  const { title, body, imageUrl } = message;
  const notification = { title, body, ...(imageUrl && { image: imageUrl }) };
  const common = { notification, data };
  const json = JSON.stringify({ ...common, ...block });
  // Continues `{"message":{"token":"…",`.
  return { body: `${json.slice(1)}}`, problem: sizeProblem("FCM", JSON.stringify(common)) };
}

function androidBlock({ collapseId }: SharedMessage) {
  return {
    collapse_key: collapseId,
    priority: "HIGH",
    ttl: `${TTL_S}s`,
    notification: { tag: collapseId, sound: "default" },
  };
}

/**
 * Builds the block for iOS devices that are reached through FCM, which itself adds the alert and
 * the data.
 */
function apnsBlock({ message: { imageUrl }, collapseId, expiresS }: SharedMessage) {
  return {
    headers: {
      "apns-collapse-id": collapseId,
      "apns-expiration": String(expiresS),
      "apns-priority": "10",
      "apns-push-type": "alert",
    },
    payload: { aps: { sound: "default", ...(imageUrl && { "mutable-content": 1 }) } },
    ...(imageUrl && { fcm_options: { image: imageUrl } }),
  };
}

function webBlock({ message: { iconUrl, imageUrl, deepLink }, collapseId }: SharedMessage) {
  // Browsers limit the length and the characters of a topic.
  const topic = createHash("sha256").update(collapseId).digest("base64url").slice(0, TOPIC_LENGTH);
  return {
    headers: { TTL: String(TTL_S), Topic: topic, Urgency: "high" },
    notification: {
      tag: collapseId,
      ...(iconUrl && { icon: iconUrl }),
      ...(imageUrl && { image: imageUrl }),
    },
    // FCM accepts only https links here; the data holds links of any scheme.
    ...(deepLink?.startsWith("https://") && { fcm_options: { link: deepLink } }),
  };
}
