import * as fc from "fast-check";
import { describe, expect, test } from "bun:test";

import { normaliseConditions, parseConditions } from "../../src/devices/conditions.ts";
import { AppError } from "../../src/platform/errors.ts";
import { anyConditions } from "../support/conditions.ts";

const leaf = { key: "k", operator: "str_eq", value: "v" };

describe("the wire's form", () => {
  test("has all five keys in every node, null where unused", () => {
    const adults = { key: "age", operator: "int_gte", value: " +18 " };
    const tree = parseConditions({
      join_type: "OR",
      key: "ignored",
      more: 1,
      conditions: [adults],
    });
    expect(normaliseConditions(tree)).toEqual({
      conditions: [{ conditions: null, ...adults, join_type: null }],
      key: null,
      value: null,
      operator: null,
      join_type: "OR",
    });
  });

  test("of match-all has nothing but nulls", () => {
    const nothing = { conditions: null, key: null, value: null, operator: null, join_type: null };
    expect(normaliseConditions(parseConditions({}))).toEqual(nothing);
    expect(parseConditions(nothing)).toEqual({ type: "all" });
  });

  test("of any tree parses to the same tree", () => {
    fc.assert(
      fc.property(anyConditions, (wire) => {
        const tree = parseConditions(wire);
        expect(parseConditions(normaliseConditions(tree))).toEqual(tree);
      }),
    );
  });
});

describe("a wrong tree is refused with what is wrong and where", () => {
  test.each<[unknown, string]>([
    [null, "it must be an object"],
    [undefined, "it must be an object"],
    [[], "it must be an object"],
    ["all", "it must be an object"],
    [{ condition: [leaf] }, "it has none of conditions, key"],
    [group(leaf, { kye: "k" }), "conditions[1] has none of"],
    [group(leaf, null), "conditions[1] must be an object"],
    [group(), "conditions must not be empty"],
    [{ join_type: "AND", conditions: {} }, "conditions must be a list or null"],
    [{ join_type: "and", conditions: [leaf] }, "join_type must be AND or OR"],
    [{ join_type: "NOT", conditions: [leaf] }, "join_type must be AND or OR"],
    [{ conditions: [leaf] }, "join_type must be AND or OR"],
    [{ join_type: 1, conditions: [leaf] }, "join_type must be a string or null"],
    [
      group(group(leaf, { ...leaf, operator: "like" })),
      "conditions[0].conditions[1].operator must be one of str_eq",
    ],
    [{ key: "k", value: "v" }, "operator must be one of"],
    [{ join_type: "AND" }, "operator must be one of"],
    [{ ...leaf, operator: "STR_EQ" }, "operator must be one of"],
    [{ ...leaf, operator: 1 }, "operator must be a string or null"],
    [{ ...leaf, operator: "toString" }, "operator must be one of"],
    [{ operator: "str_eq", value: "v" }, "key must be a string"],
    [{ ...leaf, key: 5 }, "key must be a string or null"],
    [{ ...leaf, key: "" }, "key must not be empty"],
    [{ ...leaf, key: "é".repeat(256) }, "key must have at most 255 characters"],
    [{ ...leaf, key: "a\0" }, "key must not contain NUL"],
    [{ ...leaf, key: "\ud800" }, "key must be well-formed Unicode"],
    [{ key: "k", operator: "str_eq" }, "value must be a string"],
    [group(leaf, { ...leaf, value: 1 }), "conditions[1].value must be a string or null"],
    [{ ...leaf, value: "a\0" }, "value must not contain NUL"],
    [{ ...leaf, value: "\udfff" }, "value must be well-formed Unicode"],
    [{ ...leaf, value: "x".repeat(1025) }, "value must have at most 1024 characters"],
    [operand(18), "value must be a string or null"],
    [operand(true), "value must be a string or null"],
    [operand(""), "value must be a whole number in digits"],
    [operand("1.0"), "value must be a whole number in digits"],
    [operand("1e3"), "value must be a whole number in digits"],
    [operand("0x10"), "value must be a whole number in digits"],
    [operand("1_000"), "value must be a whole number in digits"],
    [operand("- 1"), "value must be a whole number in digits"],
    [operand("++1"), "value must be a whole number in digits"],
    [operand("١"), "value must be a whole number in digits"],
    [operand("1; drop table devices"), "value must be a whole number in digits"],
    [
      operand("9223372036854775808"),
      "value must be from -9223372036854775808 to 9223372036854775807",
    ],
    [operand("-9223372036854775809"), "value must be from"],
    [operand("9".repeat(1024)), "value must be from"],
  ])("%j", (wire, message) => {
    const error = refusalOf(wire);
    expect(error.code).toBe("invalid");
    expect(error.message).toStartWith(`wrong condition clause ${message}`);
  });

  test("a group within 16 levels of groups, but not within 17", () => {
    expect(parseConditions(nested(16)).type).toBe("group");
    expect(refusalOf(nested(17)).message).toEndWith("is nested deeper than 16 levels");
    expect(refusalOf(nested(5_000)).message).toEndWith("is nested deeper than 16 levels");
  });

  test("200 conditions, but not 201", () => {
    expect(parseConditions(many(200)).type).toBe("group");
    expect(refusalOf(many(201)).message).toStartWith(
      "wrong condition clause conditions[200] is more than",
    );
  });

  test("a key of 255 characters outside of the first plane is well", () => {
    expect(parseConditions({ ...leaf, key: "😀".repeat(255) }).type).toBe("text");
  });
});

function refusalOf(wire: unknown): AppError {
  try {
    parseConditions(wire);
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
  throw new Error("not refused");
}

function group(...conditions: unknown[]) {
  return { join_type: "AND", conditions };
}

function operand(value: unknown) {
  return { key: "k", operator: "int_eq", value };
}

function nested(levels: number): unknown {
  return levels === 0 ? leaf : group(nested(levels - 1));
}

function many(count: number) {
  return group(group(leaf), ...Array.from({ length: count - 1 }, () => leaf));
}
