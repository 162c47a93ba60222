// Embeddings, pooling, scores and ranks, with the official client and by definition.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import OpenAI from "openai";
import { serve, until } from "./serve.mjs";

let server, client;
before(async () => {
  server = await serve(null, "--enable-prompt-tokens-details", "--max-num-batched-tokens", "32");   // long inputs come in pieces
  client = new OpenAI({ baseURL: server.url + "/v1", apiKey: "unused", maxRetries: 0 });
});
after(() => server.close());

const ask = async (path, body) => {
  const r = await server.post(path, body);
  const j = await r.json();
  assert.equal(r.status, 200, JSON.stringify(j));
  return j;
};
const refused = async (path, body, param, part) => {
  const r = await server.post(path, body), { error } = await r.json();
  assert.equal(r.status, 400, JSON.stringify([body, error]));
  assert.equal(error.param, param, JSON.stringify(error));
  assert.ok(error.message.includes(part), error.message);
};
const dot = (a, b) => a.reduce((s, x, i) => s + x * b[i], 0);
const states = async (input, fields) => (await ask("/pooling", { input, ...fields })).data.map((d) => d.data);
const tokens = async (prompt) => (await ask("/tokenize", { prompt })).tokens;
const TEXT = "Once upon a time there was a small cat that lived in a house near the big river, and it liked to walk along the water every morning before the sun came up.";

test("the official client: float and base64 agree, length 1, usage", async () => {
  const model = (await client.models.list()).data[0].id;
  const float = await client.embeddings.create({ model, input: [TEXT, "the sea"], encoding_format: "float" });
  const coded = await client.embeddings.create({ model, input: [TEXT, "the sea"] });   // the client asks for base64 and decodes
  assert.equal(float.object, "list");
  assert.deepEqual(float.data.map((d) => [d.index, d.object]), [[0, "embedding"], [1, "embedding"]]);
  for (const [i, d] of float.data.entries()) {
    assert.ok(Math.abs(dot(d.embedding, d.embedding) - 1) < 1e-5);
    assert.deepEqual(d.embedding.map(Math.fround), Array.from(coded.data[i].embedding));
  }
  const n = (await tokens(TEXT)).length + (await tokens("the sea")).length;
  assert.deepEqual([float.usage.prompt_tokens, float.usage.total_tokens], [n, n]);
});

test("text, token ids, arrays of both, messages", async () => {
  const ids = await tokens("the sea");
  const [a] = await states("the sea"), [b] = await states(ids), [c, d] = await states([ids, ids]);
  assert.deepEqual(a, b);
  assert.deepEqual(a, c);
  assert.deepEqual(a, d);
  assert.equal((await ask("/v1/embeddings", { messages: [{ role: "user", content: "hi" }] })).data.length, 1);
});

test("mean and cls by their definition, over pieces of a prompt, with a warm cache", async () => {
  const ids = await tokens(TEXT);
  assert.ok(ids.length > 32);
  const each = [];
  for (let i = 1; i <= ids.length; i++) each.push((await states(ids.slice(0, i)))[0]);   // the state of token i - 1
  const [last] = await states(ids), [mean] = await states(ids, { pooling: "mean" }), [cls] = await states(ids, { pooling: "cls" });
  assert.deepEqual(last, each.at(-1));
  assert.deepEqual(cls, each[0]);
  for (let k = 0; k < mean.length; k++) assert.ok(Math.abs(mean[k] - each.reduce((s, x) => s + x[k], 0) / ids.length) < 1e-5);
});

test("many at once are the same as one by one", async () => {
  const texts = Array.from({ length: 24 }, (_, i) => TEXT.slice(0, 10 + 6 * i));
  for (const pooling of ["last", "mean", "cls"]) {
    const together = await states(texts, { pooling });
    for (const i of [0, 7, 23]) assert.deepEqual((await states(texts[i], { pooling }))[0], together[i]);
  }
});

