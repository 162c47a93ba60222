// Files and batches with the official client: kept on disk, owned by keys, in pages, over a crash, with several models, cancelled, expired, refused.
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import OpenAI, { toFile } from "openai";
import { serve, until } from "./serve.mjs";

const root = mkdtempSync(join(tmpdir(), "quire-files-")), dir = join(root, "kept");
let server, client;
const start = async () => {
  server = await serve(null, "--files-dir", dir, "--files-max-bytes", "3000000");
  client = new OpenAI({ baseURL: server.url + "/v1", apiKey: "unused", maxRetries: 0 });
};
before(start);
after(async () => {
  await server.close();
  rmSync(root, { recursive: true });
});

const line = (id, body, url = "/v1/completions") => JSON.stringify({ custom_id: id, method: "POST", url, body });
const ends = ["completed", "failed", "cancelled", "expired"];
const open = (s, apiKey = "unused") => new OpenAI({ baseURL: s.url + "/v1", apiKey, maxRetries: 0 });
const uploadTo = async (c, lines, more) => c.files.create({ file: await toFile(Buffer.from(lines.map((l) => l + "\n").join("")), "in.jsonl"), purpose: "batch", ...more });
const upload = (lines, more) => uploadTo(client, lines, more);
/** Nothing else bounds how long that takes: a machine may be slow. */
async function over(id, c = client) {
  await until(async () => ends.includes((await c.batches.retrieve(id)).status), "the batch's end", 300);
  return c.batches.retrieve(id);
}
const read = async (id, c = client) => (await (await c.files.content(id)).text()).trimEnd().split("\n").map((l) => JSON.parse(l));
const kept = (where) => readdirSync(where).filter((name) => name !== "lock");
/** The answers that the journal of a batch holds, by line. */
function journal(where, id) {
  const path = join(where, id + ".part"), found = new Map();
  if (!existsSync(path)) return found;
  for (const record of readFileSync(path, "utf8").split("\n").slice(0, -1)) found.set(Number(record.split(" ")[1]), record.split(" ").slice(4).join(" "));
  return found;
}

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
  assert.deepEqual(kept(dir), []);
});

test("a batch: output in order, errors apart, counts", async () => {
  const f = await upload([line("a", { prompt: "Once", max_tokens: 3, temperature: 0 }), line("bad", { prompt: "x", n: -1 }), "junk",
    line("other", { input: "x" }, "/v1/embeddings"), line("b", { prompt: "Two", max_tokens: 3, temperature: 0 })]);
  const b = await client.batches.create({ input_file_id: f.id, endpoint: "/v1/completions", completion_window: "24h", metadata: { who: "test" } });
  assert.match(b.id, /^batch_[0-9a-f]{32}$/);
  const done = await over(b.id);
  assert.equal(done.status, "completed", JSON.stringify(done));
  assert.deepEqual(done.request_counts, { total: 5, completed: 2, failed: 3 });
  assert.deepEqual(done.metadata, { who: "test" });
  assert.ok(done.created_at <= done.in_progress_at && done.in_progress_at <= done.completed_at && done.expires_at > done.completed_at);
  const out = await read(done.output_file_id), errors = await read(done.error_file_id);
  assert.deepEqual(out.map((x) => x.custom_id), ["a", "b"]);
  assert.deepEqual(errors.map((x) => x.custom_id), ["bad", null, "other"]);
  for (const x of errors) {
    assert.equal(x.error, null);
    assert.equal(x.response.status_code, 400);
    assert.ok(x.response.body.error.message);
  }
  for (const x of [...out, ...errors]) assert.match(x.id, /^batch_req_/);
  const file = await client.files.retrieve(done.error_file_id);
  assert.deepEqual([file.purpose, file.filename], ["batch_output", b.id + "_error.jsonl"]);
  assert.ok(done.finalizing_at >= done.in_progress_at && done.completed_at >= done.finalizing_at);
  assert.deepEqual([done.errors, done.failed_at, done.cancelled_at, done.expired_at], [null, null, null, null]);
  const same = await client.completions.create({ model: out[0].response.body.model, prompt: "Once", max_tokens: 3, temperature: 0 });
  assert.equal(out[0].response.body.choices[0].text, same.choices[0].text);
  assert.ok((await client.batches.list()).data.some((x) => x.id === b.id));
  await assert.rejects(client.batches.cancel(b.id), { status: 409 });
});

