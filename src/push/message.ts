import { createHash } from "node:crypto";

/** What a campaign says. */
export type Campaign = {
  uuid: string;
  launch: number;
  title: string;
  body: string;
  imageUrl: string | null;
  iconUrl: string | null;
  deepLink: string | null;
};

/** A provider's part of a message, made once for all devices; `problem` when no device can be sent it. */
type Part = { body: string; problem: string | undefined };

export type PreparedMessage = {
  collapseId: string;
  /** When the providers stop trying, in epoch seconds. */
  expiresS: number;
  apns: { body: Buffer; problem: string | undefined };
  /** The request's body after the token, by device platform. */
  fcm: { android: Part; ios: Part; web: Part };
};

const TTL_S = 7 * 24 * 3600;
/** The limit of both providers. */
const PAYLOAD_BYTES_MAX = 4096;
const TOPIC_LENGTH = 32;

export function prepareMessage(campaign: Campaign, nowMs: number): PreparedMessage {
  // A launch that is sent twice shows once; a second launch is another message.
  const collapseId = `${campaign.uuid}-${campaign.launch}`;
  const expiresS = Math.floor(nowMs / 1000) + TTL_S;
  const context = { campaign, collapseId, expiresS, data: dataOf(campaign) };
  const apns = JSON.stringify(apnsPayload(context));
  return {
    collapseId,
    expiresS,
    apns: { body: Buffer.from(apns), problem: problemOf("APNs", apns) },
    fcm: {
      android: fcmPart(context, { android: androidBlock(context) }),
      ios: fcmPart(context, { apns: apnsBlock(context) }),
      web: fcmPart(context, { webpush: webBlock(context) }),
    },
  };
}

type Context = {
  campaign: Campaign;
  collapseId: string;
  expiresS: number;
  data: Record<string, string>;
};

function dataOf({ uuid, deepLink, imageUrl, iconUrl }: Campaign): Record<string, string> {
  return {
    notification_uuid: uuid,
    ...(deepLink && { deep_link: deepLink }),
    ...(imageUrl && { image_url: imageUrl }),
    ...(iconUrl && { icon_url: iconUrl }),
  };
}

function apnsPayload({ campaign: { title, body, imageUrl }, data }: Context) {
  const aps = {
    alert: { title, body },
    sound: "default",
    // Lets the app's extension fetch the image before the alert is shown.
    ...(imageUrl && { "mutable-content": 1 }),
  };
  return { aps, ...data };
}

function fcmPart(context: Context, block: object): Part {
  const { title, body, imageUrl } = context.campaign;
  const notification = { title, body, ...(imageUrl && { image: imageUrl }) };
  const shared = { notification, data: context.data };
  const json = JSON.stringify({ ...shared, ...block });
  // Goes behind `{"message":{"token":"…",`.
  return {
    body: `${json.slice(1)}}`,
    problem: problemOf("FCM", JSON.stringify(shared)),
  };
}

function androidBlock({ collapseId }: Context) {
  return {
    collapse_key: collapseId,
    priority: "HIGH",
    ttl: `${TTL_S}s`,
    notification: { tag: collapseId, sound: "default" },
  };
}

/** For iOS devices that are reached through FCM, which makes the alert of the notification and the other keys of the data. */
function apnsBlock({ campaign: { imageUrl }, collapseId, expiresS }: Context) {
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

function webBlock({ campaign: { iconUrl, imageUrl, deepLink }, collapseId }: Context) {
  // A browser's topic is short and has few characters.
  const topic = createHash("sha256").update(collapseId).digest("base64url").slice(0, TOPIC_LENGTH);
  return {
    headers: { TTL: String(TTL_S), Topic: topic, Urgency: "high" },
    notification: {
      tag: collapseId,
      ...(iconUrl && { icon: iconUrl }),
      ...(imageUrl && { image: imageUrl }),
    },
    // FCM takes no other links here; the data has them all.
    ...(deepLink?.startsWith("https://") && { fcm_options: { link: deepLink } }),
  };
}

function problemOf(provider: string, payload: string): string | undefined {
  const bytes = Buffer.byteLength(payload);
  if (bytes <= PAYLOAD_BYTES_MAX) return undefined;
  return `the message takes ${bytes} bytes, more than the ${PAYLOAD_BYTES_MAX} that ${provider} takes`;
}
