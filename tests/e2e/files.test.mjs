// Files and batches with the official client: kept on disk, over a restart, cancelled, expired, refused.
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import OpenAI, { toFile } from "openai";
import { serve, until } from "./serve.mjs";

const dir = join(mkdtempSync(join(tmpdir(), "quire-files-")), "kept");
let server, client;
const start = async () => {
  server = await serve(null, "--files-dir", dir, "--files-max-bytes", "3000000");
  client = new OpenAI({ baseURL: server.url + "/v1", apiKey: "unused", maxRetries: 0 });
};
before(start);
after(() => server.close());

const line = (id, body, url = "/v1/completions") => JSON.stringify({ custom_id: id, method: "POST", url, body });
const upload = async (lines, more) => client.files.create({ file: await toFile(Buffer.from(lines.join("\n") + "\n"), "in.jsonl"), purpose: "batch", ...more });
const over = (id) => until(async () => ["completed", "failed", "cancelled", "expired"].includes((await client.batches.retrieve(id)).status), "the batch's end");
const read = async (id) => (await (await client.files.content(id)).text()).trimEnd().split("\n").map(JSON.parse);

test("a file's life", async () => {
  const bytes = "\r\n--x\0 line\n" + "é".repeat(1000);
  const f = await client.files.create({ file: await toFile(Buffer.from(bytes), "a.jsonl"), purpose: "batch" });
  assert.match(f.id, /^file-[0-9a-f]{32}$/);
  assert.deepEqual([f.object, f.bytes, f.filename, f.purpose], ["file", Buffer.byteLength(bytes), "a.jsonl", "batch"]);
  assert.equal(await (await client.files.content(f.id)).text(), bytes);
  assert.deepEqual(await client.files.retrieve(f.id), f);
  assert.ok((await client.files.list()).data.some((x) => x.id === f.id));
  assert.equal((await client.files.delete(f.id)).deleted, true);
  await assert.rejects(client.files.retrieve(f.id), { status: 404 });
  assert.deepEqual(readdirSync(dir), []);
});

test("a batch: output in order, errors apart, counts", async () => {
  const f = await upload([line("a", { prompt: "Once", max_tokens: 3, temperature: 0 }), line("bad", { prompt: "x", n: -1 }), "junk",
    line("other", { input: "x" }, "/v1/embeddings"), line("b", { prompt: "Two", max_tokens: 3, temperature: 0 })]);
  const b = await client.batches.create({ input_file_id: f.id, endpoint: "/v1/completions", completion_window: "24h", metadata: { who: "test" } });
  assert.match(b.id, /^batch_[0-9a-f]{32}$/);
  await over(b.id);
  const done = await client.batches.retrieve(b.id);
  assert.equal(done.status, "completed", JSON.stringify(done));
  assert.deepEqual(done.request_counts, { total: 5, completed: 2, failed: 3 });
  assert.deepEqual(done.metadata, { who: "test" });
  assert.ok(done.created_at <= done.in_progress_at && done.in_progress_at <= done.completed_at && done.expires_at > done.completed_at);
  const out = await read(done.output_file_id), errors = await read(done.error_file_id);
  assert.deepEqual(out.map((x) => x.custom_id), ["a", "b"]);
  assert.deepEqual(errors.map((x) => x.custom_id), ["bad", null, "other"]);
  const same = await client.completions.create({ model: out[0].response.body.model, prompt: "Once", max_tokens: 3, temperature: 0 });
  assert.equal(out[0].response.body.choices[0].text, same.choices[0].text);
  assert.ok((await client.batches.list()).data.some((x) => x.id === b.id));
  await assert.rejects(client.batches.cancel(b.id), { status: 409 });
});

test("cancel, and a restart in the middle", async () => {
  const long = Array.from({ length: 1500 }, (_, i) => line("r" + i, { prompt: "Once upon a time " + i, max_tokens: 300, ignore_eos: true, seed: i }));
  const f = await upload(long);
  const one = await client.batches.create({ input_file_id: f.id, endpoint: "/v1/completions", completion_window: "24h" });
  await until(async () => (await client.batches.retrieve(one.id)).status === "in_progress", "its start");
  const small = await upload([line("s", { prompt: "a", max_tokens: 1 })]);
  const two = await client.batches.create({ input_file_id: small.id, endpoint: "/v1/completions", completion_window: "24h" });
  await server.close();   // a drain does not wait for batches
  await start();
  assert.equal((await client.batches.retrieve(one.id)).status === "completed", false);
  await until(async () => (await client.batches.retrieve(one.id)).status === "in_progress", "its second start");
  assert.ok(["cancelling", "cancelled"].includes((await client.batches.cancel(one.id)).status));
  await over(one.id);
  assert.equal((await client.batches.retrieve(one.id)).status, "cancelled");
  await over(two.id);
  assert.equal((await client.batches.retrieve(two.id)).status, "completed");
  await until(async () => (await server.metric("kv_blocks_held")) === 0, "all pages free");
});

test("files expire; a bound on their bytes", async () => {
  const f = await upload(["x"], { expires_after: { anchor: "created_at", seconds: 1 } });
  assert.equal(f.expires_at, f.created_at + 1);
  await until(async () => !(await client.files.list()).data.some((x) => x.id === f.id), "its end");
  await assert.rejects(client.files.content(f.id), { status: 404 });
  await assert.rejects(upload(["x".repeat(3000000)]), { status: 413 });
});

test("what is wrong is refused", async () => {
  await assert.rejects(client.files.create({ file: await toFile(Buffer.from("x"), "x"), purpose: "fine-tune" }), { status: 400, param: "purpose" });
  for (const id of ["file-1", "..%2f..%2fetc%2fpasswd", "file-" + "0".repeat(32)]) assert.equal((await fetch(`${server.url}/v1/files/${id}/content`)).status, 404);
  assert.equal((await fetch(server.url + "/v1/files", { method: "POST", body: "x" })).status, 415);
  const f = await upload([line("a", {})]);
  for (const [body, param] of [[{}, "input_file_id"], [{ input_file_id: f.id }, "endpoint"], [{ input_file_id: f.id, endpoint: "/v1/files" }, "endpoint"],
    [{ input_file_id: f.id, endpoint: "/v1/completions", completion_window: "1h" }, "completion_window"]]) {
    const r = await server.post("/v1/batches", body);
    assert.equal(r.status, 400);
    assert.equal((await r.json()).error.param, param);
  }
  assert.equal((await server.post("/v1/batches", { input_file_id: "file-" + "0".repeat(32), endpoint: "/v1/completions" })).status, 404);
});

test("without a folder there are none", async (t) => {
  const plain = await serve(t);
  assert.equal((await fetch(plain.url + "/v1/files")).status, 404);
});
