// Operation: TLS and its reload, key files, logs for machines, systemd.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import https from "node:https";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { serve, until } from "./serve.mjs";

let dir;
const file = (name) => path.join(dir, name);
const openssl = (...args) => execFileSync("openssl", args, { cwd: dir, stdio: "pipe" });
const ecKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/** name.pem and name.key, signed by our own authority. */
function certificate(name) {
  openssl("req", ...ecKey, "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", `/CN=${name}`);
  fs.writeFileSync(file("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1");
  openssl("x509", "-req", "-in", `${name}.csr`, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", `${name}.pem`, "-days", "30", "-extfile", "ext");
}

before(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), "quire-ops-"));
  openssl("req", "-x509", ...ecKey, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=quire test authority", "-days", "30");
  for (const name of ["first", "second", "client"]) certificate(name);
  openssl("req", "-x509", ...ecKey, "-keyout", "stranger.key", "-out", "stranger.pem", "-subj", "/CN=stranger", "-days", "30");
});
after(() => fs.rmSync(dir, { recursive: true }));

const use = (name) => {
  fs.copyFileSync(file(`${name}.pem`), file("server.pem"));
  fs.copyFileSync(file(`${name}.key`), file("server.key"));
};
const tlsFlags = () => ["--ssl-certfile", file("server.pem"), "--ssl-keyfile", file("server.key")];

/** One request over TLS on a connection of its own: status, body, the server's certificate's name. */
function ask(url, route, { body, cert, headers, agent = new https.Agent({ maxCachedSessions: 0 }) } = {}) {
  return new Promise((resolve, reject) => {
    const pem = cert ? { cert: fs.readFileSync(file(`${cert}.pem`)), key: fs.readFileSync(file(`${cert}.key`)) } : {};
    const r = https.request(new URL(route, url), { ca: fs.readFileSync(file("ca.pem")), agent, method: body ? "POST" : "GET", ...pem,
      headers: { ...(body ? { "Content-Type": "application/json" } : {}), ...headers } }, (reply) => {
      let text = "";
      const name = reply.socket.getPeerCertificate().subject?.CN;
      reply.on("data", (d) => (text += d));
      reply.on("end", () => resolve({ status: reply.statusCode, text, name, headers: reply.headers }));
    });
    r.on("error", reject);
    r.end(body ? JSON.stringify(body) : undefined);
  });
}

test("TLS: streams, many connections, reload by SIGHUP and by a change of the file", async (t) => {
  use("first");
  const server = await serve(t, ...tlsFlags());
  assert.match(server.url, /^https:/);
  const story = { prompt: "Once upon a time", max_tokens: 200, temperature: 0, ignore_eos: true };
  const whole = JSON.parse((await ask(server.url, "/v1/completions", { body: story })).text).choices[0].text;
  const streams = await Promise.all(Array.from({ length: 30 }, () => ask(server.url, "/v1/completions", { body: { ...story, stream: true } })));
  for (const s of streams) {
    const text = s.text.split("\n\n").filter((e) => e.startsWith("data: {")).map((e) => JSON.parse(e.slice(6)).choices[0]?.text ?? "").join("");
    assert.equal(text, whole);
    assert.equal(s.name, "first");
  }
  // A connection that is open through the reload goes on with what it began with.
  const kept = new https.Agent({ keepAlive: true, maxSockets: 1 });
  assert.equal((await ask(server.url, "/health", { agent: kept })).name, "first");
  use("second");
  server.kill("SIGHUP");
  await until(async () => (await ask(server.url, "/health")).name === "second", "the new certificate", 5);
  assert.equal((await ask(server.url, "/health", { agent: kept })).status, 200);
  kept.destroy();
  // A pair that does not fit changes nothing and is told of once.
  fs.copyFileSync(file("stranger.pem"), file("server.pem"));
  await until(() => /the key does not belong to the certificate/.test(server.log()), "complaint", 8);
  assert.equal((await ask(server.url, "/health")).name, "second");
  use("first");
  await until(async () => (await ask(server.url, "/health")).name === "first", "the changed file", 8);
  assert.equal(server.log().match(/does not belong/g).length, 1);
  const page = (await ask(server.url, "/metrics")).text;
  assert.ok(Number(page.match(/^quire:tls_certificate_expiry_seconds (\d+)$/m)[1]) > Date.now() / 1000 + 20 * 86400);
  await server.close();
});