test("lists in pages, as the client turns them", async (t) => {
  const where = join(root, "pages"), s = await serve(t, "--files-dir", where), c = open(s);
  const ids = [];
  for (let i = 0; i < 7; i++) ids.push((await uploadTo(c, ["x" + i])).id);
  const all = async (list) => {
    const seen = [];
    for await (const f of list) seen.push(f.id);
    return seen;
  };
  assert.deepEqual(await all(c.files.list()), ids.toReversed());
  assert.deepEqual(await all(c.files.list({ limit: 2 })), ids.toReversed());
  assert.deepEqual(await all(c.files.list({ limit: 3, order: "asc" })), ids);
  assert.deepEqual(await all(c.files.list({ limit: 7, order: "desc" })), ids.toReversed());
  assert.deepEqual(await all(c.files.list({ after: ids[2], order: "asc" })), ids.slice(3));
  const page = await (await fetch(s.url + "/v1/files?limit=2&order=asc")).json();
  assert.deepEqual([page.object, page.has_more, page.first_id, page.last_id, page.data.length], ["list", true, ids[0], ids[1], 2]);
  const last = await (await fetch(s.url + `/v1/files?limit=2&order=asc&after=${ids[4]}`)).json();
  assert.deepEqual([last.has_more, last.first_id, last.last_id], [false, ids[5], ids[6]]);
  assert.equal((await (await fetch(s.url + "/v1/files?limit=7")).json()).has_more, false);
  const empty = await (await fetch(s.url + "/v1/files?purpose=batch_output")).json();
  assert.deepEqual(empty, { object: "list", data: [], first_id: null, last_id: null, has_more: false });
  for (const [query, param] of [["limit=0", "limit"], ["limit=10001", "limit"], ["limit=x", "limit"], ["order=up", "order"], ["after=file-1", "after"], ["after=" + "batch_" + "0".repeat(32), "after"]]) {
    const r = await fetch(s.url + "/v1/files?" + query);
    assert.equal(r.status, 400, query);
    assert.equal((await r.json()).error.param, param);
  }
  // Batches, and the files they make.
  const batches = [];
  for (let i = 0; i < 5; i++) batches.push((await c.batches.create({ input_file_id: (await uploadTo(c, [line("a", { prompt: "a", max_tokens: 1 })])).id, endpoint: "/v1/completions", completion_window: "24h" })).id);
  for (const id of batches) assert.equal((await over(id, c)).status, "completed");
  assert.deepEqual(await all(c.batches.list({ limit: 2 })), batches.toReversed());
  assert.equal((await fetch(s.url + "/v1/batches?limit=101")).status, 400);
  const outputs = [];
  for await (const f of c.files.list({ purpose: "batch_output", limit: 2 })) outputs.push(f.purpose);
  assert.deepEqual(outputs, Array(5).fill("batch_output"));
  // The usual way to empty a store: the page's last file is gone when the next page is asked for.
  for await (const f of c.files.list({ limit: 2 })) await c.files.delete(f.id);
  assert.deepEqual(await all(c.files.list()), []);
  await s.close();
});

