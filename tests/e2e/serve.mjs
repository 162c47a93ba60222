// Starts `quire serve` on a free port; the tests' only way to a server.
import { spawn } from "node:child_process";

/** Servers that a failed test left behind must not keep the test run waiting. */
const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));

/** Resolves when the server has printed its URL.  It does not outlive t, the test's context (null: the file). */
export async function serve(t, ...args) {
  const child = spawn(process.env.QUIRE, ["serve", "--port", "0", ...args], { stdio: ["ignore", "pipe", "pipe"] });
  running.add(child);
  t?.after(() => child.kill("SIGKILL"));
  let err = "";
  child.stderr.on("data", (d) => (err = (err + d).slice(-20000)));
  const exited = new Promise((resolve) => child.on("exit", (code, signal) => {
    running.delete(child);
    /* What it said last may still be on its way. */
    if (child.stderr.isPaused() || child.stderr.destroyed) resolve({ code, signal });
    else child.on("close", () => resolve({ code, signal }));
  }));
  const url = await new Promise((resolve, reject) => {
    let out = "";
    child.stdout.on("data", (d) => {
      out += d;
      const m = out.match(/ at (https?:\/\/\S+)/);
      if (m) resolve(m[1]);
    });
    exited.then((how) => reject(new Error(`quire serve ended ${JSON.stringify(how)}: ${err}`)));
  });
  const server = {
    url,
    pid: child.pid,
    exited,
    log: () => err,
    kill: (signal) => child.kill(signal),
    pauseLog: () => child.stderr.pause(),
    /** Nobody reads its stderr any more. */
    closeLog: () => child.stderr.destroy(),
    /** Drains; fails unless the exit status is 0. */
    async close() {
      child.kill("SIGTERM");
      const how = await exited;
      if (how.code !== 0) throw new Error(`exit ${JSON.stringify(how)}: ${err}`);
    },
    /** The value of quire:<name>, of the line whose labels contain part. */
    async metric(name, part = "") {
      const text = await (await fetch(url + "/metrics")).text();
      const line = text.split("\n").find((l) => (l.startsWith(`quire:${name}{`) || l.startsWith(`quire:${name} `)) && l.includes(part));
      if (!line) throw new Error(`no metric ${name}`);
      return Number(line.slice(line.lastIndexOf(" ")));
    },
    post(path, body, headers = {}) {
      return fetch(url + path, {
        method: "POST",
        headers: { "Content-Type": "application/json", ...headers },
        body: typeof body === "string" ? body : JSON.stringify(body),
      });
    },
  };
  return server;
}

/** Polls until f() is true. */
export async function until(f, what, seconds = 20) {
  const end = Date.now() + seconds * 1000;
  while (!(await f())) {
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((r) => setTimeout(r, 20));
  }
}
