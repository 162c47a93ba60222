// Several models in one process.
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { serve, until } from "./serve.mjs";

const root = path.resolve(import.meta.dirname, "../..");
const builtin = path.join(root, "models/builtin"), tiny = path.join(root, "tests/data/tiny/llama"), stories = path.join(root, "../shared/golden/stories260K");
const models = async (s) => Object.fromEntries((await (await fetch(s.url + "/v1/models")).json()).data.map((m) => [m.id, m.state]));
const complete = async (s, body) => {
  const r = await s.post("/v1/completions", { temperature: 0, max_tokens: 8, ...body });
  return { status: r.status, body: await r.json() };
};
const text = async (s, model, prompt, more = {}) => {
  const r = await complete(s, { model, prompt, ...more });
  assert.equal(r.status, 200, JSON.stringify(r.body));
  return r.body.choices[0].text ?? "";
};
const cheap = ["--num-kv-blocks", "200", "--packed-cache", "off"];

test("chosen by name, loaded when asked for, unloaded when another needs the place", async (t) => {
  const s = await serve(t, "--model", "a=" + builtin, "--model", "b=", "--model", "c=" + tiny, "--max-loaded-models", "2", ...cheap);
  assert.deepEqual(await models(s), { a: "unloaded", b: "unloaded", c: "unloaded" });
  const a = await text(s, "a", "Once upon a time");
  assert.deepEqual(await models(s), { a: "loaded", b: "unloaded", c: "unloaded" });
  assert.equal(await text(s, "b", "Once upon a time"), a);
  await text(s, "a", "Once");
  assert.equal((await complete(s, { model: "c", prompt: [1, 2, 3] })).status, 200);
  assert.deepEqual(await models(s), { a: "loaded", b: "unloaded", c: "loaded" });
  assert.equal(await text(s, undefined, "Once upon a time"), a);         // no model: the first
  const none = await complete(s, { model: "d", prompt: "x" });
  assert.equal(none.status, 404);
  assert.equal(none.body.error.message, "The model `d` does not exist.");
  assert.equal(none.body.error.type, "NotFoundError");
  assert.equal((await fetch(s.url + "/v1/models/b")).status, 200);
  assert.equal((await fetch(s.url + "/v1/models/d")).status, 404);
  const one = await (await fetch(s.url + "/v1/models/a")).json();
  assert.ok(one.max_model_len > 0);
  for (const [body, status] of [["{", 400], ['{"model":5}', 400], ["[]", 400]]) assert.equal((await s.post("/v1/completions", body)).status, status, body);
  const ids = await (await s.post("/tokenize", { model: "b", prompt: "Once upon a time" })).json();
  assert.ok(ids.count > 2);
  assert.equal((await (await s.post("/detokenize", { model: "a", tokens: ids.tokens.slice(1) })).json()).prompt.trim(), "Once upon a time");
  assert.equal((await s.post("/reset_prefix_cache", {})).status, 200);
  await s.close();
});

test("metrics of each model, once a family, kept when it is unloaded", async (t) => {
  const s = await serve(t, "--model", "a=", "--model", "b=", "--max-loaded-models", "1", "--metrics-compat", "vllm", ...cheap);
  await text(s, "a", "Once");
  await text(s, "b", "Once");
  await text(s, "b", "Once");
  const page = await (await fetch(s.url + "/metrics")).text();
  const heads = page.split("\n").filter((l) => l.startsWith("# TYPE "));
  assert.equal(new Set(heads).size, heads.length);
  const series = page.split("\n").filter((l) => l && !l.startsWith("#")).map((l) => l.slice(0, l.lastIndexOf(" ")));
  assert.equal(new Set(series).size, series.length);
  let family = "";
  for (const l of page.trimEnd().split("\n")) { // samples lie below their own head
    if (l.startsWith("# TYPE ")) family = l.split(" ")[2];
    else if (!l.startsWith("#")) assert.ok(l.startsWith(family), `${l} below ${family}`);
  }
  const length = async (m) => (await s.metric("request_success_total", `model_name="${m}",engine="0",finished_reason="length"`)) + (await s.metric("request_success_total", `model_name="${m}",engine="0",finished_reason="stop"`));
  assert.equal(await length("a"), 1);
  assert.equal(await length("b"), 2);
  assert.equal(await s.metric("model_loaded", 'model_name="a"'), 0);
  assert.equal(await s.metric("model_loaded", 'model_name="b"'), 1);
  assert.equal(await s.metric("model_loads_total", 'model_name="a"'), 1);
  await text(s, "a", "Once");
  assert.equal(await length("a"), 2);
  await s.close();
});

test("a model that cannot be loaded says why and hurts nobody", async (t) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "quire-models-"));
  t.after(() => fs.rmSync(dir, { recursive: true }));
  fs.writeFileSync(path.join(dir, "config.json"), "{}");
  const s = await serve(t, "--model", "good=", "--model", "bad=" + dir, "--model", "gone=/no/such/folder", "--max-loaded-models", "1", ...cheap);
  const good = await text(s, "good", "Once");
  const bad = await Promise.all(Array.from({ length: 8 }, () => complete(s, { model: "bad", prompt: "Once" })));
  for (const r of bad) {
    assert.equal(r.status, 500);
    assert.match(r.body.error.message, /^The model `bad` could not be loaded: /);
  }
  assert.match((await complete(s, { model: "gone", prompt: "Once" })).body.error.message, /could not be loaded: .*no\/such\/folder/);
  assert.equal((await models(s)).bad, "failed");
  assert.ok((await s.metric("model_load_failures_total", 'model_name="bad"')) >= 1);
  assert.equal(await text(s, "good", "Once"), good);
  await s.close();
});