test("files and batches belong to the key that made them", async (t) => {
  const where = join(root, "owned"), keys = join(root, "keys");
  writeFileSync(keys, "sk-alice-0001 name=alice\nsk-bob-000001 name=bob\n");
  let s = await serve(t, "--files-dir", where);
  const old = await uploadTo(open(s), ["from before there were keys"]);
  await s.close();
  s = await serve(t, "--files-dir", where, "--api-key-file", keys);
  let alice = open(s, "sk-alice-0001"), bob = open(s, "sk-bob-000001");
  const f = await uploadTo(alice, [line("a", { prompt: "a", max_tokens: 1 }), "junk"]);
  const b = await alice.batches.create({ input_file_id: f.id, endpoint: "/v1/completions", completion_window: "24h" });
  const done = await over(b.id, alice);
  assert.deepEqual(done.request_counts, { total: 2, completed: 1, failed: 1 });
  const hidden = [f.id, done.output_file_id, done.error_file_id];
  for (const id of hidden) {
    assert.equal((await alice.files.retrieve(id)).id, id);
    for (const f of [() => bob.files.retrieve(id), () => bob.files.content(id), () => bob.files.delete(id)]) await assert.rejects(f(), { status: 404 });
  }
  await assert.rejects(bob.batches.retrieve(b.id), { status: 404 });
  await assert.rejects(bob.batches.cancel(b.id), { status: 404 });
  await assert.rejects(bob.batches.create({ input_file_id: f.id, endpoint: "/v1/completions", completion_window: "24h" }), { status: 404 });
  assert.deepEqual((await bob.files.list()).data.map((x) => x.id), [old.id]);
  assert.deepEqual((await bob.batches.list()).data, []);
  assert.equal((await alice.files.list()).data.length, 4);
  assert.equal((await alice.batches.list()).data[0].id, b.id);
  assert.equal((await fetch(s.url + "/v1/files")).status, 401);
  for (const name of kept(where)) assert.doesNotMatch(readFileSync(join(where, name), "utf8"), /sk-alice|sk-bob/, name);
  assert.doesNotMatch(JSON.stringify([f, b, done]), /owner/);
  await s.close();
  s = await serve(t, "--files-dir", where, "--api-key", "sk-bob-000001", "--api-key", "sk-alice-0001");   // the key counts, not its name
  alice = open(s, "sk-alice-0001");
  assert.equal((await alice.batches.retrieve(b.id)).status, "completed");
  assert.equal((await open(s, "sk-bob-000001").files.list()).data.length, 1);
  await s.close();
  s = await serve(t, "--files-dir", where);
  assert.equal((await open(s).files.list()).data.length, 4);
  await s.close();
});

test("killed in the middle, a batch goes on where it was", async (t) => {
  const where = join(root, "killed"), flags = ["--files-dir", where, "--max-num-seqs", "2"], n = 100;
  let s = await serve(t, ...flags), c = open(s);
  const body = (i) => ({ prompt: "Once upon a time", max_tokens: 400, ignore_eos: true, seed: i });
  const f = await uploadTo(c, Array.from({ length: n }, (_, i) => line("r" + i, i === 1 ? { prompt: 5 } : body(i))));
  const b = await c.batches.create({ input_file_id: f.id, endpoint: "/v1/completions", completion_window: "24h" });
  const before = new Map();
  let lost;
  for (let life = 1; life <= 2; life++) {
    const isOver = () => JSON.parse(readFileSync(join(where, b.id + ".json"), "utf8")).status === "completed";
    await until(() => journal(where, b.id).size >= 8 * life || isOver(), "some answers", 300);
    if (life === 1 && isOver()) return t.skip("the batch was over before it could be killed");
    s.kill("SIGKILL");
    await s.exited;
    const path = join(where, b.id + ".part"), whole = journal(where, b.id);
    if (existsSync(path) && life === 1) {   // what a crash of the machine may leave
      const records = [...whole], text = readFileSync(path);
      lost = records.at(-1)[0];
      whole.delete(lost);
      truncateSync(path, text.lastIndexOf(10, text.length - 2) + 20);
    }
    for (const [index, text] of before) if (whole.size) assert.equal(whole.get(index), text);
    whole.forEach((text, index) => before.set(index, text));
    s = await serve(t, ...flags);
    c = open(s);
  }
  const done = await over(b.id, c);
  assert.equal(done.status, "completed", JSON.stringify(done));
  assert.deepEqual(done.request_counts, { total: n, completed: n - 1, failed: 1 });
  const out = await read(done.output_file_id, c), errors = await read(done.error_file_id, c);
  assert.deepEqual(out.map((x) => x.custom_id), Array.from({ length: n }, (_, i) => "r" + i).filter((id) => id !== "r1"));
  assert.deepEqual(errors.map((x) => x.custom_id), ["r1"]);
  assert.ok(before.size >= 8);
  const byId = new Map([...out, ...errors].map((x) => [x.custom_id, x]));
  for (const [index, text] of before) assert.deepEqual(byId.get("r" + index), JSON.parse(text), "line " + index);   // ids are random: not computed again
  for (const i of [0, lost ?? 2, n - 1]) {
    if (i === 1) continue;
    const alone = await (await s.post("/v1/completions", body(i))).json();
    assert.equal(byId.get("r" + i).response.body.choices[0].text, alone.choices[0].text);
  }
  assert.equal(existsSync(join(where, b.id + ".part")), false);
  assert.deepEqual(kept(where).filter((name) => !/^(file-[0-9a-f]{32}\.(json|data)|batch_[0-9a-f]{32}\.json)$/.test(name)), []);
  await until(async () => (await s.metric("kv_blocks_held")) === 0, "all pages free");
  await s.close();
});

