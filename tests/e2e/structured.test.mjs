// Structured output end to end: a model that babbles at temperature 1, and an independent validator (ajv) for what comes out.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import test, { after, before } from "node:test";
import { randomSchema, validator } from "./schemas.mjs";
import { serve } from "./serve.mjs";

const folder = new URL("../data/schemas/", import.meta.url);
const ROUNDS = Number(process.env.ROUNDS ?? 2);   // outputs a schema
const AT_ONCE = 16;
const model = "quire-builtin";
let server;

before(async () => {
  // Random weights: nothing a model has learned helps the outputs to be valid.
  server = await serve(null, "--load-format", "dummy", "--max-model-len", "1024", "--max-num-seqs", "32", "--served-model-name", model);
});
after(() => server?.close());

async function complete(body) {
  const r = await server.post("/v1/completions", { model, prompt: "x", temperature: 1, ...body });
  return { status: r.status, body: await r.json() };
}

/** Runs jobs, so many at a time. */
async function all(jobs) {
  const queue = [...jobs];
  await Promise.all(Array.from({ length: AT_ONCE }, async () => { while (queue.length) await queue.shift()(); }));
}

test("every finished output of every schema validates", { timeout: 600_000 }, async (t) => {
  const names = readdirSync(folder).filter((n) => n.endsWith(".json"));
  assert.ok(names.length >= 200, `${names.length} schemas`);
  const bad = [];
  let finished = 0, cut = 0;
  const jobs = [];
  for (const name of names) {
    const schema = JSON.parse(readFileSync(new URL(name, folder), "utf8"));
    const valid = validator(schema);
    for (let seed = 0; seed < ROUNDS; seed++)
      jobs.push(async () => {
        const { status, body } = await complete({ max_tokens: 600, seed, response_format: { type: "json_schema", json_schema: { name: "x", schema } } });
        if (status !== 200) return bad.push(`${name}: ${status} ${JSON.stringify(body)}`);
        const { text, finish_reason } = body.choices[0];
        if (finish_reason === "length") return void cut++;
        finished++;
        let value;
        try { value = JSON.parse(text); } catch (e) { return bad.push(`${name} seed ${seed}: ${e.message}: ${text}`); }
        if (!valid(value)) bad.push(`${name} seed ${seed}: ${JSON.stringify(valid.errors[0])}: ${text}`);
      });
  }
  await all(jobs);
  t.diagnostic(`${names.length} schemas, ${finished} outputs finished, ${cut} cut by max_tokens`);
  assert.deepEqual(bad, []);
  assert.ok(finished > 0.6 * jobs.length, `only ${finished} of ${jobs.length} outputs finished`);
});

test("tokens without a choice cost no step, and change nothing", { timeout: 600_000 }, async (t) => {
  const names = readdirSync(folder).filter((n) => n.endsWith(".json")).filter((_, i) => i % 6 === 0);
  const run = async (extra) => {
    const before = await Promise.all(["steps_total", "guided_forced_tokens_total"].map((m) => server.metric(m)));
    const texts = [];
    for (const name of names) {
      const schema = JSON.parse(readFileSync(new URL(name, folder), "utf8"));
      const { body } = await complete({ max_tokens: 300, seed: 7, response_format: { type: "json_schema", json_schema: { name: "x", schema } }, ...extra });
      texts.push([body.choices[0].text, body.choices[0].finish_reason, body.usage.completion_tokens]);
    }
    const after = await Promise.all(["steps_total", "guided_forced_tokens_total"].map((m) => server.metric(m)));
    return { texts, steps: after[0] - before[0], forced: after[1] - before[1] };
  };
  // Log-probabilities need a step for every token.
  const jumped = await run({}), stepped = await run({ logprobs: 0 });
  assert.deepEqual(jumped.texts, stepped.texts);
  assert.equal(stepped.forced, 0);
  assert.ok(jumped.forced > 0);
  assert.equal(jumped.steps + jumped.forced, stepped.steps);
  t.diagnostic(`${jumped.forced} of ${stepped.steps} tokens were forced`);
});

