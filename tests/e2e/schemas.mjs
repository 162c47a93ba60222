// Random JSON Schemas of the kind that people write, deeper in places than they do.
import addFormats from "ajv-formats";
import { Ajv } from "ajv";
import { Ajv2020 } from "ajv/dist/2020.js";

/** ajv for the draft that the schema names. */
export function validator(schema) {
  const draft7 = /draft-0[47]/.test(schema.$schema ?? "");
  const options = { strict: false, multipleOfPrecision: 6, allErrors: false, logger: false };
  const ajv = draft7 ? new Ajv(options) : new Ajv2020(options);
  addFormats.default ? addFormats.default(ajv) : addFormats(ajv);
  const copy = structuredClone(schema);
  if (/draft-04/.test(copy.$schema ?? "")) { // ajv knows no draft 4: its boolean bounds are numbers since
    delete copy.$schema;
    for (const p of Object.values(copy.properties))
      if (p.exclusiveMinimum === true) { p.exclusiveMinimum = p.minimum; delete p.minimum; }
  }
  return ajv.compile(copy);
}

/** The same numbers for the same seed (mulberry32). */
export function random(seed) {
  const next = () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const r = { below: (n) => Math.floor(next() * n), chance: (p) => next() < p, of: (list) => list[r.below(list.length)] };
  return r;
}

const names = ["a", "b", "c", "id", "kind", "naïve", "x y", 'q"'];
const patterns = ["^[a-z]+$", "[0-9]", "^(foo|bar)", "x{2,3}$", "^\\S*$", "^[^a]*$", "a|^b$", "^\\w{1,20}$"];
const formats = ["date", "time", "date-time", "email", "uuid", "ipv4", "ipv6", "uri", "hostname", "duration"];
const values = [1, 2, -3, 0.5, "a", "b", "foo", "x1", "", null, true, false, [], [1], {}, { a: 1 }, { kind: "k", b: [null] }];

function bounds(r, s, low, high, pick) {
  if (r.chance(0.5)) s[low] = pick();
  if (r.chance(0.5)) s[high] = (s[low] ?? 0) + Math.abs(pick());
}

function scalar(r) {
  const s = {};
  switch (r.below(7)) {
    case 0:
      s.type = "integer";
      bounds(r, s, r.of(["minimum", "exclusiveMinimum"]), r.of(["maximum", "exclusiveMaximum"]), () => r.below(300) - 100);
      if (r.chance(0.2)) s.multipleOf = r.of([2, 3, 7, 10]);
      return s;
    case 1:
      s.type = "number";
      bounds(r, s, r.of(["minimum", "exclusiveMinimum"]), r.of(["maximum", "exclusiveMaximum"]), () => (r.below(20000) - 8000) / r.of([1, 4, 10, 100, 1000]));
      if (r.chance(0.15)) s.multipleOf = r.of([0.5, 0.25, 0.1, 2]);
      return s;
    case 2: return { type: "boolean" };
    case 3: return { type: "null" };
    case 4: return { enum: Array.from({ length: 1 + r.below(4) }, () => r.of(values)).filter((v, i, l) => l.findIndex((w) => JSON.stringify(w) === JSON.stringify(v)) === i) };
    default:
      s.type = "string";
      if (r.chance(0.4)) s.pattern = r.of(patterns);
      if (r.chance(0.2)) s.format = r.of(formats);
      bounds(r, s, "minLength", "maxLength", () => r.below(25));
      if (r.chance(0.7)) s.maxLength ??= 30 + (s.minLength ?? 0);
      return s;
  }
}

function object(r, depth, defs) {
  const s = { type: "object", properties: {} };
  for (const n of names) if (r.chance(0.35)) s.properties[n] = schema(r, depth - 1, defs);
  const declared = Object.keys(s.properties);
  s.required = declared.filter(() => r.chance(0.5));
  if (r.chance(0.15)) s.additionalProperties = r.chance(0.5) ? false : schema(r, 0, defs);
  if (r.chance(0.1)) s.patternProperties = { [r.of(["^a", "d$", "^z"])]: schema(r, 0, defs) };
  if (r.chance(0.1)) s.minProperties = r.below(3);
  if (r.chance(0.1)) s.maxProperties = (s.minProperties ?? 0) + 1 + r.below(3);
  if (r.chance(0.1) && declared.length > 1) s.dependentRequired = { [declared[0]]: [declared[1]] };
  if (r.chance(0.08)) s.propertyNames = { maxLength: 5 };
  if (r.chance(0.08) && declared.length) s.not = { required: [r.of(declared)] };
  if (r.chance(0.1) && declared.length) Object.assign(s, { if: { properties: { [declared[0]]: scalar(r) } }, then: { required: [r.of(declared)] }, else: { properties: { [r.of(declared)]: scalar(r) } } });
  return s;
}

function array(r, depth, defs) {
  const s = { type: "array", items: schema(r, depth - 1, defs) };
  if (r.chance(0.25)) s.prefixItems = Array.from({ length: 1 + r.below(3) }, () => schema(r, 0, defs));
  if (r.chance(0.4)) s.minItems = r.below(4);
  s.maxItems = (s.minItems ?? 0) + r.below(4);
  if (r.chance(0.1)) { s.items = r.of([{ type: "boolean" }, { enum: [1, 2, 3, "x"] }, { type: "integer", minimum: 0, maximum: 9 }]); s.uniqueItems = true; delete s.prefixItems; }
  return s;
}

function schema(r, depth, defs) {
  if (depth <= 0) return r.chance(0.1) && defs.length ? { $ref: `#/$defs/${r.of(defs)}` } : scalar(r);
  switch (r.below(9)) {
    case 0: case 1: case 2: return object(r, depth, defs);
    case 3: return array(r, depth, defs);
    case 4: return { [r.of(["anyOf", "oneOf"])]: Array.from({ length: 2 + r.below(2) }, () => schema(r, depth - 1, defs)) };
    case 5: return { allOf: [object(r, depth, defs), object(r, depth - 1, defs)] };
    case 6: return { ...object(r, depth - 1, defs), [r.of(["anyOf", "oneOf"])]: [{ required: [r.of(names)] }, object(r, 0, defs)] };
    case 7: return { ...scalar(r), not: scalar(r) };
    default: return scalar(r);
  }
}

export function randomSchema(seed) {
  const r = random(seed), defs = ["d0", "d1"];
  const s = schema(r, 3, defs);
  if (JSON.stringify(s).includes("#/$defs/")) s.$defs = { d0: schema(r, 1, []), d1: schema(r, 2, ["d0", "d1"]) };
  return s;
}
