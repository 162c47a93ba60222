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
  await server.close();
  await until(() => /STOPPING=1/.test(said), "stop", 5);
});
