import { describe, expect, test } from "bun:test";
import { deviceType, iosDeviceName } from "../../src/sessions/device.ts";

describe("an iOS model code", () => {
  test.each([
    ["iPhone15,2", "iPhone 14 Pro"],
    ["iPhone14,6", "iPhone SE (3rd generation)"],
    ["iPhone10,3", "iPhone X"],
    ["iPad13,1", "iPad Air (4th generation)"],
    ["iPad8,1", "iPad Pro (11-inch)"],
    ["iPhone16,1", "iPhone 15 Pro"],
  ])("%s is an %s", (model, name) => {
    expect(iosDeviceName(model)).toBe(name);
  });

  test.each(["iPhone99,9", "arm64", "x86_64", "", "constructor"])(
    "%p is unknown, so it stays",
    (model) => {
      expect(iosDeviceName(model)).toBe(model);
    },
  );

  test("may be absent", () => {
    expect(iosDeviceName(undefined)).toBeUndefined();
  });
});

describe("the device type", () => {
  test.each([
    ["iPhone15,2", undefined, "mobile"],
    ["iPhone99,9", "iPhone 40 Pro", "mobile"],
    ["iPad13,1", 0, "tablet"],
    ["iPod9,1", undefined, "other"],
    ["arm64", 0, "mobile"],
    ["arm64", 1, "tablet"],
    ["AppleTV11,1", 2, "other"],
    ["arm64", 3, "other"],
    ["MacBookPro18,1", 5, "desktop"],
    ["MacBookPro18,1", "5", "desktop"],
    [undefined, undefined, "other"],
  ] as const)("of the iOS device %p with type %p is %s", (userDevice, userDeviceType, type) => {
    expect(deviceType("ios", { userDevice, userDeviceType })).toBe(type);
  });

  test.each([
    ["mobile", "mobile"],
    ["tablet", "tablet"],
    ["desktop", "desktop"],
    ["other", "other"],
    ["Tablet", "other"],
    ["", "other"],
    [1, "other"],
    [undefined, "other"],
  ] as const)("of Android is %p as sent, which makes it %s", (userDeviceType, type) => {
    expect(deviceType("android", { userDevice: "iPhone15,2", userDeviceType })).toBe(type);
  });
});
