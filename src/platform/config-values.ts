import { isIP } from "node:net";

import ipaddr from "ipaddr.js";

const WHOLE_NUMBER = /^-?\d+$/;

/** Returns whether the text is a whole number in plain digits: not 1.5, 0x50 or true, which would be read as another number. */
export function isWholeNumber(text: string): boolean {
  return WHOLE_NUMBER.test(text.trim());
}

/**
 * Returns whether the text is a range of addresses. Legacy forms, such as octal or shortened addresses, are refused because programs
 * read them differently; so are IPv4 addresses written as IPv6, which no peer has.
 */
export function isAddressRange(text: string): boolean {
  const [address = ""] = text.split("/");
  if (isIP(address) === 0 || !ipaddr.isValidCIDR(text)) return false;
  const [parsed] = ipaddr.parseCIDR(text);
  return !(parsed instanceof ipaddr.IPv6 && parsed.isIPv4MappedAddress());
}

/** Returns whether the text is a URL that paths can be appended to. */
export function isBaseUrl(text: string): boolean {
  const url = URL.parse(text);
  return url !== null && url.hostname !== "" && url.search === "" && url.hash === "";
}

/** Returns the items of a comma list. */
export function list(value = ""): string[] {
  return value
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "");
}
