// Chaos: random aborts, malformed requests, slow readers, half-open sockets, oversize bodies, bursts of 1,000 connections, while a control client
// asks the same questions again and again.
//
// At the end: no crash, every answer to the control client the same bit for bit, no request stuck, all KV pages back, descriptors and memory as before,
// and an orderly exit (which under ASan says whether anything leaked).
import assert from "node:assert/strict";
import fs from "node:fs";
import { execFileSync } from "node:child_process";
import http from "node:http";
import https from "node:https";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import tls from "node:tls";
import { parseArgs } from "node:util";
import { serve, until } from "../e2e/serve.mjs";

const { values: opts } = parseArgs({ options: { minutes: { type: "string", default: "1" }, seed: { type: "string" }, actors: { type: "string", default: "40" },
  tls: { type: "boolean", default: false } } });
const seed = Number(opts.seed ?? Date.now() % 1e9), endAt = Date.now() + Number(opts.minutes) * 60e3;
const MAX_BODY = 256 << 10, IDLE_S = 3;

/** xorshift: the same seed makes the same choices, though not at the same times. */
let state = (seed ^ 0x9e3779b9) >>> 0 || 1;
const random = () => ((state ^= state << 13, state ^= state >>> 17, state ^= state << 5, (state >>>= 0)) / 2 ** 32);
const below = (n) => Math.floor(random() * n);
const pick = (list) => list[below(list.length)];
const sleep = (ms) => new Promise((r) => setTimeout(r, ms));

const dir = fs.mkdtempSync(path.join(os.tmpdir(), "quire-chaos-"));
const keys = path.join(dir, "keys"), KEY = "sk-control-0001", OTHER = "sk-chaos-00001";
const writeKeys = () => fs.writeFileSync(keys, `${KEY} name=control\n${OTHER} name=chaos concurrent=${200 + below(100)}\n# ${below(1e9)}\n`);
writeKeys();
const secure = [];
if (opts.tls) {
  process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
  process.removeAllListeners("warning");
  const [cert, key] = ["cert.pem", "key.pem"].map((n) => path.join(dir, n));
  execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", cert, "-subj", "/CN=localhost", "-days", "2"], { stdio: "pipe" });
  secure.push("--ssl-certfile", cert, "--ssl-keyfile", key);
}
const server = await serve(null, "--api-key-file", keys, "--metrics-public", "--max-body-bytes", String(MAX_BODY), "--idle-timeout", String(IDLE_S), "--request-timeout", "20",
  "--max-queue", "100", "--max-num-seqs", "32", "--num-kv-blocks", "500", "--max-connections", "3000", "--access-log", path.join(dir, "access.log"), "--log-format", "json", ...secure);
const { hostname, port } = new URL(server.url);
const counts = {};
const count = (what) => (counts[what] = (counts[what] ?? 0) + 1);
let crashed = null, stopping = false;
server.exited.then((how) => { if (!stopping) crashed = how; });

// ---- the control client ----

const questions = [
  { path: "/v1/completions", body: { prompt: "Once upon a time", max_tokens: 40, temperature: 0 } },
  { path: "/v1/completions", body: { prompt: "The little dog", max_tokens: 40, temperature: 0.9, seed: 7, n: 2 } },
  { path: "/v1/completions", body: { prompt: "A long prompt that comes again, ".repeat(12), max_tokens: 24, temperature: 0, logprobs: 3 } },
  { path: "/v1/chat/completions", body: { messages: [{ role: "user", content: "What is quire?" }], max_tokens: 30, temperature: 0 } },
  { path: "/v1/completions", body: { prompt: "There was", max_tokens: 30, temperature: 0, stream: true } },
  { path: "/v1/completions", body: { prompt: "A person:", max_tokens: 60, temperature: 0, structured_outputs: { json: { type: "object", properties: { name: { type: "string", maxLength: 8 }, age: { type: "integer", minimum: 0, maximum: 99 } }, required: ["name", "age"], additionalProperties: false } } } },
];

const transport = opts.tls ? https : http;
const agent = new transport.Agent({ keepAlive: true, maxSockets: 4 });
function ask(q, key = KEY) {
  return new Promise((resolve, reject) => {
    const text = JSON.stringify(q.body);
    const r = transport.request({ hostname, port, path: q.path, method: "POST", agent, timeout: 60e3,
      headers: { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text), Authorization: `Bearer ${key}` } }, (reply) => {
      let got = "";
      reply.setEncoding("utf8");
      reply.on("data", (d) => (got += d));
      reply.on("end", () => resolve({ status: reply.statusCode, text: got }));
      reply.on("error", reject);
    });
    r.on("timeout", () => r.destroy(new Error("the control client waited for a minute")));
    r.on("error", reject);
    r.end(text);
  });
}