test("random schemas: what is not refused validates", { timeout: 600_000 }, async (t) => {
  const first = Number(process.env.SEED ?? 1), n = Number(process.env.SCHEMAS ?? 200);
  const bad = [], refused = new Map();
  let finished = 0, cut = 0;
  await all(Array.from({ length: n }, (_, k) => async () => {
    const schema = randomSchema(first + k);
    let valid;
    try { valid = validator(schema); } catch { return; } // ajv does not take it
    for (let seed = 0; seed < 2; seed++) {
      const { status, body } = await complete({ max_tokens: 300, seed, guided_json: schema });
      if (status === 400) {
        const why = body.error.message.replace(/.*?: |at #\S*: /g, "").slice(0, 60);
        return void refused.set(why, (refused.get(why) ?? 0) + 1);
      }
      if (status !== 200) return bad.push(`${JSON.stringify(schema)}: ${status} ${JSON.stringify(body)}`);
      const { text, finish_reason } = body.choices[0];
      if (finish_reason === "length") { cut++; continue; }
      finished++;
      let value;
      try { value = JSON.parse(text); } catch (e) { return bad.push(`seed ${first + k}: ${e.message}: ${text}`); }
      if (!valid(value)) bad.push(`seed ${first + k}: ${JSON.stringify(valid.errors[0])}: ${text}\n${JSON.stringify(schema)}`);
    }
  }));
  t.diagnostic(`${n} schemas: ${finished} outputs finished, ${cut} cut, ${[...refused.values()].reduce((a, b) => a + b, 0)} schemas refused`);
  for (const [why, count] of [...refused].sort((a, b) => b[1] - a[1]).slice(0, 8)) t.diagnostic(`refused ${count}: ${why}`);
  assert.deepEqual(bad.slice(0, 5), []);
  assert.ok(finished > 0.5 * n, `only ${finished} outputs finished`);
});

test("all names of the fields", async () => {
  const schema = { type: "object", properties: { n: { type: "integer", minimum: 1, maximum: 9 } }, required: ["n"] };
  const is = async (body, check) => {
    const r = await complete({ max_tokens: 100, seed: 1, ...body });
    assert.equal(r.status, 200, JSON.stringify(r.body));
    assert.equal(r.body.choices[0].finish_reason, "stop");
    assert.ok(check(r.body.choices[0].text), `${JSON.stringify(body)}: ${r.body.choices[0].text}`);
  };
  const one = (text) => { const v = JSON.parse(text); return Object.keys(v).length === 1 && v.n >= 1 && v.n <= 9; };
  await is({ guided_json: schema }, one);
  await is({ guided_json: JSON.stringify(schema) }, one);
  await is({ structured_outputs: { json: schema } }, one);
  await is({ structured_outputs: { json: schema, whitespace_pattern: "" } }, (s) => one(s) && /^\{"n":\d\}$/.test(s));
  await is({ guided_json: schema, guided_whitespace_pattern: "_" }, (s) => /^\{_"n":_\d_\}$/.test(s));
  await is({ guided_regex: "[ab]{3}-\\d" }, (s) => /^[ab]{3}-\d$/.test(s));
  await is({ structured_outputs: { regex: "x{2,4}" } }, (s) => /^x{2,4}$/.test(s));
  await is({ response_format: { type: "regex", pattern: "[0-9]{2}" } }, (s) => /^\d\d$/.test(s));
  await is({ guided_choice: ["red", "green", "blue"] }, (s) => ["red", "green", "blue"].includes(s));
  await is({ structured_outputs: { choice: ["é", "日本"] } }, (s) => ["é", "日本"].includes(s));
  await is({ guided_grammar: 'root ::= "(" root ")" | [0-9]' }, (s) => /^\(*\d\)*$/.test(s));
  await is({ structured_outputs: { grammar: 'start: "a" "b"+ \n' } }, (s) => /^ab+$/.test(s));
  await is({ structured_outputs: { json_object: true }, max_tokens: 900, seed: 5 }, (s) => typeof JSON.parse(s) === "object");
});

test("what cannot be honoured is refused and names the field", async () => {
  const refuse = async (body, param, text) => {
    const r = await complete({ max_tokens: 5, ...body });
    assert.equal(r.status, 400, JSON.stringify(r.body));
    assert.equal(r.body.error.param, param);
    assert.match(r.body.error.message, text);
  };
  await refuse({ guided_json: { type: "wat" } }, "guided_json", /"wat" is not a type/);
  await refuse({ guided_json: { $ref: "https://example.com/x" } }, "guided_json", /\$ref.*not in this schema/);
  await refuse({ guided_json: { type: "array", contains: {}, maxContains: 3 } }, "guided_json", /contains/);
  await refuse({ guided_json: false }, "guided_json", /nothing matches/);
  await refuse({ response_format: { type: "json_schema", json_schema: { name: "x", schema: { type: "array", items: { type: "number" }, uniqueItems: true } } } }, "response_format", /uniqueItems/);
  await refuse({ guided_regex: "(" }, "guided_regex", /position 1/);
  await refuse({ guided_grammar: "root ::= a" }, "guided_grammar", /'a' is used but not defined/);
  await refuse({ structured_outputs: { wat: 1 } }, "structured_outputs", /no field 'wat'/);
  await refuse({ guided_regex: "a", response_format: { type: "json_object" } }, "guided_regex", /only one of/);
  await refuse({ guided_regex: "a", use_beam_search: true, n: 2 }, "use_beam_search", /beam/);
});

test("streams, choices and max_tokens", async () => {
  const r = await server.post("/v1/completions", { model, prompt: "x", temperature: 1, stream: true, n: 4, max_tokens: 60, guided_regex: "[a-f]{4,12}(é|☃){2}" });
  const texts = ["", "", "", ""], ends = [];
  for (const line of (await r.text()).split("\n"))
    if (line.startsWith("data: {")) {
      const c = JSON.parse(line.slice(6)).choices[0];
      texts[c.index] += c.text;
      if (c.finish_reason) ends.push(c.finish_reason);
    }
  assert.deepEqual(ends, ["stop", "stop", "stop", "stop"]);
  for (const s of texts) assert.match(s, /^[a-f]{4,12}(é|☃){2}$/);
  const cut = await complete({ max_tokens: 3, guided_regex: "a{500}" });
  assert.equal(cut.body.choices[0].finish_reason, "length");
  const best = await complete({ max_tokens: 50, best_of: 4, n: 2, guided_choice: ["one", "two"] });
  assert.equal(best.body.choices.length, 2);
  const ignored = await complete({ max_tokens: 50, ignore_eos: true, min_tokens: 20, guided_choice: ["one", "two"] });
  assert.match(ignored.body.choices[0].text, /^(one|two)$/);
  assert.equal(ignored.body.choices[0].finish_reason, "stop");
});

test("a structured request leaves its neighbours alone", async () => {
  const plain = () => complete({ prompt: "neighbour", seed: 3, max_tokens: 40 }).then((r) => r.body.choices[0].text);
  const alone = await plain();
  const noise = Array.from({ length: 8 }, (_, i) => complete({ guided_json: {}, seed: i, max_tokens: 60 }));
  assert.equal(await plain(), alone);
  await Promise.all(noise);
  const one = (seed) => complete({ guided_regex: "[a-z]{30}", seed, max_tokens: 40 }).then((r) => r.body.choices[0].text);
  const first = await one(9);
  assert.deepEqual(await Promise.all([one(9), one(9), one(9)]), [first, first, first]);
});
