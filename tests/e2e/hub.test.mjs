// quire pull, and hub ids as MODEL, against a stand-in hub.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { hub, repo } from "./hub.mjs";
import { serve, until } from "./serve.mjs";

const builtin = path.resolve(import.meta.dirname, "../../models/builtin");
const model = () => Object.fromEntries(["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"].map((f) => [f, fs.readFileSync(path.join(builtin, f))]));
/** Deterministic bytes. */
const noise = (n, seed = 1) => crypto.createCipheriv("aes-128-ctr", Buffer.alloc(16, seed), Buffer.alloc(16)).update(Buffer.alloc(n));
const big = (n, more = {}) => repo({ "config.json": "{}", "tokenizer.json": "{}", "model.safetensors": noise(n), "README.md": "hello", ...more });

function cache(t) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "quire-hub-"));
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Runs quire with a clean environment; kill: (child) => void may end it early. */
function quire(h, home, args, { env = {}, started } = {}) {
  return new Promise((resolve) => {
    const child = spawn(process.env.QUIRE, args, { env: { PATH: process.env.PATH, HOME: home, HF_HOME: home, HF_ENDPOINT: h.url ?? h, NO_PROXY: "*", ...env }, stdio: ["ignore", "pipe", "pipe"] });
    let out = "", err = "";
    child.stdout.on("data", (d) => (out += d));
    child.stderr.on("data", (d) => (err += d));
    child.on("close", (code, signal) => resolve({ code, signal, out: out.trim(), err }));
    started?.(child);
  });
}
const pull = (h, home, ...args) => quire(h, home, ["pull", ...args]);
const walk = (dir) => fs.existsSync(dir) ? fs.readdirSync(dir, { recursive: true, withFileTypes: true }).filter((d) => !d.isDirectory()).map((d) => path.relative(dir, path.join(d.parentPath ?? d.path, d.name))).sort() : [];
const blobs = (home, name = "org--name") => walk(path.join(home, "hub", `models--${name}`, "blobs"));