test("TLS: old versions and plain text are refused", async (t) => {
  use("first");
  const server = await serve(t, ...tlsFlags());
  const old = new https.Agent({ maxVersion: "TLSv1.1", minVersion: "TLSv1", ciphers: "DEFAULT@SECLEVEL=0" });
  await assert.rejects(ask(server.url, "/health", { agent: old }));
  await assert.rejects(fetch(server.url.replace("https", "http") + "/health"));
  assert.equal((await ask(server.url, "/health")).status, 200);
  await server.close();
});

test("TLS: clients' certificates", async (t) => {
  use("first");
  const required = await serve(t, ...tlsFlags(), "--ssl-ca-certs", file("ca.pem"));
  await assert.rejects(ask(required.url, "/health"));
  await assert.rejects(ask(required.url, "/health", { cert: "stranger" }));
  assert.equal((await ask(required.url, "/health", { cert: "client" })).status, 200);
  await required.close();
  const optional = await serve(t, ...tlsFlags(), "--ssl-ca-certs", file("ca.pem"), "--ssl-cert-reqs", "1");
  assert.equal((await ask(optional.url, "/health")).status, 200);
  assert.equal((await ask(optional.url, "/health", { cert: "client" })).status, 200);
  await assert.rejects(ask(optional.url, "/health", { cert: "stranger" }));
  await optional.close();
});

test("TLS: what cannot work is said at the start", async (t) => {
  const fails = (what, ...args) => assert.rejects(serve(t, ...args), what);
  await fails(/needs both --ssl-certfile and --ssl-keyfile/, "--ssl-certfile", file("first.pem"));
  await fails(/--ssl-certfile.*nowhere\.pem/, "--ssl-certfile", file("nowhere.pem"), "--ssl-keyfile", file("first.key"));
  await fails(/the key does not belong to the certificate/, "--ssl-certfile", file("first.pem"), "--ssl-keyfile", file("second.key"));
  await fails(/not PEM/, "--ssl-certfile", file("ext"), "--ssl-keyfile", file("first.key"));
  await fails(/there is no certificate|ext/, ...tlsFlags(), "--ssl-ca-certs", file("ext"));
  await fails(/needs --ssl-ca-certs/, ...tlsFlags(), "--ssl-cert-reqs", "2");
  openssl("ec", "-in", "first.key", "-aes128", "-passout", "pass:secret", "-out", "locked.key");
  await fails(/the key is encrypted/, "--ssl-certfile", file("first.pem"), "--ssl-keyfile", file("locked.key"));
});

test("a file of keys: limits, names, reload", async (t) => {
  const keys = file("keys");
  fs.writeFileSync(keys, "# team\nsk-alice-0001 name=alice rpm=2\nsk-bob-000001 name=bob tpm=20 concurrent=1\n");
  const server = await serve(t, "--api-key-file", keys, "--metrics-public");
  const complete = (key, body = {}) => server.post("/v1/completions", { prompt: "Once", max_tokens: 30, ignore_eos: true, ...body }, { Authorization: `Bearer ${key}` });
  assert.equal((await complete("sk-alice-0002")).status, 401);
  assert.equal((await complete("sk-alice-0001")).status, 200);
  assert.equal((await complete("sk-alice-0001")).status, 200);
  const refused = await complete("sk-alice-0001");
  assert.equal(refused.status, 429);
  assert.ok(Number(refused.headers.get("retry-after")) >= 25);
  const error = (await refused.json()).error;
  assert.equal(error.type, "RateLimitError");
  assert.match(error.message, /2 requests a minute/);
  assert.equal((await complete("sk-bob-000001")).status, 200);
  await until(async () => (await server.metric("api_key_generation_tokens_total", 'key="bob"')) === 30, "tokens charged");
  assert.match((await (await complete("sk-bob-000001")).json()).error.message, /20 tokens a minute/);
  assert.equal(await server.metric("api_key_refused_total", 'key="alice"'), 1);
  assert.equal(await server.metric("api_key_requests_total", 'key="alice"'), 2);
  const page = await (await fetch(server.url + "/metrics")).text();
  assert.ok(!page.includes("sk-") && !server.log().includes("sk-"), "a secret is shown");
  await until(() => /key=alice method=POST/.test(server.log()), "the key's name in the log");

  fs.writeFileSync(keys, "sk-carol-0001 name=carol concurrent=1\n");
  server.kill("SIGHUP");
  await until(async () => (await complete("sk-alice-0001")).status === 401, "the old key is gone", 5);
  const long = await complete("sk-carol-0001", { max_tokens: 900, stream: true });
  assert.equal((await complete("sk-carol-0001")).status, 429);
  await long.body.cancel();
  await until(async () => (await server.metric("api_key_requests_active", 'key="carol"')) === 0, "the place is free");
  assert.equal((await complete("sk-carol-0001")).status, 200);
  fs.writeFileSync(keys, "");
  await until(() => /there is no key in it/.test(server.log()), "complaint", 8);
  assert.equal((await complete("sk-carol-0001")).status, 200);
  await server.close();
  await assert.rejects(serve(t, "--api-key-file", file("ca.pem")), /API keys in .*ca\.pem: line 1/);
});