test("unloading cuts nothing, and nobody waits for ever", async (t) => {
  const s = await serve(t, "--model", "a=", "--model", "b=", "--max-loaded-models", "1", ...cheap);
  const long = { prompt: "Once upon a time", max_tokens: 900, ignore_eos: true };
  const running = text(s, "a", long.prompt, long);
  await until(async () => (await models(s)).a === "loaded", "a loaded");
  const b = text(s, "b", "Once");
  await until(async () => (await models(s)).b === "queued", "b queued", 5).catch(() => {});
  const late = text(s, "a", "Once"); // after b's turn
  await Promise.all([running, b, late]);
  // an endless stream of requests for a does not keep b out
  let stop = false;
  const busy = Promise.all([1, 2, 3].map(async () => { while (!stop) await text(s, "a", "Once", { max_tokens: 30, ignore_eos: true }); }));
  for (let i = 0; i < 3; i++) await text(s, "b", "Once");
  stop = true;
  await busy;
  await s.close();
});

test("random requests to four models with two places give what each gives alone", async (t) => {
  const list = { a: builtin, b: "", c: tiny, ...(fs.existsSync(stories) ? { d: stories } : {}) };
  const prompt = (m, i) => m === "c" ? [1 + (i % 7), 2, 3, 4 + (i % 5)] : `Once upon a time ${i % 9}`;
  const body = (m, i) => ({ prompt: prompt(m, i), max_tokens: 5 + (i % 20), seed: i % 4, temperature: i % 2, ignore_eos: true, return_token_ids: true });
  const want = {};
  for (const m of Object.keys(list)) {
    const one = await serve(t, "--model", `${m}=${list[m]}`, ...cheap);
    for (let i = 0; i < 40; i++) want[m + i] = (await complete(one, { model: m, ...body(m, i) })).body.choices[0].token_ids;
    await one.close();
  }
  const s = await serve(t, ...Object.entries(list).flatMap(([k, v]) => ["--model", `${k}=${v}`]), "--max-loaded-models", "2", ...cheap);
  let seed = 12345;
  const random = (n) => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
  await Promise.all(Array.from({ length: 12 }, async () => {
    for (let k = 0; k < 15; k++) {
      const m = Object.keys(list)[random(Object.keys(list).length)], i = random(40);
      const r = await complete(s, { model: m, ...body(m, i) });
      assert.equal(r.status, 200, JSON.stringify(r.body));
      assert.deepEqual(r.body.choices[0].token_ids, want[m + i]);
    }
  }));
  await s.close();
});

test("clients that hang up, deadlines and shutdown while a model is waited for", async (t) => {
  const s = await serve(t, "--model", "a=", "--model", "b=", "--max-loaded-models", "1", "--request-timeout", "1", ...cheap);
  const hold = s.post("/v1/completions", { model: "a", prompt: "Once", max_tokens: 1000, n: 64, ignore_eos: true });
  await until(async () => (await models(s)).a === "loaded", "a loaded");
  const gone = new AbortController();
  const left = fetch(s.url + "/v1/completions", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ model: "b", prompt: "x" }), signal: gone.signal }).catch(() => "left");
  await new Promise((r) => setTimeout(r, 50));
  gone.abort();
  assert.equal(await left, "left");
  assert.ok([200, 504].includes((await hold).status));
  assert.equal((await complete(s, { model: "b", prompt: "Once" })).status, 200);
  const waiting = Array.from({ length: 10 }, (_, i) => complete(s, { model: i % 2 ? "a" : "b", prompt: "Once", max_tokens: 200, ignore_eos: true }).catch(() => ({ status: 0 })));
  await new Promise((r) => setTimeout(r, 30));
  s.kill("SIGTERM");
  for (const r of await Promise.all(waiting)) assert.ok([200, 503, 504, 0].includes(r.status), JSON.stringify(r));
  assert.equal((await s.exited).code, 0);
});

test("usage", async (t) => {
  await assert.rejects(serve(t, builtin, "--model", "a="), /"code":2/);
  await assert.rejects(serve(t, "--model", "a=", "--model", "b=", "--served-model-name", "x"), /"code":2/);
  await assert.rejects(serve(t, "--model", "a=", "--model", "a="), /two models are called 'a'/);
  await assert.rejects(serve(t, "--model", "a=", "--model", "b=", "--memory-utilization", "0.01", "--max-num-batched-tokens", "1m"), /the largest 2 of the models need/);
  const one = await serve(t, "--model", "mine=" + builtin, ...cheap);
  assert.equal((await (await fetch(one.url + "/v1/models")).json()).data[0].id, "mine");
  await one.close();
});