test("dimensions cut and scale again; truncation keeps the end", async () => {
  const [all] = (await ask("/v1/embeddings", { input: TEXT })).data.map((d) => d.embedding);
  const [cut] = (await ask("/v1/embeddings", { input: TEXT, dimensions: 16 })).data.map((d) => d.embedding);
  assert.equal(cut.length, 16);
  const norm = Math.sqrt(dot(all.slice(0, 16), all.slice(0, 16)));
  for (let i = 0; i < 16; i++) assert.ok(Math.abs(cut[i] - all[i] / norm) < 1e-5);
  const ids = await tokens(TEXT);
  assert.deepEqual(await states(ids, { truncate_prompt_tokens: 5 }), await states(ids.slice(-5)));
});

test("scores are cosines, or probabilities", async () => {
  const texts = [TEXT, "the sea", "a cat in a house"];
  const e = (await ask("/v1/embeddings", { input: texts })).data.map((d) => d.embedding);
  const one = await ask("/score", { text_1: texts[0], text_2: [texts[1], texts[2]] });
  assert.deepEqual(one.data.map((d) => d.object), ["score", "score"]);
  assert.ok(Math.abs(one.data[0].score - dot(e[0], e[1])) < 1e-5 && Math.abs(one.data[1].score - dot(e[0], e[2])) < 1e-5);
  const pairs = await ask("/v1/score", { text_1: [texts[0], texts[1]], text_2: [texts[1], texts[1]] });
  assert.ok(Math.abs(pairs.data[1].score - 1) < 1e-5);
  const by = await ask("/score", { text_1: "Once upon a", text_2: [" time", " zebra"], score_by: "logprob" });
  assert.ok(by.data[0].score > 0.5 && by.data[1].score < 0.01, JSON.stringify(by.data));
  const n = (await tokens("Once upon a")).length;
  const c = await ask("/v1/completions", { prompt: "Once upon a time", max_tokens: 1, prompt_logprobs: 0 });
  const lp = c.choices[0].prompt_logprobs.slice(n).map((x) => Object.values(x)[0].logprob);
  assert.ok(Math.abs(by.data[0].score - Math.exp(lp.reduce((a, b) => a + b) / lp.length)) < 1e-5);
});

test("rerank sorts, cuts and shows", async () => {
  const documents = ["the sea", { text: TEXT }, "a cat"];
  for (const path of ["/rerank", "/v1/rerank", "/v2/rerank"]) {
    const r = await ask(path, { query: TEXT, documents });
    assert.equal(r.results.length, 3);
    assert.equal(r.results[0].index, 1);
    assert.equal(r.results[0].document.text, TEXT);
    assert.ok(r.results.every((x, i) => i === 0 || x.relevance_score <= r.results[i - 1].relevance_score));
  }
  const top = await ask("/rerank", { query: "Once upon a", documents: [" zebra", " time"], top_n: 1, return_documents: false, score_by: "logprob" });
  assert.deepEqual(top.results.map((x) => [x.index, x.document]), [[1, undefined]]);
});

test("what is wrong is named", async () => {
  await refused("/v1/embeddings", {}, "input", "required");
  await refused("/v1/embeddings", { input: [] }, "input", "empty");
  await refused("/v1/embeddings", { input: [["x"]] }, "input", "token id");
  await refused("/v1/embeddings", { input: "a", encoding_format: "hex" }, "encoding_format", "float or base64");
  await refused("/v1/embeddings", { input: "a", dimensions: 100000 }, "dimensions", "hidden size");
  await refused("/v1/embeddings", { input: "a", pooling: "max" }, "pooling", "last, mean or cls");
  await refused("/v1/embeddings", { input: "word ".repeat(2000) }, "input", "This model's maximum context length is 1024 tokens. However, you requested ");
  await refused("/score", { text_1: ["a", "b"], text_2: ["a", "b", "c"] }, "text_1", "as many");
  await refused("/rerank", { query: "a", documents: [] }, "documents", "empty");
  await refused("/rerank", { documents: ["a"] }, "query", "required");
  await refused("/score", { text_1: "a", text_2: "", score_by: "logprob" }, "text_2", "no tokens");
});

test("a client that goes leaves nothing behind", async () => {
  const stop = new AbortController();
  const r = fetch(server.url + "/v1/embeddings", { method: "POST", signal: stop.signal, headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ input: Array(500).fill(TEXT), pooling: "mean" }) });
  setTimeout(() => stop.abort(), 30);
  await r.then(() => {}, () => {});
  await until(async () => (await server.metric("kv_blocks_held")) === 0, "all pages free");
});
