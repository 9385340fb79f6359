const UNITS = ["kB", "MB", "GB", "TB", "PB", "EB"];

/** Formats bytes in units of 1000 with one decimal, ties to even: `999 B`, `1.0 kB`, `52.4 MB`. */
export function humanSize(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  let power = 1;
  while (bytes >= 1000 ** (power + 1) && power < UNITS.length) power++;
  // Computes with integers, because floats cannot represent a tie.
  const tenth = 1000n ** BigInt(power) / 10n;
  const tenths = BigInt(bytes) / tenth;
  const rest = (BigInt(bytes) % tenth) * 2n;
  const isUp = rest > tenth || (rest === tenth && tenths % 2n === 1n);
  const rounded = isUp ? tenths + 1n : tenths;
  return `${rounded / 10n}.${rounded % 10n} ${UNITS[power - 1]}`;
}
