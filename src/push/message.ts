/** Content of one launch of a campaign. */
export type CampaignMessage = {
  uuid: string;
  launch: number;
  title: string;
  body: string;
  imageUrl: string | null;
  iconUrl: string | null;
  deepLink: string | null;
};

/** A message with the values that every provider sends along. */
export type SharedMessage = {
  message: CampaignMessage;
  /** Lets a device show a launch once that is sent to it twice; every launch has its own. */
  collapseId: string;
  /** Time at which providers stop trying, in epoch seconds. */
  expiresS: number;
  data: Record<string, string>;
};

/** Seconds for which providers keep trying. */
export const TTL_S = 7 * 24 * 3600;

/** Limit of FCM and of APNs. */
const PAYLOAD_BYTES_MAX = 4096;

export function shareMessage(message: CampaignMessage, nowMs: number): SharedMessage {
  const { uuid, launch, deepLink, imageUrl, iconUrl } = message;
  return {
    message,
    collapseId: `${uuid}-${launch}`,
    expiresS: Math.floor(nowMs / 1000) + TTL_S,
    data: {
      notification_uuid: uuid,
      ...(deepLink && { deep_link: deepLink }),
      ...(imageUrl && { image_url: imageUrl }),
      ...(iconUrl && { icon_url: iconUrl }),
    },
  };
}

/** Returns why a provider would refuse the payload for its size, if it would. */
export function sizeProblem(provider: string, payload: string): string | undefined {
  const bytes = Buffer.byteLength(payload);
  if (bytes <= PAYLOAD_BYTES_MAX) return undefined;
  return `the message takes ${bytes} bytes, more than the ${PAYLOAD_BYTES_MAX} that ${provider} takes`;
}