test("logs for machines: JSON lines, ids, traces, a file of its own, rotation", async (t) => {
  const log = file("access.log");
  const server = await serve(t, "--log-format", "json", "--access-log", log);
  const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  await (await server.post("/v1/completions", { prompt: "Once", max_tokens: 3, ignore_eos: true }, { traceparent: parent, "X-Request-Id": "r-1" })).text();
  const lines = () => fs.readFileSync(log, "utf8").trim().split("\n").filter(Boolean).map((l) => JSON.parse(l));
  await until(() => lines().length === 1, "a line");
  const { ts, ms, bytes, ...rest } = lines()[0];
  assert.ok(!Number.isNaN(Date.parse(ts)) && ms > 0 && bytes > 0);
  assert.deepEqual(rest, { level: "info", event: "http", id: "r-1", client: "127.0.0.1", method: "POST", path: "/v1/completions", status: 200,
    trace_id: "0af7651916cd43dd8448eb211c80319c", parent_id: "b7ad6b7169203331", prompt_tokens: 2, completion_tokens: 3, cached_tokens: 0 });
  await fetch(server.url + "/nowhere?x=\"\n", { headers: { traceparent: "00-zz-01" } });
  await until(() => lines().length === 2, "a second line");
  assert.equal(lines()[1].status, 404);
  assert.ok(!("trace_id" in lines()[1]));
  fs.renameSync(log, log + ".1");
  server.kill("SIGHUP");
  await until(() => fs.existsSync(log), "a new file", 5);
  await fetch(server.url + "/version");
  await until(() => lines().length === 1 && lines()[0].path === "/version", "the line in the new file");
  for (const line of server.log().trim().split("\n")) JSON.parse(line);
  assert.ok(!server.log().includes('"event":"http"'));
  await server.close();
});

test("a full disk stops no answer", async (t) => {
  if (!fs.existsSync("/dev/full")) return t.skip();
  const server = await serve(t, "--access-log", "/dev/full");
  for (let i = 0; i < 3; i++) assert.equal((await server.post("/v1/completions", { prompt: "a", max_tokens: 1 })).status, 200);
  await until(async () => (await server.metric("log_lines_lost_total")) >= 3, "lines counted as lost");
  await server.close();
});

test("a terminal that is closed ends the server; SIGHUP from elsewhere does not", async () => {
  const said = execFileSync("python3", ["-c", `
import os, pty, signal, sys, time
pid, fd = pty.fork()
if pid == 0: os.execv(sys.argv[1], [sys.argv[1], "serve", "--port", "0"])
text = b""
def wait_for(what):
    global text
    while what not in text: text += os.read(fd, 4096)
wait_for(b" at http")
os.kill(pid, signal.SIGHUP)
wait_for(b"were read again")
os.close(fd)
end = time.time() + 10
while time.time() < end:
    done, status = os.waitpid(pid, os.WNOHANG)
    if done: sys.exit(print("ended", status))
    time.sleep(0.05)
os.kill(pid, signal.SIGKILL)
print("goes on")`, process.env.QUIRE], { encoding: "utf8" });
  assert.equal(said.trim(), "ended 0");
});

