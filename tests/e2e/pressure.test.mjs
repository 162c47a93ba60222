// Want of descriptors, memory and disk: answers may be refused, the server goes on.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { serve, until } from "./serve.mjs";

const limit = (server, what, value) => execFileSync("prlimit", ["--pid", String(server.pid), `--${what}=${value}`]);
const story = { prompt: "Once upon a time", max_tokens: 30, temperature: 0 };
const complete = async (server, body = story) => {
  const r = await server.post("/v1/completions", body);
  const text = await r.text();
  return { status: r.status, text: r.status === 200 ? JSON.parse(text).choices[0].text : text };
};
const fds = (server) => fs.readdirSync(`/proc/${server.pid}/fd`).length;

test("connections beyond the descriptors wait, and are served when others go", async (t) => {
  const quire = process.env.QUIRE, dir = fs.mkdtempSync(path.join(os.tmpdir(), "quire-pressure-"));
  t.after(() => fs.rmSync(dir, { recursive: true }));
  fs.writeFileSync(path.join(dir, "few"), `#!/bin/sh\nulimit -n 160\nexec ${quire} "$@"\n`, { mode: 0o755 });
  process.env.QUIRE = path.join(dir, "few");
  const server = await serve(t).finally(() => (process.env.QUIRE = quire));
  const { text } = await complete(server);
  const { hostname, port } = new URL(server.url), before = fds(server);
  const all = await Promise.all(Array.from({ length: 300 }, () => new Promise((resolve) => {
    const s = net.connect({ host: hostname, port: Number(port) }, () => resolve(s));
    s.on("error", () => resolve(s));
  })));
  await until(() => fds(server) > 90, "the server has taken what it may");
  assert.ok(fds(server) < 160);
  const waiting = complete(server);                       // behind hundreds of silent ones
  await new Promise((r) => setTimeout(r, 200));
  for (const s of all) s.destroy();
  assert.deepEqual(await waiting, { status: 200, text });
  await until(() => fds(server) <= before + 4, "descriptors are back");
  await server.close();
});

test("no descriptor left at all: open connections are served, new ones when there are some again", async (t) => {
  const server = await serve(t);
  const { text } = await complete(server);                // its connection is kept alive
  const had = fds(server);
  limit(server, "nofile", `${had}:4096`);
  const { hostname, port } = new URL(server.url);
  const more = await Promise.all(Array.from({ length: 20 }, () => new Promise((resolve) => {
    const s = net.connect({ host: hostname, port: Number(port) }, () => resolve(s));
    s.on("error", () => resolve(s));
  })));
  await new Promise((r) => setTimeout(r, 300));
  for (const s of more) s.destroy();
  limit(server, "nofile", "4096:4096");
  await until(async () => (await complete(server)).text === text, "answers again", 10);
  await server.close();
});

test("memory that cannot be had: requests are refused or cut, the rest goes on", async (t) => {
  const server = await serve(t, "--num-kv-blocks", "1500", "--max-body-bytes", "64M");
  const { text } = await complete(server);
  const size = Number(fs.readFileSync(`/proc/${server.pid}/status`, "utf8").match(/VmSize:\s+(\d+)/)[1]) * 1024;
  limit(server, "as", `${size + (24 << 20)}:`);
  const seen = new Set();
  const big = JSON.stringify({ prompt: "a b c d ".repeat(4 << 20), max_tokens: 1 });
  await Promise.all(Array.from({ length: 12 }, async (_, i) => {
    const r = await server.post("/v1/completions", i % 3 === 0 ? big : { ...story, max_tokens: 500, n: 8, logprobs: 20, ignore_eos: true, stream: i % 3 === 1 }).catch(() => null);
    const body = await r?.text().catch(() => "cut");
    seen.add(r === null || body === "cut" ? "cut" : r.status);
  }));
  assert.ok([...seen].some((s) => s !== 200), `all were answered: ${[...seen]}`);
  for (const s of seen) assert.ok(["cut", 200, 400, 429, 500, 503].includes(s), String(s));
  await until(async () => (await server.metric("kv_blocks_held").catch(() => 1)) === 0, "pages are back");
  limit(server, "as", "unlimited:");
  await until(async () => (await complete(server).catch(() => ({}))).text === text, "the same answer as before", 10);
  await server.close();
});

test("a disk that takes no more: no packed cache, no log, but a server", async (t) => {
  const quire = process.env.QUIRE, dir = fs.mkdtempSync(path.join(os.tmpdir(), "quire-pressure-"));
  t.after(() => fs.rmSync(dir, { recursive: true }));
  fs.writeFileSync(path.join(dir, "full"), `#!/bin/sh\nulimit -f 8\nexec ${quire} "$@"\n`, { mode: 0o755 });
  process.env.QUIRE = path.join(dir, "full");
  const server = await serve(t, "--packed-cache", path.join(dir, "cache"), "--access-log", path.join(dir, "access.log")).finally(() => (process.env.QUIRE = quire));
  const first = await complete(server);
  assert.equal(first.status, 200);
  for (let i = 0; i < 60; i++) assert.deepEqual(await complete(server, { ...story, max_tokens: 1 }).then((r) => r.status), 200);
  await until(async () => (await server.metric("log_lines_lost_total")) > 0, "lines are lost and counted");
  assert.ok(fs.statSync(path.join(dir, "access.log")).size <= 8 * 1024);
  assert.match(server.log(), /packed/);
  for (const name of fs.existsSync(path.join(dir, "cache")) ? fs.readdirSync(path.join(dir, "cache")) : []) assert.fail(`left behind: ${name}`);
  await server.close();
});

test("a reader of the log that stops reading", async (t) => {
  const server = await serve(t);
  server.pauseLog();
  const path = "/" + "x".repeat(190);
  for (let i = 0; i < 40; i++) await Promise.all(Array.from({ length: 50 }, () => fetch(server.url + path)));
  await until(async () => (await server.metric("log_lines_lost_total")) > 0, "lines are lost and counted");
  const start = Date.now();
  assert.equal((await complete(server)).status, 200);
  assert.ok(Date.now() - start < 3000);
  await server.close();
});

test("a reader of the log that ends", async (t) => {
  const server = await serve(t);
  server.closeLog();
  for (let i = 0; i < 5; i++) assert.equal((await complete(server)).status, 200);
  await until(async () => (await server.metric("log_lines_lost_total")) > 0, "lines are lost and counted");
  await server.close();
});
