// `quire quantize` from its command line, and what it writes in use: run, score and serve, codes carried as they are stored.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { serve, until } from "./serve.mjs";

const root = fs.mkdtempSync(path.join(os.tmpdir(), "quire-quantize-"));
after(() => fs.rmSync(root, { recursive: true, force: true }));
const heldout = path.resolve(import.meta.dirname, "../../models/calibration/heldout.txt"), builtin = path.resolve(import.meta.dirname, "../../models/builtin");
const quire = (...args) => spawnSync(process.env.QUIRE, args, { encoding: "utf8" });
const quick = ["--calibration-tokens", "2000", "--heldout-tokens", "1000"];
const json = (...args) => {
  const r = quire(...args, "--json");
  assert.equal(r.status, 0, r.stderr);
  return JSON.parse(r.stdout);
};
const story = fs.readFileSync(heldout, "utf8").split("\f")[0];
const score = (...model) => json("score", ...model, "--text", story).perplexity;
const exact = score();

for (const [name, carried, bytes, args] of [
  ["int4 by GPTQ", "int4-g64", 0.45, ["--method", "gptq", "--act-order"]],
  ["int4 by AWQ, zero points", "int4-g32", 0.47, ["--method", "awq", "--asymmetric", "--group-size", "32"]],
  ["int8, smoothed", "int8", 0.65, ["--format", "int8", "--smooth", "0.5"]],
  ["fp8", "fp8", 0.65, ["--format", "fp8"]],
]) {
  test(name + ": written, run, scored", () => {
    const out = path.join(root, name.replace(/\W+/g, "-"));
    const report = json("quantize", out, ...quick, ...args);
    assert.ok(report.perplexity_after > 1 && report.perplexity_after < 1.05 * report.perplexity_before, JSON.stringify(report));
    assert.ok(report.divergence > 0 && report.divergence < 0.02, report.divergence);
    assert.ok(report.bytes_after < bytes * report.bytes_before, `${report.bytes_after} of ${report.bytes_before}`);
    assert.deepEqual(fs.readdirSync(out).sort(), [...new Set([...fs.readdirSync(builtin).filter((f) => f.endsWith(".json")), "model.safetensors"])].sort());
    assert.equal(fs.readFileSync(path.join(out, "tokenizer_config.json"), "utf8"), fs.readFileSync(path.join(builtin, "tokenizer_config.json"), "utf8"));
    const ppl = score(out);
    assert.ok(Math.abs(ppl / exact - 1) < 0.05, `${ppl}, exact ${exact}`);
    const run = quire("run", out, "-p", "Once upon a time", "--max-tokens", "12", "--temperature", "0", "--log-level", "info");
    assert.equal(run.status, 0, run.stderr);
    assert.match(run.stderr, new RegExp(`attn=${carried} `));
    assert.match(run.stdout, /\w+ \w+/);
  });
}

test("served with its chat template", async (t) => {
  const s = await serve(t, path.join(root, "int4-by-GPTQ"), "--num-kv-blocks", "200", "--packed-cache", "off");
  const body = { messages: [{ role: "user", content: "Tell me a story." }], max_tokens: 16, temperature: 0 };
  const r = await (await s.post("/v1/chat/completions", body)).json();
  assert.ok(r.choices[0].message.content.length > 10, JSON.stringify(r));
  await s.close();
});

test("killed and started again; bad options", async () => {
  const out = path.join(root, "killed"), args = ["quantize", out, "--method", "gptq", ...quick, "--json"];
  const child = spawn(process.env.QUIRE, args, { stdio: "ignore" });
  const ended = new Promise((resolve) => child.on("exit", (code, signal) => resolve(signal)));
  await until(() => fs.existsSync(path.join(out, ".quantize-state")), "a first state");
  child.kill("SIGKILL");
  assert.equal(await ended, "SIGKILL");
  assert.equal(fs.existsSync(path.join(out, "config.json")), false);
  const refused = quire("run", out, "-p", "x");
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /config\.json/);
  const other = quire(...args, "--damp", "0.5");
  assert.equal(other.status, 1);
  assert.match(other.stderr, /other options/);
  assert.equal(quire(...args).status, 0);
  assert.ok(score(out) > 1);
  const bad = [["--format", "int5"], ["--format", "int4-g64"], ["--method", "best"], ["--recipe", "*"], ["--recipe", "*=int8-g32"], ["--recipe", "*=int4-g0"], ["--act-order"]];
  for (const more of bad) {
    const r = quire("quantize", path.join(root, "never"), ...more);
    assert.equal(r.status, 2, more.join(" "));
    assert.match(r.stderr, new RegExp(more[0]));
  }
  assert.equal(fs.existsSync(path.join(root, "never")), false);
});