test("systemd is told: ready, alive, reloading, stopping", async (t) => {
  const socket = file("notify");
  const listener = spawn("python3", ["-uc", `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print("bound", flush=True)
while True: print(s.recv(4096).decode().replace("\\n", " "), flush=True)`, socket]);
  t.after(() => listener.kill("SIGKILL"));
  let said = "";
  listener.stdout.on("data", (d) => (said += d));
  await until(() => said.includes("bound"), "listening");
  Object.assign(process.env, { NOTIFY_SOCKET: socket, WATCHDOG_USEC: "400000" });
  const server = await serve(t).finally(() => { delete process.env.NOTIFY_SOCKET; delete process.env.WATCHDOG_USEC; });
  await until(() => said.split("WATCHDOG=1").length > 3, "three signs of life", 5);
  assert.match(said, /READY=1 STATUS=serving/);
  server.kill("SIGHUP");
  await until(() => /RELOADING=1 MONOTONIC_USEC=\d+\nREADY=1/.test(said), "reload", 5);
  const long = server.post("/v1/completions", { prompt: "Once", max_tokens: 1000, ignore_eos: true, n: 32 }).then((r) => r.text());
  await until(async () => (await server.metric("num_requests_running")) > 0, "running");
  await server.close();
  await long;
  await until(() => /STOPPING=1[^]*WATCHDOG=1/.test(said), "stop, and signs of life while it drains", 5);
});

/** A page of OpenMetrics 1.0, checked line by line; the samples' names. */
function readOpenMetrics(page) {
  assert.ok(page.endsWith("\n# EOF\n"));
  const names = new Set(), families = new Map(), series = new Set();
  let family;
  for (const line of page.slice(0, -"# EOF\n".length).trimEnd().split("\n")) {
    const type = line.match(/^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram|unknown)$/);
    if (type) {
      assert.ok(!families.has(type[1]), `family twice: ${line}`);
      families.set((family = type[1]), type[2]);
      continue;
    }
    if (line.startsWith("# HELP ")) {
      assert.equal(line.split(" ")[2], family);
      continue;
    }
    const sample = line.match(/^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\.)*",?)*)\})? (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)$/);
    assert.ok(sample, `not a sample: ${line}`);
    const [, name, labels = ""] = sample, suffix = name.slice(family.length);
    assert.ok(name.startsWith(family), `${name} is not below ${family}`);
    assert.ok({ counter: ["_total"], gauge: [""], unknown: [""], histogram: ["_bucket", "_sum", "_count"] }[families.get(family)].includes(suffix), `${line} in ${families.get(family)} ${family}`);
    if (suffix === "_bucket") assert.match(labels, /le="(\d+\.\d+|\d+(\.\d+)?e[+-]\d+|\+Inf)"/, line);
    assert.ok(!series.has(name + labels), `twice: ${line}`);
    series.add(name + labels);
    names.add(name);
  }
  return names;
}

