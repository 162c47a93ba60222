// quire batch: files in, files out.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";

const dir = fs.mkdtempSync(path.join(os.tmpdir(), "quire-batch-"));
after(() => fs.rmSync(dir, { recursive: true }));

const batch = (...args) => new Promise((resolve) => execFile(process.env.QUIRE, ["batch", ...args], (error, stdout, stderr) => resolve({ code: error?.code ?? 0, stderr })));
const line = (custom_id, body, url = "/v1/completions") => JSON.stringify({ custom_id, method: "POST", url, body });

async function run(lines, ...args) {
  const input = path.join(dir, "in.jsonl"), output = path.join(dir, "out.jsonl");
  fs.rmSync(output, { force: true });
  fs.writeFileSync(input, lines.join("\n") + "\n");
  const { code, stderr } = await batch("-i", input, "-o", output, ...args);
  assert.equal(code, 0, stderr);
  return fs.readFileSync(output, "utf8").trimEnd().split("\n").map((l) => JSON.parse(l));
}

test("answers in input order, the same whatever runs beside them", async () => {
  const lines = Array.from({ length: 60 }, (_, i) => line(`r${i}`, { prompt: "Once upon a time", max_tokens: 1 + ((i * 7) % 40), seed: i % 3 }));
  lines.push(line("chat", { messages: [{ role: "user", content: "What is quire?" }], temperature: 0 }, "/v1/chat/completions"));
  const wide = await run(lines), narrow = await run(lines, "--max-in-flight", "1"), small = await run(lines, "--max-num-seqs", "4");
  assert.deepEqual(wide.map((r) => r.custom_id), lines.map((l) => JSON.parse(l).custom_id));
  wide.forEach((r, i) => {
    assert.equal(r.error, null);
    assert.equal(r.response.status_code, 200);
    assert.deepEqual(r.response.body.choices, narrow[i].response.body.choices);
    assert.deepEqual(r.response.body.choices, small[i].response.body.choices);
  });
  assert.match(wide[60].response.body.choices[0].message.content, /language model/i);
});

test("structured output, offline", async () => {
  const schema = { type: "object", properties: { n: { type: "integer", minimum: 1, maximum: 9 } }, required: ["n"] };
  const out = await run([
    line("schema", { messages: [{ role: "user", content: "hi" }], response_format: { type: "json_schema", json_schema: { name: "x", schema } } }, "/v1/chat/completions"),
    line("regex", { prompt: "a", max_tokens: 20, guided_regex: "[ab]{3}" }),
    line("bad", { prompt: "a", max_tokens: 20, guided_regex: "(" }),
  ]);
  assert.match(out[0].response.body.choices[0].message.content, /^\{\s*"n": ?[1-9]\s*\}$/);
  assert.match(out[1].response.body.choices[0].text, /^[ab]{3}$/);
  assert.equal(out[2].response?.status_code ?? 400, 400);
});

test("embeddings, scores and ranks", async () => {
  const out = await run([line("e", { input: ["a", "b"] }, "/v1/embeddings"), line("s", { text_1: "a", text_2: "a" }, "/score"),
    line("r", { query: "a", documents: ["b", "a"] }, "/v1/rerank"), line("p", { input: "a" }, "/v1/responses"), line("bad", { input: [] }, "/v1/embeddings")]);
  assert.equal(out[0].response.body.data.length, 2);
  assert.ok(Math.abs(out[1].response.body.data[0].score - 1) < 1e-5);
  assert.equal(out[2].response.body.results[0].index, 1);
  assert.equal(out[3].response.body.object, "response");
  assert.equal(out[4].error.param, "input");
});

test("bad lines get error lines", async () => {
  const out = await run([
    line("ok", { prompt: "a", max_tokens: 1 }), "not json", line("stream", { prompt: "a", stream: true }), line("url", {}, "/v1/embeddings"),
    JSON.stringify({ custom_id: "method", method: "GET", url: "/v1/completions", body: {} }), line("long", { prompt: [5], max_tokens: 1e6 }), "", "[1]",
    line("last", { prompt: "b", max_tokens: 1 }),
  ]);
  assert.deepEqual(out.map((r) => r.custom_id), ["ok", null, "stream", "url", "method", "long", null, "last"]);
  assert.deepEqual(out.map((r) => r.response.status_code), [200, 400, 400, 400, 400, 400, 400, 200]);
  assert.equal(out[2].error.message, "Request must not be sent in stream mode");
  assert.match(out[5].error.message, /maximum context length/);
  assert.equal(out[5].error.param, "prompt");
});

test("a job that cannot run leaves no file", async () => {
  const output = path.join(dir, "none.jsonl");
  assert.equal((await batch("-i", path.join(dir, "missing.jsonl"), "-o", output)).code, 1);
  assert.equal((await batch("-i", path.join(dir, "in.jsonl"), "-o", path.join(dir, "no/such/dir.jsonl"))).code, 1);
  assert.equal((await batch("-i", path.join(dir, "in.jsonl"))).code, 2);
  assert.ok(!fs.existsSync(output));
  assert.deepEqual(fs.readdirSync(dir).filter((f) => f.includes(".tmp")), []);
});
