import * as fc from "fast-check";

import { type PropertyValue } from "../../src/devices/properties.ts";

export const TEXT_OPERATORS = ["str_eq", "str_exists"] as const;
export const NUMBER_OPERATORS = ["int_eq", "int_gt", "int_gte", "int_lt", "int_lte"] as const;

const KEYS = [
  "age",
  "tags",
  "a.b",
  "$",
  "$.age",
  'say "it"',
  "back\\slash",
  "it's",
  "*",
  "[0]",
  " ",
  "line\nbreak\u0001",
  "__proto__",
  "constructor",
  "😀é\u2028",
  "x".repeat(255),
];
const TEXTS = ["vip", "5", "", "VIP", 'a"b', "\\", "$x", "😀", "a\tb\n", "null", "true", "é", "é"];
const NUMBERS = [
  0,
  -0,
  1,
  2,
  3,
  4,
  5,
  5.5,
  -5,
  -0.5,
  1e-7,
  5e-324,
  2 ** 52 - 0.5,
  1e15,
  2 ** 53 - 2,
  2 ** 53 - 1,
  1 - 2 ** 53,
];
const OPERANDS = [
  "0",
  "1",
  "2",
  "3",
  "4",
  "5",
  "-5",
  "+3",
  " 4 ",
  "007",
  "-0",
  "9007199254740990",
  "9007199254740991",
  "-9007199254740991",
  "9007199254740992",
  "9007199254740993",
  "9007199254740994",
  "1152921504606846976",
  "1152921504606847000",
  "9223372036854775807",
  "-9223372036854775808",
];

const key = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom("age", "tags", "a.b") },
  fc.constantFrom(...KEYS),
);
const text = fc.constantFrom(...TEXTS);
const number = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: 0, max: 6 }) },
  fc.constantFrom(...NUMBERS),
);
const scalar = fc.oneof(text, number, number, fc.boolean());
const value = fc.oneof(
  scalar,
  fc.array(scalar, { maxLength: 5 }),
  fc.array(number, { maxLength: 5 }),
);
/** Properties of all kinds under few keys, some of them odd, so that conditions often match. */
export const anyProperties = fc
  .array(fc.tuple(key, value), { maxLength: 8 })
  .map((entries) => Object.fromEntries<PropertyValue>(entries));

const textLeaf = fc.record({ key, operator: fc.constantFrom(...TEXT_OPERATORS), value: text });
const numberLeaf = fc.record({
  key,
  operator: fc.constantFrom(...NUMBER_OPERATORS),
  value: fc.oneof(
    { weight: 3, arbitrary: fc.integer({ min: 0, max: 6 }).map(String) },
    fc.constantFrom(...OPERANDS),
  ),
});
const { tree: anyTree } = fc.letrec<{ tree: object }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 4 },
    { weight: 3, arbitrary: numberLeaf },
    { weight: 2, arbitrary: textLeaf },
    {
      weight: 4,
      arbitrary: fc.record({
        join_type: fc.constantFrom("AND", "OR"),
        conditions: fc.array(tie("tree"), { minLength: 1, maxLength: 4 }),
      }),
    },
  ),
}));
/** A condition tree as it is sent. */
export const anyConditions = fc.oneof(
  { weight: 9, arbitrary: anyTree },
  fc.constant({}),
  anyTree.map((tree) => ({ join_type: "OR", conditions: [tree, {}] })),
  anyTree.map((tree) => ({ join_type: "AND", conditions: [{}, tree] })),
);