test("cancel: of one that runs, after a restart, and of one that waits", async () => {
  const long = Array.from({ length: 1500 }, (_, i) => line("r" + i, { prompt: "Once upon a time " + i, max_tokens: 300, ignore_eos: true, seed: i }));
  const f = await upload(long);
  const order = (input_file_id) => client.batches.create({ input_file_id, endpoint: "/v1/completions", completion_window: "24h" });
  const one = await order(f.id);
  await until(async () => (await client.batches.retrieve(one.id)).status === "in_progress", "its start", 60);
  await assert.rejects(client.files.delete(f.id), { status: 409 });
  const small = await upload([line("s", { prompt: "a", max_tokens: 1 })]);
  const two = await order(small.id), three = await order(small.id);
  await server.close();   // a drain does not wait for batches
  await start();
  assert.equal((await client.batches.retrieve(one.id)).status, "in_progress");
  const waiting = await client.batches.cancel(three.id);
  assert.equal(waiting.status, "cancelled");
  assert.deepEqual([waiting.output_file_id, waiting.error_file_id, waiting.request_counts.total], [null, null, 0]);
  await until(() => journal(dir, one.id).size >= 3, "some answers", 120);
  assert.ok(["cancelling", "cancelled"].includes((await client.batches.cancel(one.id)).status));
  const done = await over(one.id);
  assert.equal(done.status, "cancelled");
  assert.ok(done.cancelling_at && done.cancelled_at >= done.cancelling_at);
  assert.equal(done.request_counts.total, 1500);
  assert.equal(done.request_counts.failed, 0);
  assert.ok(done.request_counts.completed >= 3 && done.request_counts.completed < 1500);
  assert.equal((await read(done.output_file_id)).length, done.request_counts.completed);
  assert.equal(done.error_file_id, null);
  assert.equal((await over(two.id)).status, "completed");
  await assert.rejects(client.batches.cancel(one.id), { status: 409 });
  await until(async () => (await server.metric("kv_blocks_held")) === 0, "all pages free");
  await client.files.delete(f.id);
});