/** What must not change: everything but ids and times. */
const essence = (reply) => JSON.stringify(reply.text.split(/^data: |\n/m).filter((l) => l.startsWith("{")).map((l) => {
  const j = JSON.parse(l);
  return { choices: j.choices, usage: j.usage };
}));
/** Refused for want of room, past the deadline, or the connection had idled out: to be asked again. */
const again = (e) => ["ECONNRESET", "EPIPE", "ECONNREFUSED", "UND_ERR_SOCKET"].includes(e.code) || /socket hang up/.test(e.message);

const expected = [];
for (const q of questions) {
  const r = await ask(q);
  assert.equal(r.status, 200, r.text);
  expected.push(essence(r));
}

async function control() {
  while (Date.now() < endAt && !crashed) {
    for (let i = 0; i < questions.length; i++) {
      const r = await ask(questions[i]).catch((e) => { if (again(e)) return { status: 0 }; throw e; });
      if (r.status === 200 && !/"code":504/.test(r.text)) {
        assert.equal(essence(r), expected[i], "the control client's answer changed");
        count("control answers");
      } else {
        assert.ok([0, 200, 429, 503, 504].includes(r.status), `control got ${r.status}: ${r.text}`);
        count("control asked again");
        await sleep(50);
      }
    }
    await sleep(20);
  }
}

// ---- clients that behave badly ----

const completion = () => ({ prompt: pick(["Once upon a time", "The", "x ".repeat(below(400)), "é漢😀".repeat(below(20) + 1)]), max_tokens: 1 + below(300), ignore_eos: true,
  stream: random() < 0.6, temperature: random() * 2, ...(random() < 0.2 ? { n: 1 + below(8) } : {}), ...(random() < 0.1 ? { best_of: 8, n: 1 } : {}),
  ...(random() < 0.1 ? { use_beam_search: true, n: 3 } : {}), ...(random() < 0.2 ? { logprobs: below(20) } : {}), ...(random() < 0.1 ? { echo: true } : {}),
  ...(random() < 0.1 ? { stop: ["e", "zz"] } : {}), ...(random() < 0.1 ? { prompt_logprobs: 2, stream: false } : {}), ...(random() < 0.1 ? { return_timings: true } : {}),
  ...(random() < 0.05 ? { timeout: random() * 0.2 + 0.001 } : {}), ...(random() < 0.1 ? { priority: below(5) } : {}) });

const head = (method, route, length, extra = "") =>
  `${method} ${route} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${OTHER}\r\nContent-Type: application/json\r\n${length >= 0 ? `Content-Length: ${length}\r\n` : ""}${extra}\r\n`;
const request = (body = completion(), route = "/v1/completions", extra) => {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return head("POST", route, Buffer.byteLength(text), extra) + text;
};

/** Something valid for any of the routes that generate, grammars and tools included. */
function anything() {
  const messages = [{ role: "user", content: "What is quire?" }], common = { max_tokens: 1 + below(200), stream: random() < 0.6, temperature: random() * 2 };
  const schema = pick([{ type: "object", properties: { a: { type: "integer" }, b: { type: "array", items: { type: "string" } } }, required: ["a", "b"] }, { enum: ["x", "yy"] },
    { $ref: "#/$defs/t", $defs: { t: { type: "object", properties: { t: { $ref: "#/$defs/t" } } } } }, { type: "string", pattern: "^(a|b){3,20}[0-9]*$" }]);
  const tools = [{ type: "function", function: { name: "f", parameters: { type: "object", properties: { x: { type: "number" } } } } }];
  return pick([
    () => [completion(), "/v1/completions"],
    () => [{ prompt: "a", ...common, structured_outputs: pick([{ regex: "[a-z]{1,30}( [0-9]+)*" }, { choice: ["yes", "no"] }, { json: schema }, { grammar: 'root ::= "a" root | "b"' }]) }, "/v1/completions"],
    () => [{ messages, ...common, response_format: { type: "json_schema", json_schema: { name: "s", schema } } }, "/v1/chat/completions"],
    () => [{ messages, ...common, tools, tool_choice: pick(["auto", "required", "none"]) }, "/v1/chat/completions"],
    () => [{ input: "What is quire?", stream: common.stream, max_output_tokens: 16 + below(100), store: false }, "/v1/responses"],
  ])();
}

