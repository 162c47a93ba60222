// A stand-in for a hub: the API, resolve with redirects to a second host, ranges, and every way to misbehave.
import crypto from "node:crypto";
import http from "node:http";

const sha = (kind, ...parts) => parts.reduce((h, p) => h.update(p), crypto.createHash(kind)).digest("hex");

/** files: { name: Buffer | string }; lfs: names of large files (default: *.safetensors, *.gguf). */
export function repo(files, { commit = "a".repeat(40), refs = ["main"] } = {}) {
  const entries = Object.entries(files).map(([name, content]) => {
    const data = Buffer.from(content), lfs = /\.(safetensors|gguf|bin|pth)$/.test(name);
    return { name, data, lfs, oid: lfs ? sha("sha256", data) : sha("sha1", `blob ${data.length}\0`, data) };
  });
  return { commit, refs, entries };
}

/** Starts a hub with repos { "org/name": repo(..) }.  Its options may be changed while it runs:
 *  token       needed for everything          gated      message of 403s
 *  onRequest   (req, res, kind) => true when it has answered itself;  kind: "api", "resolve", "cdn"
 *  bare        lists only names               tree       lists no siblings: the tree has them, in pages of 2
 *  noRanges    answers 200 to ranges          slow       bytes per 10 ms of bodies
 *  files       entry => the bytes to send */
export async function hub(t, repos, options = {}) {
  const h = { repos, ...options, log: [], tokens: { hub: new Set(), cdn: new Set() } };
  const send = (req, res, data, headers = {}) => {
    const m = h.noRanges ? null : /^bytes=(\d+)-(\d*)$/.exec(req.headers.range ?? "");
    const from = m ? Number(m[1]) : 0, to = m && m[2] ? Math.min(Number(m[2]) + 1, data.length) : data.length;
    if (m && from >= data.length) return res.writeHead(416, { "Content-Range": `bytes */${data.length}` }).end();
    res.writeHead(m ? 206 : 200, { ...headers, "Content-Length": to - from, "Accept-Ranges": "bytes", ...(m ? { "Content-Range": `bytes ${from}-${to - 1}/${data.length}` } : {}) });
    if (req.method === "HEAD") return res.end();
    if (!h.slow) return res.end(data.subarray(from, to));
    let at = from;
    const timer = setInterval(() => {
      if (res.destroyed) return clearInterval(timer);
      res.write(data.subarray(at, Math.min(at + h.slow, to)));
      at += h.slow;
      if (at >= to) { clearInterval(timer); res.end(); }
    }, 10);
  };
  const json = (res, value, headers = {}) => res.writeHead(200, { "Content-Type": "application/json", ...headers }).end(JSON.stringify(value));
  const refuse = (res, status, code, message) => res.writeHead(status, { ...(code ? { "X-Error-Code": code } : {}), ...(message ? { "X-Error-Message": message } : {}) }).end(JSON.stringify({ error: message ?? "no" }));
  const find = (name) => h.repos[name];
  const entryJson = (e) => h.bare ? { rfilename: e.name } : { rfilename: e.name, size: e.size ?? e.data.length, blobId: e.lfs ? "b".repeat(40) : e.oid, ...(e.lfs ? { lfs: { sha256: e.oid, size: e.size ?? e.data.length, pointerSize: 130 } } : {}) };

  const main = http.createServer((req, res) => {
    const url = new URL(req.url, h.url), path = decodeURIComponent(url.pathname);
    const kind = path.startsWith("/api/") ? "api" : "resolve";
    h.log.push({ kind, path, method: req.method, range: req.headers.range });
    if (req.headers.authorization) h.tokens.hub.add(req.headers.authorization);
    if (h.onRequest?.(req, res, kind, path)) return;
    const m = /^\/api\/models\/(.+?)\/(revision|tree)\/(.+)$/.exec(path) ?? /^\/(.+?)\/(resolve)\/(.+?)\/(.+)$/.exec(path);
    const r = m && find(m[1]);
    if (h.token && req.headers.authorization !== `Bearer ${h.token}`) return refuse(res, 401, "RepoNotFound", "Repository not found");
    if (h.gated) return refuse(res, 403, "GatedRepo", h.gated);
    if (!r) return refuse(res, h.token ? 404 : 401, "RepoNotFound", "Repository not found");
    if (m[3] !== r.commit && !r.refs.includes(m[3])) return refuse(res, 404, "RevisionNotFound", "Invalid rev id");
    if (m[2] === "revision") return json(res, { id: m[1], sha: r.commit, ...(h.tree ? {} : { siblings: r.entries.map(entryJson) }) });
    if (m[2] === "tree") {
      const at = Number(url.searchParams.get("cursor") ?? 0), more = at + 2 < r.entries.length;
      const page = r.entries.slice(at, at + 2).map((e) => ({ type: "file", path: e.name, size: e.data.length, oid: e.lfs ? "b".repeat(40) : e.oid, ...(e.lfs ? { lfs: { oid: e.oid, size: e.data.length } } : {}) }));
      return json(res, [{ type: "directory", path: "d" }, ...page].slice(at ? 1 : 0), more ? { Link: `<${h.url}${url.pathname}?recursive=true&cursor=${at + 2}>; rel="next"` } : {});
    }
    const e = r.entries.find((x) => x.name === m[4]);
    if (!e) return refuse(res, 404, "EntryNotFound", "Entry not found");
    const headers = { "X-Repo-Commit": r.commit, ETag: `"${e.oid}"` };
    if (!e.lfs) return send(req, res, h.files?.(e) ?? e.data, headers);
    res.writeHead(302, { "X-Repo-Commit": r.commit, "X-Linked-ETag": `"${e.oid}"`, "X-Linked-Size": e.data.length, ETag: '"pointer"', Location: `${h.cdn}/${m[1]}/${e.oid}?sig=${h.sig ?? "s"}`, "Content-Length": 0 }).end();
  });
  const cdn = http.createServer((req, res) => {
    h.log.push({ kind: "cdn", path: req.url, method: req.method, range: req.headers.range });
    if (req.headers.authorization) h.tokens.cdn.add(req.headers.authorization);
    if (h.onRequest?.(req, res, "cdn", req.url)) return;
    const oid = req.url.split("/").pop().split("?")[0];
    const e = Object.values(h.repos).flatMap((r) => r.entries).find((x) => x.oid === oid);
    if (!e) return res.writeHead(404).end();
    send(req, res, h.files?.(e) ?? e.data, { ETag: '"other"' });
  });
  for (const [server, key] of [[main, "url"], [cdn, "cdn"]]) {
    await new Promise((r) => server.listen(0, "127.0.0.1", r));
    h[key] = `http://127.0.0.1:${server.address().port}`;
    t.after(() => { server.closeAllConnections(); server.close(); });
  }
  h.bytes = (kind) => h.log.filter((l) => l.kind === kind).length;
  return h;
}
