// Operation: keys, limits, slow clients, signals.
import assert from "node:assert/strict";
import fs from "node:fs";
import net from "node:net";
import { test } from "node:test";
import OpenAI from "openai";
import { serve, until } from "./serve.mjs";

const threads = (pid) => Number(fs.readFileSync(`/proc/${pid}/status`, "utf8").match(/Threads:\s+(\d+)/)[1]);

/** A raw connection that sends a request, or nothing, and reads nothing. */
function raw(url, body) {
  const { hostname, port } = new URL(url);
  const text = body ? JSON.stringify(body) : "";
  return new Promise((resolve, reject) => {
    const s = net.connect({ host: hostname, port: Number(port) }, () => {
      if (body) s.write(`POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
      s.pause();
      resolve(s);
    });
    s.on("error", reject);
  });
}

test("keys, names, origins", async (t) => {
  const server = await serve(t, "--api-key", "one", "--api-key", "two", "--served-model-name", "alias", "--cors-origin", "*", "--metrics-public");
  const good = new OpenAI({ baseURL: server.url + "/v1", apiKey: "two", maxRetries: 0 });
  assert.equal((await good.models.list()).data[0].id, "alias");
  const c = await good.completions.create({ model: "alias", prompt: "Once", max_tokens: 2 });
  assert.equal(c.model, "alias");
  const bad = new OpenAI({ baseURL: server.url + "/v1", apiKey: "three", maxRetries: 0 });
  await assert.rejects(bad.models.list(), OpenAI.AuthenticationError);
  assert.equal((await fetch(server.url + "/health")).status, 200);
  assert.equal((await fetch(server.url + "/version")).status, 401);
  const page = await fetch(server.url + "/metrics", { headers: { Origin: "https://x.example" } });
  assert.equal(page.status, 200);
  assert.equal(page.headers.get("access-control-allow-origin"), "*");
  const r = await server.post("/v1/completions", { prompt: "a", max_tokens: 1 }, { Authorization: "Bearer one", "X-Request-Id": "trace-5" });
  assert.equal(r.headers.get("x-request-id"), "trace-5");
  assert.equal((await r.json()).id, "cmpl-trace-5");
  await until(() => /http id=trace-5 .* status=200/.test(server.log()), "access log line");
  await server.close();
});

test("overload is refused with 429, and nothing else changes", async (t) => {
  const server = await serve(t, "--max-queue", "2", "--max-num-seqs", "2");
  const body = { prompt: "Once", max_tokens: 600, ignore_eos: true };
  const statuses = await Promise.all(Array.from({ length: 30 }, async () => {
    const r = await server.post("/v1/completions", body);
    if (r.status === 429) assert.ok(Number(r.headers.get("retry-after")) > 0);
    await r.text();
    return r.status;
  }));
  assert.ok(statuses.includes(200) && statuses.includes(429), String(statuses));
  assert.ok(statuses.every((s) => s === 200 || s === 429));
  assert.equal((await server.post("/v1/completions", { prompt: "Once", max_tokens: 2 })).status, 200);
  await server.close();
});

test("deadlines", async (t) => {
  const server = await serve(t, "--request-timeout", "0.05");
  const r = await server.post("/v1/completions", { prompt: "Once", max_tokens: 1000, n: 8, ignore_eos: true });
  assert.equal(r.status, 504);
  assert.equal((await r.json()).error.type, "TimeoutError");
  const s = await (await server.post("/v1/completions", { prompt: "Once", max_tokens: 1000, n: 8, ignore_eos: true, stream: true })).text();
  assert.match(s, /data: \{"error":\{"message":.*"code":504\}\}\n\ndata: \[DONE\]\n\n$/);
  await until(async () => (await server.metric("kv_blocks_held")) === 0, "pages free");
  await server.close();
});

test("slow and idle clients cost no thread and block nobody", async (t) => {
  const server = await serve(t, "--max-num-seqs", "64");
  const before = threads(server.pid);
  const stream = { prompt: "Once", ignore_eos: true, stream: true };
  // Three whose answers of 15 MB are more than socket buffers hold, hundreds that are merely slow, hundreds that say nothing.
  const stuck = await Promise.all(Array.from({ length: 3 }, () => raw(server.url, { ...stream, max_tokens: 800, n: 16, logprobs: 20 })));
  const slow = await Promise.all(Array.from({ length: 500 }, () => raw(server.url, { ...stream, max_tokens: 20 })));
  const idle = await Promise.all(Array.from({ length: 500 }, () => raw(server.url)));
  assert.equal(threads(server.pid), before);
  assert.equal((await fetch(server.url + "/health")).status, 200);
  await until(async () => (await server.metric("num_requests_waiting")) + (await server.metric("num_requests_running")) === 0, "all generated", 60);
  assert.ok((await server.metric("http_requests_active")) >= 3, "some clients have not taken their answer");
  assert.equal(await server.metric("kv_blocks_held"), 0); // what waits for a slow client holds no page
  assert.equal((await server.post("/v1/completions", { prompt: "Once", max_tokens: 2 })).status, 200);
  assert.equal(threads(server.pid), before);
  for (const s of [...stuck, ...slow, ...idle]) s.destroy();
  await until(async () => (await server.metric("http_requests_active")) === 0, "all gone");
  await until(async () => (await server.metric("http_connections")) < 10, "connections closed");
  await server.close();
});

test("a huge prompt does not hold up others", async (t) => {
  const server = await serve(t, "--http-threads", "2");
  const huge = JSON.stringify({ prompt: "a b c d e f g ".repeat(1 << 19) , truncate_prompt_tokens: 10, max_tokens: 1 });
  const sent = Array.from({ length: 6 }, () => server.post("/v1/completions", huge).then((r) => r.status));
  await new Promise((r) => setTimeout(r, 30));
  const start = Date.now();
  for (let i = 0; i < 5; i++) assert.equal((await server.post("/v1/completions", { prompt: "Once", max_tokens: 1 })).status, 200);
  const took = Date.now() - start;
  assert.deepEqual(await Promise.all(sent), [200, 200, 200, 200, 200, 200]);
  assert.ok(took < 2000, `5 small requests took ${took} ms`);
  await server.close();
});

test("a body that drips is cut off, and so are connections beyond those of one address", async (t) => {
  const server = await serve(t, "--body-timeout", "1", "--max-connections-per-ip", "8");
  const { hostname, port } = new URL(server.url);
  const dripped = new Promise((resolve) => {
    const s = net.connect({ host: hostname, port: Number(port) }, () => {
      s.write("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n");
      const drip = setInterval(() => s.write(" "), 100);
      s.on("close", () => { clearInterval(drip); resolve(Date.now()); });
      s.on("error", () => {});
    });
  });
  const start = Date.now();
  assert.ok((await dripped) - start < 4000);
  const all = await Promise.all(Array.from({ length: 12 }, () => raw(server.url)));
  let n = 0;
  all.forEach((s) => s.on("close", () => n++).resume());
  await until(() => n >= 4, "those beyond eight are closed", 5);
  all.forEach((s) => s.destroy());
  await until(async () => (await fetch(server.url + "/health").catch(() => ({}))).status === 200, "room again", 5);
  await server.close();
});

test("SIGTERM finishes what runs", async (t) => {
  const server = await serve(t);
  const r = await server.post("/v1/completions", { prompt: "Once", max_tokens: 900, ignore_eos: true, stream: true });
  server.kill("SIGTERM");
  await until(async () => (await fetch(server.url + "/health")).status === 503, "draining", 5);
  assert.equal((await server.post("/v1/completions", { prompt: "a" })).status, 503);
  const text = await r.text();
  assert.match(text, /"finish_reason":"length"/);
  assert.match(text, /data: \[DONE\]\n\n$/);
  assert.deepEqual(await server.exited, { code: 0, signal: null });
});

test("--drain-timeout bounds it", async (t) => {
  const server = await serve(t, "--drain-timeout", "0.1", "--max-num-seqs", "1");
  const all = Array.from({ length: 20 }, () => server.post("/v1/completions", { prompt: "Once", max_tokens: 1000, ignore_eos: true }).then((r) => r.text(), () => "cut"));
  await until(async () => (await server.metric("num_requests_running")) > 0, "running");
  const start = Date.now();
  server.kill("SIGTERM");
  assert.equal((await server.exited).code, 0);
  assert.ok(Date.now() - start < 3000);
  assert.ok((await Promise.all(all)).includes("cut"));
});

test("a second signal ends it at once", async (t) => {
  const server = await serve(t, "--max-num-seqs", "1");
  const all = Array.from({ length: 50 }, () => server.post("/v1/completions", { prompt: "Once", max_tokens: 1000, ignore_eos: true }).then((r) => r.text(), () => "cut"));
  await until(async () => (await server.metric("num_requests_running")) > 0, "running");
  server.kill("SIGINT");
  await until(() => /draining/.test(server.log()), "the first was seen"); // two that wait together are one
  server.kill("SIGINT");
  assert.equal((await server.exited).code, 130);
  await Promise.all(all);
});

test("bad usage", async (t) => {
  await assert.rejects(serve(t, "--metrics-compat", "graphite"), /"code":1/);
  await assert.rejects(serve(t, "--host", "no such host"), /"code":1/);
  await assert.rejects(serve(t, "--port", "70000"), /"code":2/);
});