/** A socket; what it gets is counted.  Errors are what chaos is about. */
function connect(options = {}) {
  return new Promise((resolve) => {
    // To a port that speaks TLS some come without, and some leave in the middle of the handshake.
    const plain = !opts.tls || random() < 0.1, to = { host: hostname, port: Number(port), ...options };
    const s = plain ? net.connect(to) : tls.connect({ ...to, rejectUnauthorized: false });
    if (!plain && random() < 0.05) setTimeout(() => s.destroy(), below(5));
    s.got = 0;
    s.first = "";
    s.on("data", (d) => { s.got += d.length; if (s.first.length < 64) s.first += d.toString("latin1").slice(0, 64); });
    s.on("error", () => count("socket errors"));
    s.on(plain ? "connect" : "secureConnect", () => resolve(s));
    s.on("close", () => resolve(s));
  });
}
const closed = (s, ms) => Promise.race([new Promise((r) => s.once("close", r)), sleep(ms)]);

const hangUp = (s) => { if (s instanceof tls.TLSSocket || random() < 0.5) s.destroy(); else s.resetAndDestroy(); };

/** Hangs up with FIN or RST, now or after some bytes. */
async function aborts() {
  const s = await connect();
  s.write(request(...anything()));
  const bytes = pick([0, 0, 1, 100, 3000]);
  const until = Date.now() + below(400);
  while (Date.now() < until && (bytes === 0 || s.got < bytes) && !s.destroyed) await sleep(5);
  hangUp(s);
}

/** A valid request with bytes changed, cut out or put in. */
function mutate(text) {
  const b = Buffer.from(text);
  for (let i = 1 + below(4); i > 0; i--) b[below(b.length)] = below(256);
  return random() < 0.3 ? Buffer.concat([b.subarray(0, below(b.length)), b.subarray(below(b.length))]) : b;
}

async function malformed() {
  const s = await connect();
  const body = completion(), text = JSON.stringify(body);
  const kinds = [
    () => Buffer.from(Array.from({ length: 1 + below(4000) }, () => below(256))),
    () => mutate(request()),
    () => request(mutate(text).toString("latin1")),
    () => { const [b, route] = anything(); return request(mutate(JSON.stringify(b)).toString("latin1"), route); },
    () => request("[".repeat(1 + below(50000))),
    () => request('{"a":'.repeat(1 + below(20000))),
    () => request(text.slice(0, below(text.length))),
    () => request(JSON.stringify({ ...body, [pick(Object.keys(body))]: pick([null, -1, 1e300, "x", [], {}, [[]], true, "\u0000", 2 ** 53]) })),
    () => head("POST", "/v1/completions", below(100)) + text,                                 // too short a length: the rest is another request
    () => head("POST", "/v1/completions", -1) + text,
    () => head("POST", "/v1/completions", -1, "Content-Length: -5\r\n") + text,
    () => head("POST", "/v1/completions", -1, "Content-Length: 99999999999999999999\r\n") + text,
    () => head("POST", "/v1/completions", -1, "Transfer-Encoding: chunked\r\n") + "zz\r\n" + text,
    () => head("POST", "/v1/completions", -1, "Transfer-Encoding: chunked\r\n") + "ffffffffffffffff\r\n" + text,
    () => head("POST", "/v1/completions", 5, "Transfer-Encoding: chunked\r\n") + text.length.toString(16) + "\r\n" + text + "\r\n0\r\n\r\n",
    () => head(pick(["GET", "PUT", "DELETE", "BREW", "OPTIONS", "HEAD", "CONNECT", "TRACE"]), pick(["/v1/completions", "/health", "/", "*", "http://x/", "/%00", "/../..", "/v1/models/%ff"]), 0),
    () => "GET /" + "a".repeat(below(60000)) + " HTTP/1.1\r\nHost: x\r\n\r\n",
    () => "GET /health HTTP/1.1\r\n" + `X-${below(9)}: ${"v".repeat(below(2000))}\r\n`.repeat(1 + below(60)) + "\r\n",
    () => "GET /health HTTP/9.9\r\n\r\n",
    () => "\r\n\r\n\r\n",
    () => request(body, "/v1/completions", pick(["X-Request-Timeout: soon\r\n", "X-Request-Id: " + "\u00ff".repeat(50) + "\r\n", "traceparent: 00-" + "f".repeat(below(80)) + "\r\n", "Expect: 100-continue\r\n"])),
    () => request({ tokens: Array.from({ length: below(2000) }, () => below(1e6)) }, "/detokenize"),
    () => request({ prompt: "a ".repeat(below(20000)) }, "/tokenize"),
    () => request({ messages: [{ role: pick(["user", "assistant", "", "x".repeat(999)]), content: pick(["hi", null, [], 7, [{ type: "text", text: "{{ 7*7 }}" }]]) }], chat_template: pick([undefined, "{% for i in range(10**9) %}x{% endfor %}", "{{", "{{ messages[0].content }}"]) }, "/v1/chat/completions"),
  ];
  s.write(pick(kinds)());
  if (random() < 0.3) s.end();
  await closed(s, 100 + below(1500));
  s.destroy();
}

