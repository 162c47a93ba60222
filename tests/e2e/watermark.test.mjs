// Real generations with and without the watermark, judged by `quire watermark detect`.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFileSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { serve } from "./serve.mjs";

let server, key;
const SEEDS = [1, 2, 3, 4, 5, 6];

before(async () => {
  key = join(mkdtempSync(join(tmpdir(), "quire-watermark-")), "key");
  writeFileSync(key, "a secret of the test\n");
  // The built-in model is often sure of its next token, where no watermark can weigh much: a stronger one than the default.
  server = await serve(null, "--watermark-key", key, "--watermark-delta", "5");
});
after(() => server.close());

const detect = (...args) => JSON.parse(execFileSync(process.env.QUIRE, ["watermark", "detect", "--json", ...args], { encoding: "utf8" }));
const write = async (seed, fields) => {
  const r = await server.post("/v1/completions", { prompt: "Once upon a time", max_tokens: 400, temperature: 1.5, seed, ignore_eos: true, return_token_ids: true, ...fields });
  assert.equal(r.status, 200);
  return (await r.json()).choices[0];
};
const ids = (c, ...more) => detect("--token-ids", c.token_ids.join(","), ...more);
const mean = (xs) => xs.reduce((a, b) => a + b, 0) / xs.length;

test("marked text is found, and only with the key", async () => {
  const marked = await Promise.all(SEEDS.map((seed) => write(seed, { watermark: true })));
  for (const c of marked) {
    const with_key = ids(c, "--watermark-key", key), without = ids(c);
    assert.ok(with_key.z_score > 4 && with_key.watermarked && with_key.p_value < 1e-6, JSON.stringify(with_key));
    assert.ok(Math.abs(without.z_score) < 4 && !without.watermarked, JSON.stringify(without));
    assert.ok(with_key.n_scored > 100 && with_key.n_green > without.n_green);
  }
});

test("the default strength shows over several texts", async (t) => {
  const usual = await serve(t, "--watermark-key", key);
  const zs = await Promise.all(SEEDS.map(async (seed) => {
    const r = await usual.post("/v1/completions", { prompt: "Once upon a time", max_tokens: 400, temperature: 1.5, seed, ignore_eos: true, watermark: true, return_token_ids: true });
    return ids((await r.json()).choices[0], "--watermark-key", key).z_score;
  }));
  assert.ok((mean(zs) * Math.sqrt(zs.length)) > 4, JSON.stringify(zs));   // the sum of independent z-scores
});

test("plain text is not", async () => {
  const plain = (await Promise.all(SEEDS.map((seed) => write(seed, {})))).map((c) => ids(c, "--watermark-key", key));
  for (const d of plain) assert.ok(Math.abs(d.z_score) < 4 && !d.watermarked, JSON.stringify(d));
  assert.ok(Math.abs(mean(plain.map((d) => d.z_score))) < 2);
});

test("text read again from a file is found as well", async () => {
  const file = key + ".txt";
  writeFileSync(file, (await write(9, { watermarking: true })).text);
  assert.ok(detect("--text-file", file, "--watermark-key", key).z_score > 4);
});

test("the same seed gives the same marked text; every choice is marked", async () => {
  const [a, b] = await Promise.all([write(3, { watermark: true }), write(3, { watermark: true })]);
  assert.deepEqual(a.token_ids, b.token_ids);
  const r = await (await server.post("/v1/completions", { prompt: "Once", n: 3, max_tokens: 200, temperature: 1.5, seed: 5, ignore_eos: true, watermark: true, return_token_ids: true })).json();
  for (const c of r.choices) assert.ok(ids(c, "--watermark-key", key).z_score > 4);
});

test("beams are refused", async () => {
  const r = await server.post("/v1/completions", { prompt: "a", use_beam_search: true, n: 2, max_tokens: 2, watermark: true });
  assert.equal(r.status, 400);
  assert.equal((await r.json()).error.param, "watermark");
});