test("the layout is that of Hugging Face's tools", async (t) => {
  const home = cache(t);
  const r = repo({ ...model(), "README.md": "x", "pytorch_model.bin": "x", "onnx/model.onnx": "x", "consolidated.safetensors": "x", "additional_chat_templates/tool.jinja": "t" });
  const h = await hub(t, { "org/name": r });
  const p = await pull(h, home, "org/name");
  assert.equal(p.code, 0, p.err);
  const base = path.join(home, "hub", "models--org--name");
  assert.equal(p.out, path.join(base, "snapshots", r.commit));
  assert.deepEqual(walk(p.out), ["additional_chat_templates/tool.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
  for (const f of walk(p.out)) {
    const e = r.entries.find((x) => x.name === f);
    assert.equal(fs.readlinkSync(path.join(p.out, f)), `${"../".repeat(f.split("/").length + 1)}blobs/${e.oid}`);
    assert.deepEqual(fs.readFileSync(path.join(p.out, f)), e.data);
  }
  assert.equal(fs.readFileSync(path.join(base, "refs/main"), "utf8"), r.commit);
  assert.ok(fs.existsSync(path.join(base, ".no_exist", r.commit, "special_tokens_map.json")));
  assert.ok(!fs.existsSync(path.join(base, ".no_exist", r.commit, "config.json")));
  assert.ok(!blobs(home).some((b) => b.endsWith(".incomplete")));
  assert.ok(walk(path.join(home, "hub/.locks/models--org--name")).length >= 5);
  const before = h.log.length;
  const again = await pull(h, home, "org/name");
  assert.equal(again.out, p.out);
  assert.equal(h.log.length, before + 1); // the list, and nothing else
});

test("a hub id is a MODEL: downloaded once, then used without network", async (t) => {
  const home = cache(t), h = await hub(t, { "org/name": repo(model()) });
  const args = ["run", "org/name", "-p", "Once upon a time", "--temperature", "0", "--max-tokens", "12", "--packed-cache", "off"];
  const first = await quire(h, home, args);
  assert.equal(first.code, 0, first.err);
  const local = await quire(h, home, ["run", builtin, ...args.slice(2)]);
  assert.equal(first.out, local.out);
  const n = h.log.length;
  assert.equal((await quire(h, home, args)).out, local.out);
  assert.equal((await quire("http://127.0.0.1:9", home, args)).out, local.out);
  assert.equal((await quire("http://127.0.0.1:9", home, args, { env: { HF_HUB_OFFLINE: "1" } })).out, local.out);
  assert.equal(h.log.length, n);
  const tok = await quire(h, home, ["tokenize", "org/name", "--text", "Hello"]);
  assert.equal(tok.out, (await quire(h, home, ["tokenize", builtin, "--text", "Hello"])).out);
});

test("tokenize downloads no weights; serve names the model by its id", async (t) => {
  const home = cache(t), h = await hub(t, { "org/name": repo(model()) });
  assert.equal((await quire(h, home, ["tokenize", "org/name", "--text", "Hello"])).code, 0);
  assert.ok(!h.log.some((l) => l.path.includes("safetensors")), JSON.stringify(h.log));
  Object.assign(process.env, { HF_HOME: home, HF_ENDPOINT: h.url, NO_PROXY: "*" });
  t.after(() => ["HF_HOME", "HF_ENDPOINT"].forEach((k) => delete process.env[k]));
  const server = await serve(t, "org/name", "--packed-cache", "off");
  assert.equal((await (await fetch(server.url + "/v1/models")).json()).data[0].id, "org/name");
  assert.equal((await (await server.post("/v1/completions", { model: "org/name", prompt: "Once", max_tokens: 2 })).json()).model, "org/name");
  await server.close();
});

test("large files come in parallel ranges, and the token does not leave the hub", async (t) => {
  const home = cache(t), h = await hub(t, { "org/name": big(100 << 20) }, { token: "hf_secret" });
  const p = await quire(h, home, ["pull", "org/name", "--json"], { env: { HF_TOKEN: "hf_secret" } });
  assert.equal(p.code, 0, p.err);
  const j = JSON.parse(p.out);
  assert.equal(j.downloaded_bytes, (100 << 20) + 2); // two files with one content are one blob;
  assert.deepEqual(new Set(h.log.filter((l) => l.kind === "cdn").map((l) => l.range)), new Set(["bytes=0-33554431", "bytes=33554432-67108863", "bytes=67108864-100663295", "bytes=100663296-104857599"]));
  assert.deepEqual([...h.tokens.hub], ["Bearer hf_secret"]);
  assert.deepEqual([...h.tokens.cdn], []);
  // the token's file, as `huggingface-cli login` leaves it
  const other = cache(t);
  fs.writeFileSync(path.join(other, "token"), "hf_secret\n");
  assert.equal((await pull(h, other, "org/name", "--text-only")).code, 0);
  assert.equal((await pull(h, cache(t), "org/name")).code, 1);
});

test("revisions", async (t) => {
  const home = cache(t), r = repo({ ...model() }, { commit: "c".repeat(40), refs: ["main", "v1.0", "refs/pr/7"] });
  const h = await hub(t, { "org/name": r });
  assert.equal((await pull(h, home, "org/name@v1.0", "--text-only")).code, 0);
  assert.equal((await pull(h, home, "org/name", "--revision", "refs/pr/7", "--text-only")).code, 0);
  assert.equal((await pull(h, home, `org/name@${r.commit}`, "--text-only")).code, 0);
  assert.deepEqual(walk(path.join(home, "hub/models--org--name/refs")), ["refs/pr/7", "v1.0"]);
  const bad = await pull(h, home, "org/name@nope");
  assert.equal(bad.code, 1);
  assert.match(bad.err, /org\/name@nope: there is no such revision/);
  assert.equal((await quire(h, home, ["tokenize", `org/name@${r.commit}`, "--offline", "--text", "a"])).code, 0);
});

test("refusals say what to do", async (t) => {
  const home = cache(t), h = await hub(t, { "org/name": big(10) });
  assert.match((await pull(h, home, "org/none")).err, /org\/none: .* has no such repository, or not for the public: set HF_TOKEN/);
  h.gated = "Access to model org/name is restricted.";
  const gated = await pull(h, home, "org/name");
  assert.match(gated.err, /access is restricted: Access to model org\/name is restricted.*accept the model's terms/);
  h.gated = undefined;
  h.token = "x";
  assert.match((await quire(h, home, ["pull", "org/name"], { env: { HF_TOKEN: "y" } })).err, /not for this HF_TOKEN/);
  for (const id of ["../x", "a/b/c", "a--b/c", "org/name@", "org/name:../x.gguf", "org/na me", "/etc"]) assert.equal((await pull(h, home, id)).code, 1, id);
  const none = await quire(h, home, ["run", "no/such", "-p", "a"]);
  assert.match(none.err, /no\/such is no file or folder here, and as a hub model: no\/such: /);
});

test("429 with Retry-After, 5xx and cut connections are survived", async (t) => {
  const home = cache(t), h = await hub(t, { "org/name": big(40 << 20) });
  const seen = { api: 0, resolve: 0, cdn: 0 };
  h.onRequest = (req, res, kind) => {
    const n = seen[kind]++;
    if (kind === "api" && n === 0) return res.writeHead(429, { "Retry-After": "1" }).end(), true;
    if (kind === "api" && n === 1) return res.writeHead(503).end("busy"), true;
    if (kind === "resolve" && n < 2) return req.socket.destroy(), true;
    if (kind === "cdn" && n < 4) { // half of it, then gone
      const m = /bytes=(\d+)-(\d+)/.exec(req.headers.range), from = Number(m[1]), half = Math.floor((Number(m[2]) - from) / 2);
      res.writeHead(206, { "Content-Length": Number(m[2]) - from + 1, "Content-Range": `bytes ${m[1]}-${m[2]}/${40 << 20}` });
      res.write(h.repos["org/name"].entries.find((e) => e.lfs).data.subarray(from, from + half), () => req.socket.destroy());
      return true;
    }
    return false;
  };
  const start = Date.now(), p = await pull(h, home, "org/name", "--log-level", "info", "--json");
  assert.equal(p.code, 0, p.err);
  assert.ok(Date.now() - start >= 1000);
  assert.match(p.err, /HTTP 429.*trying again/);
  assert.equal(JSON.parse(p.out).downloaded_bytes, (40 << 20) + 2); // nothing twice
  h.onRequest = (req, res, kind) => kind === "api" && (res.writeHead(429, { "Retry-After": "86400" }).end(), true);
  assert.match((await pull(h, cache(t), "org/name")).err, /asks to come back in 86400 s/);
});

test("a killed download goes on where it was", async (t) => {
  const home = cache(t), h = await hub(t, { "org/name": big(80 << 20) }, { slow: 200000 });
  const file = () => blobs(home).find((b) => b.endsWith(".incomplete"));
  const killed = await quire(h, home, ["pull", "org/name"], { started: async (child) => {
    await until(() => file() && fs.statSync(path.join(home, "hub/models--org--name/blobs", file())).blocks * 512 > 30 << 20, "30 MB");
    child.kill("SIGKILL");
  } });
  assert.equal(killed.signal, "SIGKILL");
  h.slow = undefined;
  const p = await pull(h, home, "org/name", "--json");
  assert.equal(p.code, 0, p.err);
  assert.ok(JSON.parse(p.out).downloaded_bytes < 70 << 20, p.out);
  assert.ok(!file());
});

test("what another tool began is taken over", async (t) => {
  const home = cache(t), r = big(50 << 20), h = await hub(t, { "org/name": r });
  const e = r.entries.find((x) => x.lfs), dir = path.join(home, "hub/models--org--name/blobs");
  fs.mkdirSync(dir, { recursive: true });
  fs.writeFileSync(path.join(dir, `${e.oid}.incomplete`), e.data.subarray(0, 40 << 20));
  const p = await pull(h, home, "org/name", "--json");
  assert.equal(JSON.parse(p.out).downloaded_bytes, (10 << 20) + 2, p.err);
  // and when it is not what it should be, the checksum tells and it is downloaded again
  const other = cache(t), dir2 = path.join(other, "hub/models--org--name/blobs");
  fs.mkdirSync(dir2, { recursive: true });
  fs.writeFileSync(path.join(dir2, `${e.oid}.incomplete`), Buffer.alloc(1 << 20));
  const q = await pull(h, other, "org/name");
  assert.equal(q.code, 0, q.err);
  assert.match(q.err, /the checksum is wrong .* downloading it again/);
  assert.deepEqual(fs.readFileSync(path.join(q.out, "model.safetensors")), e.data);
});

test("two processes share the work", async (t) => {
  const home = cache(t), h = await hub(t, { "org/name": big(60 << 20, { "generation_config.json": "{}", "tokenizer_config.json": "{}" }) }, { slow: 300000 });
  const both = await Promise.all([1, 2, 3].map(() => pull(h, home, "org/name", "--json")));
  both.forEach((p) => assert.equal(p.code, 0, p.err));
  assert.equal(both.reduce((n, p) => n + JSON.parse(p.out).downloaded_bytes, 0), (60 << 20) + 2);
  assert.equal(new Set(both.map((p) => JSON.parse(p.out).path)).size, 1);
});

test("wrong checksums are refused, and --verify finds rot", async (t) => {
  const r = big(3 << 20), h = await hub(t, { "org/name": r });
  h.files = (e) => e.name === "config.json" ? Buffer.from("[]") : undefined;
  const p = await pull(h, cache(t), "org/name");   // the other files may have come by then, so the next pull has a home of its own
  const home = cache(t);
  assert.equal(p.code, 1);
  assert.match(p.err, /config.json: the checksum is wrong, twice: expected [0-9a-f]{40}, found [0-9a-f]{40}/);
  h.files = (e) => e.lfs ? noise(3 << 20, 2) : undefined;
  assert.match((await pull(h, home, "org/name")).err, /model.safetensors: the checksum is wrong, twice/);
  assert.ok(!fs.existsSync(path.join(home, "hub/models--org--name/refs/main")));
  h.files = undefined;
  const good = await pull(h, home, "org/name");
  const file = path.join(good.out, "model.safetensors"), bytes = fs.readFileSync(file);
  bytes[12345] ^= 1;
  fs.writeFileSync(file, bytes);
  assert.equal((await pull(h, home, "org/name")).code, 0);
  assert.ok(!fs.readFileSync(file).equals(noise(3 << 20)));
  assert.match((await pull(h, home, "org/name", "--verify")).err, /its content has changed/);
  assert.ok(fs.readFileSync(file).equals(noise(3 << 20)));
});

test("lists of other kinds: names alone, and a tree in pages", async (t) => {
  for (const kind of ["bare", "tree"]) {
    const home = cache(t), h = await hub(t, { "org/name": repo(model()) }, { [kind]: true });
    const p = await pull(h, home, "org/name");
    assert.equal(p.code, 0, p.err);
    assert.ok(fs.readFileSync(path.join(p.out, "model.safetensors")).equals(model()["model.safetensors"]));
    assert.equal(blobs(home).length, 5);
  }
});

test("a server without ranges", async (t) => {
  const home = cache(t), h = await hub(t, { "org/name": big(70 << 20) }, { noRanges: true });
  let cuts = 0;
  h.onRequest = (req, res, kind) => { // the first whole answer is cut as well
    if (kind !== "cdn" || req.headers.range || cuts++) return false;
    res.writeHead(200, { "Content-Length": 70 << 20 });
    res.write(noise(70 << 20).subarray(0, 5 << 20), () => req.socket.destroy());
    return true;
  };
  const p = await pull(h, home, "org/name");
  assert.equal(p.code, 0, p.err);
  assert.ok(fs.readFileSync(path.join(p.out, "model.safetensors")).equals(noise(70 << 20)));
});

test("signed addresses expire", async (t) => {
  const home = cache(t), h = await hub(t, { "org/name": big(200 << 20) });
  let n = 0;
  h.sig = "0";
  h.onRequest = (req, res, kind, p) => {
    if (kind !== "cdn") return false;
    if (++n === 3) h.sig = "1";
    return !p.endsWith(`sig=${h.sig}`) && (res.writeHead(403).end("expired"), true);
  };
  const p = await pull(h, home, "org/name", "--connections", "2");
  assert.equal(p.code, 0, p.err);
});

test("hostile hubs", async (t) => {
  const bad = async (options, pattern, ...args) => {
    const home = cache(t), h = await hub(t, { "org/name": big(1000) }, options);
    const start = Date.now(), p = await pull(h, home, "org/name", "--attempts", "2", ...args);
    assert.equal(p.code, 1, `${p.out} ${p.err}`);
    assert.match(p.err, pattern);
    assert.ok(Date.now() - start < 15000);
    return walk(home).filter((f) => !f.startsWith("hub/"));
  };
  const listing = (entries) => ({ onRequest: (req, res, kind) => kind === "api" && (res.end(JSON.stringify({ sha: "a".repeat(40), siblings: entries })), true) });
  for (const name of ["../../evil.json", "/etc/passwd", "a/../../b.json", "..", "a//b", "a\\..\\b", "x\u0001.json"]) assert.deepEqual(await bad(listing([{ rfilename: name, size: 1 }]), /refused/), []);
  await bad(listing([{ rfilename: "config.json", size: 1e18, blobId: "a".repeat(40) }]), /config.json: the hub says it has/);
  await bad(listing([{ rfilename: "config.json", size: 2 ** 49, blobId: "a".repeat(40) }, { rfilename: "model.safetensors", size: 1 }]), /has room for|HTTP|tells neither|not found|no such/);
  await bad(listing([{ rfilename: "a", size: 1 }, { rfilename: "a/b", size: 1 }]), /below a file/);
  await bad(listing("x"), /siblings/);
  await bad(listing([{ rfilename: 5 }]), /rfilename/);
  await bad({ onRequest: (req, res, kind) => kind === "api" && (res.end(JSON.stringify({ sha: "../../x", siblings: [] })), true) }, /not a commit/);
  await bad({ onRequest: (req, res, kind) => kind === "api" && (res.end("{"), true) }, /list of files/);
  await bad({ onRequest: (req, res) => (res.writeHead(302, { Location: "/again" + Math.random() }).end(), true) }, /redirects more than 10 times/);
  await bad({ onRequest: (req, res) => (res.writeHead(302, { Location: "file:///etc/passwd" }).end(), true) }, /redirects to no http/);
  await bad({ onRequest: (req, res, kind) => kind === "cdn" && (res.writeHead(200).end(Buffer.alloc(5000)), true) }, /model.safetensors: the server sends more than|given up/);
  await bad({ onRequest: (req, res, kind) => kind === "api" && (res.writeHead(200), res.write("{"), true) }, /given up after 2 attempts/, "--stall-timeout", "1");
  await bad({ onRequest: (req, res, kind) => kind === "cdn" && (res.writeHead(200, { "Content-Length": 1000 }), setInterval(() => res.write("x"), 300).unref(), true) }, /given up after 2 attempts/, "--stall-timeout", "1");
});

test("GGUF: one of several, and its parts", async (t) => {
  const home = cache(t);
  const h = await hub(t, { "org/name": repo({ "config.json": "{}", "m-Q4_K_M.gguf": "q4", "m-Q8_0.gguf": "q8", "m-Q4_K.gguf": "qk", "mmproj-x.gguf": "p", "big/m-F16-00001-of-00002.gguf": "1", "big/m-F16-00002-of-00002.gguf": "2", "README.md": "r" }) });
  const names = async (...args) => JSON.parse((await pull(h, home, ...args, "--json")).out).files.map((f) => f.name);
  assert.deepEqual(await names("org/name"), ["m-Q4_K_M.gguf"]);
  assert.deepEqual(await names("org/name:q8_0"), ["m-Q8_0.gguf"]);
  assert.deepEqual(await names("org/name:Q4_K"), ["m-Q4_K.gguf"]);
  assert.deepEqual(await names("org/name:m-Q8_0.gguf"), ["m-Q8_0.gguf"]);
  assert.deepEqual(await names("org/name:F16"), ["big/m-F16-00001-of-00002.gguf", "big/m-F16-00002-of-00002.gguf"]);
  assert.match(JSON.parse((await pull(h, home, "org/name:F16", "--json")).out).path, /snapshots\/a+\/big\/m-F16-00001-of-00002.gguf$/);
  assert.match((await pull(h, home, "org/name:IQ9")).err, /no .gguf file is or has 'IQ9' in its name; there are: m-Q4_K_M.gguf/);
  assert.deepEqual(await names("org/name", "--include", "*.md", "--include", "*.json", "--exclude", "config*"), ["README.md"]);
});

test("sharded weights: what the index names, and no other", async (t) => {
  const home = cache(t), index = JSON.stringify({ weight_map: { a: "model-1.safetensors", b: "model-2.safetensors" } });
  const h = await hub(t, { "org/name": repo({ "config.json": "{}", "model.safetensors.index.json": index, "model-1.safetensors": "1", "model-2.safetensors": "2", "model.fp16.safetensors": "no" }) });
  const plan = await pull(h, home, "org/name", "--dry-run");
  assert.match(plan.out, /model-2.safetensors/);
  assert.ok(!blobs(home).some((b) => b.length === 64), "no weights yet");
  const p = await pull(h, home, "org/name");
  assert.deepEqual(walk(p.out), ["config.json", "model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"]);
  h.repos["org/name"].entries = h.repos["org/name"].entries.filter((e) => e.name !== "model-2.safetensors");
  assert.match((await pull(h, cache(t), "org/name")).err, /b is in 'model-2.safetensors', which the repository does not have/);
  h.repos["org/name"] = repo({ "config.json": "{}", "pytorch_model.bin": "x" });
  assert.match((await pull(h, cache(t), "org/name")).err, /pytorch_model.bin is not read/);
});

test("what others downloaded is used offline", async (t) => {
  const home = cache(t), h = await hub(t, { "org/name": repo(model()) });
  const p = await pull(h, home, "org/name");
  fs.rmSync(path.join(home, "hub/models--org--name/.quire"), { recursive: true });
  const args = ["run", "org/name", "-p", "Once", "--temperature", "0", "--max-tokens", "3", "--packed-cache", "off", "--offline"];
  assert.equal((await quire("http://127.0.0.1:9", home, args)).code, 0);
  fs.rmSync(path.join(p.out, "model.safetensors"));
  assert.match((await quire("http://127.0.0.1:9", home, args)).err, /offline, and/);
  assert.match((await quire("http://127.0.0.1:9", home, ["pull", "org/else", "--offline"])).err, /offline, and org\/else is not in the cache/);
});