/** Takes nothing, or a little now and then, of an answer that is larger than socket buffers. */
async function slow() {
  const s = await connect();
  s.write(request({ prompt: "Once", max_tokens: 700, n: 8, logprobs: 20, ignore_eos: true, stream: random() < 0.7 }));
  s.pause();
  const until = Date.now() + 500 + below(6000);
  while (Date.now() < until && !s.destroyed) {
    await sleep(200 + below(500));
    if (random() < 0.5) { s.resume(); await sleep(1); s.pause(); }
  }
  s.destroy();
}

/** Says half of what it has to say, or nothing, and stays; or shuts its side down. */
async function halfOpen() {
  const s = await connect({ allowHalfOpen: true });
  const text = request();
  s.write(text.slice(0, pick([0, 1, 20, text.length - 1, below(text.length), text.length])));
  if (random() < 0.5) s.end();
  const asked = Date.now();
  await closed(s, 2000 + below((IDLE_S + 4) * 1000));
  if (s.destroyed && Date.now() - asked > 1000) count("idle connections that the server closed");
  s.destroy();
}

async function oversize() {
  const s = await connect();
  const size = MAX_BODY + 1 + below(8 << 20), chunked = random() < 0.5, piece = Buffer.alloc(64 << 10, "[");
  s.write(head("POST", "/v1/completions", chunked ? -1 : size, chunked ? "Transfer-Encoding: chunked\r\n" : ""));
  for (let sent = 0; sent < size && !s.destroyed; sent += piece.length) {
    if (chunked) s.write(piece.length.toString(16) + "\r\n");
    if (!s.write(chunked ? piece : piece.subarray(0, Math.min(piece.length, size - sent)))) await Promise.race([new Promise((r) => s.once("drain", r)), closed(s, 2000)]);
    if (chunked) s.write("\r\n");
    if (random() < 0.005) break;
  }
  if (chunked) s.write("0\r\n\r\n");
  await closed(s, 1000);
  if (/ 413 /.test(s.first)) count("413");
  s.destroy();
}

/** Several requests at once on one connection, and its end in the middle. */
async function pipelined() {
  const s = await connect();
  for (let i = 2 + below(6); i > 0; i--) s.write(random() < 0.5 ? "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" : request({ ...completion(), max_tokens: 1 + below(20) }));
  await closed(s, below(2000));
  s.destroy();
}

async function wellBehaved() {
  const q = pick(questions);
  const r = await ask({ path: q.path, body: { ...q.body, ...(random() < 0.5 ? { max_tokens: 1 + below(200), ignore_eos: true } : {}) } }, OTHER).catch((e) => { if (again(e)) return { status: 0 }; throw e; });
  assert.ok([0, 200, 429, 503, 504].includes(r.status), `a good request got ${r.status}: ${r.text}`);
  count(`good ${r.status}`);
}

async function operator() {
  if (random() < 0.3) { writeKeys(); server.kill("SIGHUP"); count("SIGHUP"); }
  for (const route of ["/health", "/metrics", "/load", "/v1/models"]) {
    const r = await fetch(server.url + route, { headers: { Authorization: `Bearer ${OTHER}`, Accept: pick(["*/*", "application/openmetrics-text"]) }, signal: AbortSignal.timeout(20e3) })
      .catch((e) => { if (again(e.cause ?? e)) return null; throw e; });
    if (r) assert.equal(r.status, 200, route);
    await r?.arrayBuffer();
  }
  const r = await fetch(server.url + "/reset_prefix_cache", { method: "POST", headers: { Authorization: `Bearer ${OTHER}` }, signal: AbortSignal.timeout(20e3) }).catch((e) => { if (again(e.cause ?? e)) return null; throw e; });
  await r?.arrayBuffer();
}