test("a batch over several models", async (t) => {
  const where = join(root, "models");
  const s = await serve(t, "--model", "a=", "--model", "b=", "--model", "gone=/no/such/folder", "--max-loaded-models", "1", "--num-kv-blocks", "200", "--packed-cache", "off", "--files-dir", where), c = open(s);
  const body = (i) => ({ prompt: "Once upon a time", max_tokens: 40, ignore_eos: true, seed: i });
  const names = ["a", "b", undefined, "nobody", "gone"], n = 40;
  const f = await uploadTo(c, [...Array.from({ length: n }, (_, i) => line("r" + i, { model: names[i % 5], ...body(i) })), "junk", line("typed", { model: 5, prompt: "x" })]);
  const b = await c.batches.create({ input_file_id: f.id, endpoint: "/v1/completions", completion_window: "24h" });
  // Requests for either model go on meanwhile.
  for (let i = 0; i < 6; i++) assert.equal((await s.post("/v1/completions", { model: "ab"[i % 2], prompt: "Once", max_tokens: 3 })).status, 200);
  const done = await over(b.id, c);
  assert.equal(done.status, "completed");
  assert.deepEqual(done.request_counts, { total: n + 2, completed: n * 3 / 5, failed: n * 2 / 5 + 2 });
  const out = await read(done.output_file_id, c), errors = await read(done.error_file_id, c);
  for (const x of out) {
    const i = Number(x.custom_id.slice(1));
    assert.equal(x.response.body.model, names[i % 5] ?? "a");
  }
  for (const i of [0, 1, 2]) {
    const alone = await (await s.post("/v1/completions", { model: "a", ...body(i) })).json();
    assert.equal(out.find((x) => x.custom_id === "r" + i).response.body.choices[0].text, alone.choices[0].text);
  }
  for (const x of errors.slice(0, -2)) {
    const nobody = names[Number(x.custom_id.slice(1)) % 5] === "nobody";
    assert.equal(x.response.status_code, nobody ? 404 : 500);
    assert.match(x.response.body.error.message, nobody ? /^The model `nobody` does not exist\.$/ : /could not be loaded/);
  }
  assert.deepEqual(errors.slice(-2).map((x) => [x.custom_id, x.response.status_code]), [[null, 400], ["typed", 400]]);
  await s.close();
});

test("no model is kept from others by a long batch", async (t) => {
  const s = await serve(t, "--model", "a=", "--model", "b=", "--max-loaded-models", "1", "--num-kv-blocks", "200", "--packed-cache", "off", "--files-dir", join(root, "long")), c = open(s);
  const f = await uploadTo(c, Array.from({ length: 3000 }, (_, i) => line("r" + i, { model: "a", prompt: "Once", max_tokens: 200, ignore_eos: true, seed: i })));
  const b = await c.batches.create({ input_file_id: f.id, endpoint: "/v1/completions", completion_window: "24h" });
  await until(async () => (await c.batches.retrieve(b.id)).request_counts.completed > 0, "its first answers", 120);
  assert.equal((await s.post("/v1/completions", { model: "b", prompt: "Once", max_tokens: 3 })).status, 200);
  assert.equal((await s.post("/v1/completions", { model: "a", prompt: "Once", max_tokens: 3 })).status, 200);
  await c.batches.cancel(b.id);
  const done = await over(b.id, c);
  assert.equal(done.status, "cancelled", "it was over before anybody else had a turn");
  assert.equal(done.request_counts.failed, 0);
  await s.close();
});

test("a disk that is full holds a batch up and loses nothing", async (t) => {
  const where = join(root, "full"), quire = process.env.QUIRE, wrapper = join(root, "limited");
  writeFileSync(wrapper, `#!/bin/sh\nulimit -f 16\nexec ${quire} "$@"\n`, { mode: 0o755 });
  process.env.QUIRE = wrapper;
  let s = await serve(t, "--files-dir", where, "--packed-cache", "off").finally(() => (process.env.QUIRE = quire));
  let c = open(s);
  const f = await uploadTo(c, Array.from({ length: 30 }, (_, i) => line("r" + i, { prompt: "Once", max_tokens: 100, ignore_eos: true, seed: i })));
  const b = await c.batches.create({ input_file_id: f.id, endpoint: "/v1/completions", completion_window: "24h" });
  await until(() => /waits: the answers of a batch cannot be kept/.test(s.log()), "a word about it", 120);
  assert.equal((await c.batches.retrieve(b.id)).status, "in_progress");
  assert.equal((await s.post("/v1/completions", { prompt: "Once", max_tokens: 3 })).status, 200);
  await s.close();
  const before = journal(where, b.id);
  assert.ok(before.size > 0 && before.size < 30);
  s = await serve(t, "--files-dir", where);
  c = open(s);
  const done = await over(b.id, c);
  assert.deepEqual(done.request_counts, { total: 30, completed: 30, failed: 0 });
  const out = await read(done.output_file_id, c);
  for (const [index, text] of before) assert.deepEqual(out[index], JSON.parse(text));
  await s.close();
});