test("OpenMetrics when it is preferred; every metric of the Grafana dashboard is there", async (t) => {
  use("first");
  const keys = file("keys");
  fs.writeFileSync(keys, "sk-alice-0001 name=alice\n");
  const server = await serve(t, "--model", "a=", "--model", "b=", "--num-kv-blocks", "200", "--api-key-file", keys, "--metrics-public", "--metrics-compat", "vllm", ...tlsFlags());
  assert.equal((await ask(server.url, "/v1/completions", { body: { prompt: "Once", max_tokens: 2 }, headers: { Authorization: "Bearer sk-alice-0001" } })).status, 200);
  const plain = await ask(server.url, "/metrics");
  assert.match(plain.headers["content-type"], /^text\/plain; version=0\.0\.4/);
  const open = await ask(server.url, "/metrics", { headers: { Accept: "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3" } });
  assert.match(open.headers["content-type"], /^application\/openmetrics-text; version=1\.0\.0/);
  const names = readOpenMetrics(open.text);
  const samples = (page) => page.split("\n").filter((l) => l && !l.startsWith("#")).map((l) => l.split(/[{ ]/)[0]);
  assert.deepEqual([...names].sort(), [...new Set(samples(plain.text))].sort());

  const dashboard = JSON.parse(fs.readFileSync(path.resolve(import.meta.dirname, "../../packaging/grafana/quire.json"), "utf8"));
  const wanted = new Set(JSON.stringify(dashboard).match(/(?<![A-Za-z_])(quire:[a-z0-9_]+|process_[a-z_]+)/g));
  assert.ok(wanted.size > 40);
  for (const name of wanted) assert.ok(names.has(name), `the dashboard names ${name}, which is not exported`);
  // vLLM's core metrics, old names and new (INTERFACES 3.1).
  for (const name of ["num_requests_running", "num_requests_waiting", "gpu_cache_usage_perc", "kv_cache_usage_perc", "gpu_prefix_cache_queries_total", "gpu_prefix_cache_hits_total",
    "prefix_cache_queries_total", "prefix_cache_hits_total", "num_preemptions_total", "prompt_tokens_total", "generation_tokens_total", "request_success_total", "request_prompt_tokens_bucket",
    "request_generation_tokens_bucket", "request_max_num_generation_tokens_bucket", "request_params_max_tokens_bucket", "request_params_n_bucket", "iteration_tokens_total_bucket",
    "time_to_first_token_seconds_bucket", "inter_token_latency_seconds_bucket", "time_per_output_token_seconds_bucket", "request_time_per_output_token_seconds_bucket", "e2e_request_latency_seconds_bucket",
    "request_queue_time_seconds_bucket", "request_inference_time_seconds_bucket", "request_prefill_time_seconds_bucket", "request_decode_time_seconds_bucket", "cache_config_info",
    "request_prefill_kv_computed_tokens_bucket"])
    assert.ok(names.has("vllm:" + name), name);
  for (const name of ["http_requests_total", "http_request_duration_seconds_bucket"]) assert.ok(names.has(name), name);
  await server.close();
});

test("limits of a request: each a 400 that names the field", async (t) => {
  const server = await serve(t, "--max-input-tokens", "10", "--max-n", "2", "--max-best-of", "3", "--max-stop-sequences", "2", "--max-logprobs", "4", "--max-body-bytes", "4k");
  const cases = [
    [{ prompt: "one two three four five six seven eight nine ten eleven twelve" }, "prompt", /at most 10/],
    [{ prompt: Array(11).fill(5) }, "prompt", /11 tokens, and this server takes at most 10/],
    [{ prompt: "a", n: 3 }, "n", /at most 2/],
    [{ prompt: "a", best_of: 4 }, "best_of", /at most 3/],
    [{ prompt: "a", stop: ["a", "b", "c"] }, "stop", /at most 2/],
    [{ prompt: "a", logprobs: 5 }, "logprobs", /4/],
  ];
  for (const [body, param, says] of cases) {
    const r = await server.post("/v1/completions", { max_tokens: 2, ...body });
    const { error } = await r.json();
    assert.deepEqual([r.status, error.param, error.code], [400, param, 400], JSON.stringify(error));
    assert.match(error.message, says);
  }
  const chat = await server.post("/v1/chat/completions", { messages: [{ role: "user", content: "one two three four five six seven eight" }] });
  assert.equal((await chat.json()).error.param, "messages");
  assert.equal((await server.post("/v1/completions", { prompt: "x".repeat(5000) })).status, 413);
  assert.equal((await server.post("/v1/completions", { prompt: "a", n: 2, best_of: 3, stop: ["q", "z"], logprobs: 4, max_tokens: 2 })).status, 200);
  await server.close();
});

test("a model that nobody uses is unloaded, and comes back", async (t) => {
  const server = await serve(t, "--model", "a=", "--model-idle-timeout", "0.5", "--num-kv-blocks", "200");
  const state = async () => (await (await fetch(server.url + "/v1/models")).json()).data[0].state;
  const complete = async () => (await (await server.post("/v1/completions", { model: "a", prompt: "Once", max_tokens: 20, temperature: 0 })).json()).choices[0].text;
  assert.equal(await state(), "unloaded");
  const first = await complete();
  assert.equal(await state(), "loaded");
  const long = server.post("/v1/completions", { prompt: "Once", max_tokens: 1000, ignore_eos: true, n: 16 }).then((r) => r.status);
  await until(async () => (await state()) === "unloaded", "unloaded", 30);
  assert.equal(await long, 200);                                       // in use it was not idle
  assert.equal(await complete(), first);
  assert.equal(await server.metric("model_loads_total"), 2);
  await server.close();
  await assert.rejects(serve(t, "--model-idle-timeout", "5"), /--model-idle-timeout goes with --model/);
});
