import * as fc from "fast-check";
import { expect, test } from "bun:test";

import { humanSize } from "../../src/updates/size.ts";

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

test.each([
  [0, "0 B"],
  [1, "1 B"],
  [999, "999 B"],
  [1000, "1.0 kB"],
  [1049, "1.0 kB"],
  [1051, "1.1 kB"],
  [1250, "1.2 kB"],
  [1251, "1.3 kB"],
  [3750, "3.8 kB"],
  [6250, "6.2 kB"],
  [999_949, "999.9 kB"],
  [999_950, "1000.0 kB"],
  [999_999, "1000.0 kB"],
  [1_000_000, "1.0 MB"],
  [52_428_800, "52.4 MB"],
  [1_250_000, "1.2 MB"],
  [999_999_999, "1000.0 MB"],
  [1_000_000_000, "1.0 GB"],
  [1_250_000_000, "1.2 GB"],
  [1_250_000_001, "1.3 GB"],
  [4_294_967_296, "4.3 GB"],
  [10 ** 12, "1.0 TB"],
  [3_750_000_000_000, "3.8 TB"],
  [10 ** 15, "1.0 PB"],
  [1_250_000_000_000_001, "1.3 PB"],
  [Number.MAX_SAFE_INTEGER, "9.0 PB"],
  [10 ** 18, "1.0 EB"],
])("%d bytes are %s", (bytes, text) => {
  expect(humanSize(bytes)).toBe(text);
});

test("every size is the nearest tenth of the largest unit that fits", () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), fc.integer({ min: 0, max: 53 }), (any, shift) => {
      const bytes = Math.floor(any / 2 ** shift);
      const [number = "", unit = ""] = humanSize(bytes).split(" ");
      const power = UNITS.indexOf(unit);
      expect(power).toBe(Math.floor((String(bytes).length - 1) / 3));
      expect(number).toMatch(power === 0 ? /^\d{1,3}$/ : /^\d{1,4}\.\d$/);
      // Twice the distance in tenths of the unit, without rounding of any kind.
      const tenths = BigInt(number.replace(".", "")) * (power === 0 ? 10n : 1n);
      const distance = tenths * 1000n ** BigInt(power) - BigInt(bytes) * 10n;
      expect(2n * (distance < 0n ? -distance : distance)).toBeLessThanOrEqual(
        1000n ** BigInt(power),
      );
    }),
  );
});