test("failed and expired", async () => {
  const order = (input_file_id) => client.batches.create({ input_file_id, endpoint: "/v1/completions", completion_window: "24h" });
  const empty = await over((await order((await upload(["", " "])).id)).id);
  assert.equal(empty.status, "failed");
  assert.deepEqual(empty.errors, { object: "list", data: [{ code: "empty_file", message: "the input file has no lines", param: null, line: null }] });
  assert.ok(empty.failed_at);
  assert.deepEqual([empty.output_file_id, empty.error_file_id, empty.completed_at], [null, null, null]);
  // The window's end, which a test cannot wait for, is put before its beginning.
  const f = await upload(Array.from({ length: 400 }, (_, i) => line("r" + i, { prompt: "Once upon a time", max_tokens: 300, ignore_eos: true, seed: i })));
  const b = await client.batches.create({ input_file_id: f.id, endpoint: "/v1/completions", completion_window: "24h", output_expires_after: { anchor: "created_at", seconds: 7200 } });
  await until(() => journal(dir, b.id).size >= 3, "some answers", 120);
  await server.close();
  const path = join(dir, b.id + ".json"), meta = JSON.parse(readFileSync(path, "utf8"));
  assert.equal(meta.status, "in_progress");
  writeFileSync(path, JSON.stringify({ ...meta, expires_at: meta.created_at - 1 }));
  const answered = journal(dir, b.id).size;
  await start();
  const done = await over(b.id);
  assert.equal(done.status, "expired");
  assert.ok(done.expired_at);
  assert.deepEqual(done.request_counts, { total: 400, completed: answered, failed: 400 - answered });
  assert.equal((await read(done.output_file_id)).length, answered);
  const errors = await read(done.error_file_id);
  assert.deepEqual(errors.map((x) => [x.response, x.error.code]), Array(400 - answered).fill([null, "batch_expired"]));
  assert.equal(new Set(errors.map((x) => x.custom_id)).size, errors.length);
  const file = await client.files.retrieve(done.output_file_id);
  assert.equal(file.expires_at, file.created_at + 7200);
  assert.equal((await client.files.retrieve(f.id)).expires_at, null);
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
    [{ input_file_id: f.id, endpoint: "/v1/completions", completion_window: "1h" }, "completion_window"], [{ input_file_id: f.id, endpoint: "/v1/completions", metadata: { a: 1 } }, "metadata"],
    [{ input_file_id: f.id, endpoint: "/v1/completions", output_expires_after: { anchor: "now", seconds: 5 } }, "output_expires_after"]]) {
    const r = await server.post("/v1/batches", body);
    assert.equal(r.status, 400);
    assert.equal((await r.json()).error.param, param);
  }
  assert.equal((await server.post("/v1/batches", { input_file_id: "file-" + "0".repeat(32), endpoint: "/v1/completions" })).status, 404);
});

test("two servers do not share a folder", async (t) => {
  await assert.rejects(serve(t, "--files-dir", dir), /another server uses it/);
});

test("without a folder there are none", async (t) => {
  const plain = await serve(t);
  assert.equal((await fetch(plain.url + "/v1/files")).status, 404);
});
