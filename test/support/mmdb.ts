import ipaddr from "ipaddr.js";

type Value = string | number | Value[] | { [key: string]: Value };
type Node = { 0?: Node; 1?: Node; record?: Value };

/**
 * MaxMind DB data types, https://maxmind.github.io/MaxMind-DB/. Every number is written as a
 * uint32, which readers take.
 */
const TYPE = { string: 2, uint32: 6, map: 7, array: 11 } as const;
const METADATA_MARKER = Buffer.from("abcdef4d61784d696e642e636f6d", "hex");
/** Length of the zero bytes between tree and data. */
const SEPARATOR_BYTES = 16;

/**
 * Encodes a MaxMind database of networks ("203.0.113.0/24") in an IPv6 tree, like the published
 * city databases.
 */
export function encodeMmdb(networks: Record<string, Value>): Uint8Array {
  const root: Node = {};
  for (const [network, record] of Object.entries(networks)) insert(root, network, record);
  const nodes = flatten(root);
  const data: number[] = [];
  const tree = nodes.flatMap((node) =>
    [node[0], node[1]].flatMap((child) => {
      if (child === undefined) return uint24(nodes.length);
      if (child.record === undefined) return uint24(nodes.indexOf(child));
      const pointer = nodes.length + SEPARATOR_BYTES + data.length;
      data.push(...encode(child.record));
      return uint24(pointer);
    }),
  );
  const metadata = encode({
    binary_format_major_version: 2,
    binary_format_minor_version: 0,
    build_epoch: 1_760_000_000,
    database_type: "Test-City",
    description: { en: "A test" },
    ip_version: 6,
    languages: ["en"],
    node_count: nodes.length,
    record_size: 24,
  });
  const separator = Array.from({ length: SEPARATOR_BYTES }, () => 0);
  return Uint8Array.from([...tree, ...separator, ...data, ...METADATA_MARKER, ...metadata]);
}

/** Returns an entry like those of city databases. */
export function cityRecord(country: string, state: string, city: string): Value {
  return {
    city: { names: { en: city } },
    country: { iso_code: country },
    subdivisions: [{ names: { en: state } }],
  };
}

function insert(root: Node, network: string, record: Value): void {
  const [address = "", prefix] = network.split("/");
  const bytes = ipaddr.parse(address).toByteArray();
  const bits = bytes.map((byte) => byte.toString(2).padStart(8, "0"));
  const path = "0".repeat(128 - bytes.length * 8) + bits.join("").slice(0, Number(prefix));
  let node = root;
  for (const bit of path) {
    const side = bit === "1" ? 1 : 0;
    node = node[side] ??= {};
  }
  node.record = record;
}

/** Lists the inner nodes, the root first. */
function flatten(root: Node): Node[] {
  const nodes = [root];
  for (const node of nodes)
    for (const child of [node[0], node[1]])
      if (child !== undefined && child.record === undefined) nodes.push(child);
  return nodes;
}

function encode(value: Value): number[] {
  if (typeof value === "string")
    return [...control(TYPE.string, Buffer.byteLength(value)), ...Buffer.from(value)];
  if (typeof value === "number")
    return [...control(TYPE.uint32, 4), ...uint24(value >>> 8), value & 0xff];
  if (Array.isArray(value)) return [...control(TYPE.array, value.length), ...value.flatMap(encode)];
  const entries = Object.entries(value);
  return [
    ...control(TYPE.map, entries.length),
    ...entries.flatMap(([key, item]) => [...encode(key), ...encode(item)]),
  ];
}

/** Encodes a control byte, or two for types above 7. Sizes of 29 and more need longer forms. */
function control(type: number, size: number): number[] {
  if (size >= 29) throw new RangeError(`The test encoder has no sizes of ${size}.`);
  return type <= 7 ? [(type << 5) | size] : [size, type - 7];
}

function uint24(value: number): number[] {
  return [(value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff];
}
