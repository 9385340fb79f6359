import { isIP } from "node:net";

import ipaddr from "ipaddr.js";

const WHOLE_NUMBER = /^-?\d+$/;
const DECIMAL = /^-?\d+(?:\.\d+)?$/;

/**
 * Returns whether the text is a whole number in plain digits. 1.5, 0x50 and true are not:
 * conversion would silently make other numbers of them.
 */
export function isWholeNumber(text: string): boolean {
  return WHOLE_NUMBER.test(text.trim());
}

/** Returns whether the text is a number in plain digits: 1e3 and 0x50 are not. */
export function isDecimal(text: string): boolean {
  return DECIMAL.test(text.trim());
}

export type AddressRange = [ipaddr.IPv4 | ipaddr.IPv6, number];

/**
 * Parses an address or a CIDR range; returns undefined for anything else. Refuses octal, shortened
 * and other legacy forms, which programs read differently, and IPv4-mapped IPv6 addresses, which no
 * peer has.
 */
export function parseAddressRange(text: string): AddressRange | undefined {
  const [address = "", bits] = text.split("/");
  const version = isIP(address);
  const cidr = bits === undefined ? `${address}/${version === 4 ? 32 : 128}` : text;
  if (version === 0 || !ipaddr.isValidCIDR(cidr)) return undefined;
  const range = ipaddr.parseCIDR(cidr);
  const [parsed] = range;
  return parsed instanceof ipaddr.IPv6 && parsed.isIPv4MappedAddress() ? undefined : range;
}

/** Returns whether the text is a URL that paths can be appended to. */
export function isBaseUrl(text: string): boolean {
  const url = URL.parse(text);
  return url !== null && url.hostname !== "" && url.search === "" && url.hash === "";
}

/**
 * Normalizes an origin as browsers send it: lower case, without the default port of its scheme.
 * Returns undefined for anything else: a path, a pattern, `null`, a host alone.
 */
export function parseOrigin(text: string): string | undefined {
  const url = /^[a-z][a-z0-9+.-]*:\/\/[^/?#@*\\\s]+\/?$/i.test(text) ? URL.parse(text) : null;
  return url === null || url.host === "" ? undefined : `${url.protocol}//${url.host.toLowerCase()}`;
}

/** Returns the items of a comma-separated list. */
export function list(value = ""): string[] {
  return value
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "");
}
