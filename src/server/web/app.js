// The page's frame: views, theme, key, model, and how everything else talks to the server.
import { openChat } from "./chat.js";
import { openLive } from "./live.js";

export const $ = (id) => document.getElementById(id);

/** An element with attributes (on...: listeners; class, text) and children. */
export function el(name, attrs = {}, ...children) {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(attrs)) {
    if (k === "text") e.textContent = v;
    else if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
    else if (v !== false && v != null) e.setAttribute(k, v === true ? "" : v);
  }
  e.append(...children);
  return e;
}

/* ---- the server ---- */

/** fetch with the key; throws an Error whose message is the server's own. */
export async function call(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const headers = { ...(options.body ? { "Content-Type": "application/json" } : {}), ...(key ? { Authorization: "Bearer " + key } : {}) };
  let r;
  try {
    r = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new Error("The server cannot be reached.");
  }
  if (r.ok) return r;
  if (r.status === 401) askKey();
  let message = `The server answered ${r.status}.`;
  try {
    const body = await r.json();
    message = body.error?.message ?? body.message ?? message;
  } catch { /* not JSON: the status says enough */ }
  throw new Error(message);
}

export function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

export const model = () => $("model").value;

async function loadModels() {
  try {
    const list = (await (await call("/v1/models")).json()).data;
    $("model").replaceChildren(...list.map((m) => el("option", { value: m.id, text: m.id })));
    notice("");
  } catch (e) {
    notice(e.message);
  }
}

/* ---- key ---- */

function askKey() {
  if ($("key-dialog").open) return;
  $("key").value = sessionStorage.getItem("key") ?? "";
  $("key-dialog").showModal();
}

$("key-button").addEventListener("click", askKey);
$("key-dialog").addEventListener("close", () => {
  if ($("key-dialog").returnValue !== "ok") return;
  sessionStorage.setItem("key", $("key").value.trim());
  $("key").value = "";
  loadModels();
});

/* ---- theme: as the system is until the button says otherwise ---- */

const system = matchMedia("(prefers-color-scheme: dark)");
function paint() {
  const chosen = localStorage.getItem("theme");
  document.documentElement.dataset.theme = chosen ?? (system.matches ? "dark" : "light");
  $("theme").textContent = chosen === "dark" ? "Dark" : chosen === "light" ? "Light" : "Auto";
  $("theme").setAttribute("aria-label", "Theme: " + $("theme").textContent);
  dispatchEvent(new Event("themechange"));
}
$("theme").addEventListener("click", () => {
  const next = { light: "dark", dark: null }[localStorage.getItem("theme")];
  if (next === null) localStorage.removeItem("theme");
  else localStorage.setItem("theme", next ?? "light");
  paint();
});
system.addEventListener("change", paint);

/* ---- views ---- */

const live = openLive();
function show() {
  const isLive = location.hash === "#live";
  $("chat-view").hidden = isLive;
  $("live-view").hidden = !isLive;
  for (const [id, on] of [["to-chat", !isLive], ["to-live", isLive]]) {
    if (on) $(id).setAttribute("aria-current", "page");
    else $(id).removeAttribute("aria-current");
  }
  live.run(isLive && !document.hidden);
}
addEventListener("hashchange", show);
document.addEventListener("visibilitychange", show);
$("model").addEventListener("change", () => live.restart());

/* ---- the tip under the pointer or the focus ---- */

export function tip(text, x, y) {
  const t = $("tip");
  t.hidden = !text;
  if (!text) return;
  t.textContent = text;
  t.style.left = Math.max(4, Math.min(x, innerWidth - t.offsetWidth - 8)) + "px";
  t.style.top = (y + t.offsetHeight + 24 > innerHeight ? y - t.offsetHeight - 12 : y + 16) + "px";
}

paint();
openChat();
show();
loadModels();