/** A thousand at once; a part of them asks something; they go in any order. */
async function burst() {
  const all = await Promise.all(Array.from({ length: 1000 }, () => connect()));
  for (const s of all) if (random() < 0.3) s.write(random() < 0.3 ? request({ ...completion(), max_tokens: 1 + below(10) }) : "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  await sleep(below(1500));
  for (const s of all.sort(() => random() - 0.5)) hangUp(s);
  count("bursts");
}

const kinds = [aborts, aborts, aborts, malformed, malformed, malformed, slow, halfOpen, oversize, pipelined, wellBehaved, wellBehaved];
const failures = [];
async function actor() {
  while (Date.now() < endAt && !crashed && failures.length === 0) {
    const kind = pick(kinds);
    await kind();
    count(kind.name);
  }
}
async function every(ms, f) {
  while (Date.now() + ms < endAt && !crashed && failures.length === 0) {
    await f();
    await sleep(ms);
  }
}
const guarded = (f) => f().catch((e) => failures.push(e));

// ---- the run ----

/** Once more if the connection was just being closed. */
const twice = (f) => f().catch((e) => { if (again(e.cause ?? e)) return f(); throw e; });
const rss = async () => (await twice(() => fetch(server.url + "/metrics").then((r) => r.text()))).match(/^process_resident_memory_bytes (\d+)/m)[1] / 2 ** 20;
const metric = (...args) => twice(() => server.metric(...args));
const quiet = async () => {
  for (const name of ["num_requests_running", "num_requests_waiting", "http_requests_active", "kv_blocks_held"])
    await until(async () => (await metric(name)) === 0, `${name} is 0`, 60);
  await until(async () => (await metric("http_connections")) < 10, "connections closed", 60);
};

let sanitized = false, halfway = 0;
try {
  console.log(`chaos: seed ${seed}, ${opts.minutes} minutes, ${opts.actors} actors, ${server.url}`);
  const halftime = (async () => { await sleep((endAt - Date.now()) / 2); if (!crashed) halfway = await rss(); })();
  await Promise.all([guarded(control), ...Array.from({ length: Number(opts.actors) }, () => guarded(actor)), guarded(() => every(400, operator)), guarded(() => every(8000, burst)), guarded(() => halftime)]);
  if (crashed) throw new Error(`the server ended: ${JSON.stringify(crashed)}\n${server.log()}`);
  if (failures.length) throw failures[0];
  agent.destroy();
  await quiet();
  for (let i = 0; i < questions.length; i++) assert.equal(essence(await ask(questions[i])), expected[i], "after it all");
  agent.destroy();
  await quiet();
  assert.equal(await metric("api_key_requests_active", 'key="chaos"'), 0, "no key holds a place");
  const [total, free, cached] = await Promise.all(["kv_blocks_total", "kv_blocks_free", "kv_blocks_cached"].map((n) => metric(n)));
  assert.equal(free + cached, total, "all pages are free or hold prefixes that may be evicted");
  assert.ok(counts["control answers"] > 0, "the control client got answers");
  const fds = fs.readdirSync(`/proc/${server.pid}/fd`).length, now = await rss();
  assert.ok(fds < 60, `${fds} descriptors are open`);
  sanitized = /__(asan|tsan)_init/.test(fs.readFileSync(process.env.QUIRE, "latin1"));
  if (!sanitized) assert.ok(now < halfway * 1.25 + 30, `memory grew from ${halfway.toFixed(0)} to ${now.toFixed(0)} MiB in the second half`);
  const lines = fs.readFileSync(path.join(dir, "access.log"), "utf8").trim().split("\n");
  for (const line of lines) JSON.parse(line);
  console.log(JSON.stringify(counts));
  console.log(`${lines.length} requests; memory ${halfway.toFixed(0)} MiB at half time, ${now.toFixed(0)} MiB at the end; ${fds} descriptors; pages ${free} free + ${cached} cached = ${total}`);
  stopping = true;
  await server.close();
  console.log("chaos: passed");
} catch (e) {
  console.error(`chaos: FAILED with seed ${seed}\n`, e, "\n", JSON.stringify(counts), "\n", server.log().slice(-4000));
  process.exitCode = 1;
} finally {
  stopping = true;
  server.kill("SIGKILL");
  fs.rmSync(dir, { recursive: true, force: true });
  if (process.exitCode !== 1) process.exit(0);
  process.exit(1);
}
