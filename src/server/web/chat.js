// The playground: a conversation with the model through the API that every client uses.
import { $, call, el, model, tip } from "./app.js";
import { renderMarkdown } from "./markdown.js";

const numbers = [
  ["temperature", 0, 2, 0.05], ["top_p", 0, 1, 0.01], ["top_k", -1, 1000, 1], ["min_p", 0, 1, 0.01],
  ["max_tokens", 1, 1e6, 1], ["seed", 0, 2 ** 53, 1],
  ["presence_penalty", -2, 2, 0.1], ["frequency_penalty", -2, 2, 0.1], ["repetition_penalty", 0.01, 2, 0.05],
];

const formExamples = {
  json: JSON.stringify({ type: "object", properties: { city: { type: "string" }, people: { type: "integer", minimum: 0 } }, required: ["city", "people"], additionalProperties: false }, null, 2),
  regex: "[A-Z][a-z]+, [A-Z][a-z]+ and [A-Z][a-z]+",
  choice: "yes\nno\nmaybe",
  grammar: 'root ::= "(" word ("," " " word)* ")"\nword ::= [a-z]+',
};

const toolsExample = JSON.stringify([{
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather of a city now",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false },
  },
}], null, 2);

/** The events of a server-sent stream, as parsed JSON. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split(/\r?\n\r?\n/);
    text = parts.pop();
    for (const part of parts) {
      const data = part.split(/\r?\n/).filter((l) => l.startsWith("data:")).map((l) => l.slice(5).trim()).join("\n");
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
  }
}

/* ---- what is asked ---- */

function parseJson(text, what) {
  try {
    return JSON.parse(text);
  } catch (e) {
    throw new Error(`${what}: ${e.message}`);
  }
}

function addForm(body) {
  const form = $("form").value, text = $("form-text").value;
  if (form === "json_object") body.response_format = { type: "json_object" };
  if (form === "json") body.response_format = { type: "json_schema", json_schema: { name: "reply", schema: parseJson(text, "The schema"), strict: true } };
  if (form === "regex") body.structured_outputs = { regex: text };
  if (form === "grammar") body.structured_outputs = { grammar: text };
  if (form === "choice") body.structured_outputs = { choice: text.split("\n").filter(Boolean) };
}

function makeBody(messages) {
  const body = { model: model(), stream: true, stream_options: { include_usage: true } };
  for (const [name] of numbers) {
    const v = $("p-" + name).value;
    if (v !== "") body[name] = Number(v);
  }
  const stops = $("stops").value.split("\n").filter(Boolean);
  if (stops.length) body.stop = stops;
  addForm(body);
  if ($("mode").value === "text") {
    if (body.max_tokens === undefined) body.max_tokens = 256;
    if ($("logprobs").checked) body.logprobs = 5;
    return { path: "/v1/completions", body: { ...body, prompt: messages.at(-1).content } };
  }
  if ($("logprobs").checked) Object.assign(body, { logprobs: true, top_logprobs: 5 });
  if ($("tools").value.trim()) {
    body.tools = parseJson($("tools").value, "The tools");
    body.tool_choice = $("tool-choice").value;
  }
  const system = $("system").value.trim();
  body.messages = [...(system ? [{ role: "system", content: system }] : []), ...messages.map((m) => m.wire())];
  return { path: "/v1/chat/completions", body };
}

/* ---- what is shown ---- */

const names = { user: "You", assistant: "Model", tool: "Tool" };

/** Less likely tokens on a stronger ground. */
function tokenSpan(t) {
  const p = Math.exp(t.logprob);
  const span = el("span", { text: t.token, tabindex: "0", "data-p": p.toFixed(4) });
  span.style.backgroundColor = `color-mix(in srgb, var(--c2) ${Math.round((1 - p) * 65)}%, transparent)`;
  const text = () => [...(t.top.some((o) => o.token === t.token) ? [] : [{ token: t.token, logprob: t.logprob }]), ...t.top]
    .map((o) => `${(Math.exp(o.logprob) * 100).toFixed(1).padStart(5)}%  ${JSON.stringify(o.token)}${o.token === t.token ? "  ←" : ""}`).join("\n");
  span.addEventListener("pointerenter", (e) => tip(text(), e.clientX, e.clientY));
  span.addEventListener("focus", () => {
    const r = span.getBoundingClientRect();
    span.setAttribute("aria-description", text());
    tip(text(), r.left, r.bottom - 10);
  });
  span.addEventListener("pointerleave", () => tip(""));
  span.addEventListener("blur", () => tip(""));
  return span;
}

class Message {
  constructor(role, content = "", extra = {}) {
    Object.assign(this, { role, content, reasoning: "", calls: [], tokens: [], drawn: 0, raw: false }, extra);
    this.acts = el("div", { class: "acts" });
    this.body = el("div", { class: "body" });
    this.foot = el("p", { class: "stats" });
    this.node = el("li", { class: role }, el("div", { class: "who" }, el("b", { text: names[role] }), ...(extra.label ? [extra.label] : [])), this.body, this.foot, this.acts);
    this.foot.hidden = true;
    this.draw();
  }

  wire() {
    if (this.role === "tool") return { role: "tool", tool_call_id: this.id, content: this.content };
    const m = { role: this.role, content: this.content };
    if (this.calls.length) m.tool_calls = this.calls.map((c) => ({ id: c.id, type: "function", function: { name: c.name, arguments: c.arguments } }));
    return m;
  }

  /** Draws at most once a frame, however many tokens come. */
  later() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      const list = $("messages"), atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
      this.draw();
      if (atEnd) list.scrollTop = list.scrollHeight;
    });
  }

  draw() {
    if (this.role !== "assistant") {
      this.body.textContent = this.content;
      return;
    }
    if (!this.text) {
      this.thought = el("div");
      this.thoughtBox = el("details", { class: "thought", hidden: true }, el("summary", { text: "Reasoning" }), this.thought);
      this.text = el("div");
      this.callBox = el("div");
      this.body.append(this.thoughtBox, this.text, this.callBox);
    }
    this.thoughtBox.hidden = !this.reasoning;
    this.thought.textContent = this.reasoning;
    if (this.tokens.length) {
      this.text.className = "tokens";
      for (; this.drawn < this.tokens.length; this.drawn++) this.text.append(tokenSpan(this.tokens[this.drawn]));
    } else if (this.raw) {
      this.text.className = "plain";
      this.text.textContent = this.content;
    } else {
      this.text.className = "md";
      renderMarkdown(this.text, this.content);
    }
    this.callBox.replaceChildren(...this.calls.map((c) => c.node ??= el("div", { class: "call" })));
    for (const c of this.calls) {
      c.head ??= c.node.appendChild(el("b"));
      c.args ??= c.node.appendChild(el("pre"));
      c.head.textContent = c.name;
      c.args.textContent = c.arguments;
    }
  }
}

export function openChat() {
  let messages = [], running = null;

  function put(m) {
    messages.push(m);
    $("messages").append(m.node);
    $("messages").scrollTop = $("messages").scrollHeight;
    return m;
  }

  /** Drops m and what follows it. */
  function cut(m) {
    for (const gone of messages.splice(messages.indexOf(m))) gone.node.remove();
  }

  const act = (text, f) => el("button", { type: "button", text, onclick: f });

  function userActs(m) {
    m.acts.replaceChildren(act("Edit", () => {
      if (running) return;
      $("prompt").value = m.content;
      cut(m);
      grow();
      $("prompt").focus();
    }));
  }

  function replyActs(m) {
    m.acts.replaceChildren(
      act("Copy", () => navigator.clipboard?.writeText(m.content)),
      act("Again", () => {
        if (running) return;
        cut(m);
        answer();
      }));
    for (const c of m.calls) {
      if (c.form) continue;
      const input = el("input", { "aria-label": `Result of ${c.name}`, placeholder: "What the function returns" });
      c.form = el("form", { onsubmit: (e) => {
        e.preventDefault();
        if (running || c.done) return;
        c.done = true;
        c.form.remove();
        put(new Message("tool", input.value, { id: c.id, label: c.name }));
        if (m.calls.every((o) => o.done)) answer();
      } }, input, el("button", { text: "Return it" }));
      c.node.append(c.form);
    }
  }

  function take(m, choice) {
    const d = choice.delta ?? { content: choice.text };
    m.content += d.content ?? "";
    m.reasoning += d.reasoning_content ?? d.reasoning ?? "";
    for (const part of d.tool_calls ?? []) {
      const c = (m.calls[part.index ?? 0] ??= { id: "", name: "", arguments: "" });
      c.id = part.id ?? c.id;
      c.name += part.function?.name ?? "";
      c.arguments += part.function?.arguments ?? "";
    }
    const lp = choice.logprobs;
    for (const t of lp?.content ?? []) m.tokens.push({ token: t.token, logprob: t.logprob, top: t.top_logprobs ?? [] });
    if (lp?.tokens)
      lp.tokens.forEach((token, i) => m.tokens.push({ token, logprob: lp.token_logprobs[i],
        top: Object.entries(lp.top_logprobs?.[i] ?? {}).map(([t, logprob]) => ({ token: t, logprob })).sort((a, b) => b.logprob - a.logprob) }));
    m.finish = choice.finish_reason ?? m.finish;
  }

  function sum(m, usage, start, first, end) {
    const n = usage?.completion_tokens;
    const parts = [];
    if (n != null) parts.push(`${usage.prompt_tokens} + ${n} tokens`);
    if (first) parts.push(`first after ${((first - start) / 1000).toFixed(2)} s`);
    if (n > 1 && first && end > first) parts.push(`${((n - 1) / ((end - first) / 1000)).toFixed(1)} tokens/s`);
    parts.push({ stop: "ended by itself", length: "cut at the limit", tool_calls: "wants a tool", abort: "stopped" }[m.finish] ?? m.finish ?? "stopped");
    m.foot.textContent = parts.join(" · ");
    m.foot.hidden = false;
  }

  async function answer() {
    let request;
    try {
      request = makeBody(messages);
    } catch (e) {
      fail(e);
      return;
    }
    const m = put(new Message("assistant", "", { raw: $("mode").value === "text" }));
    const start = performance.now();
    let first = null, usage = null;
    running = new AbortController();
    busy(true);
    try {
      const r = await call(request.path, { method: "POST", body: JSON.stringify(request.body), signal: running.signal });
      for await (const event of events(r)) {
        if (event.error) throw new Error(event.error.message);
        usage = event.usage ?? usage;
        for (const choice of event.choices ?? []) {
          take(m, choice);
          first ??= m.content || m.reasoning || m.calls.length ? performance.now() : null;
        }
        m.later();
      }
      $("said").textContent = m.content || (m.calls.length ? "The model wants to call a function." : "The reply is empty.");
    } catch (e) {
      if (e.name === "AbortError") m.finish = "abort";
      else fail(e, m);
    }
    m.draw();
    if (m.finish || m.content) sum(m, usage, start, first, performance.now());
    replyActs(m);
    running = null;
    busy(false);
  }

  function fail(e, m) {
    const line = el("p", { class: "error", role: "alert", text: e.message });
    if (m && !m.content && !m.calls.length) cut(m);
    (m?.content ? m.body : $("messages").appendChild(el("li"))).append(line);
    line.scrollIntoView({ block: "nearest" });
  }

  function busy(on) {
    $("send").hidden = on;
    $("stop").hidden = !on;
    $("messages").setAttribute("aria-busy", on);
    if (!on) $("prompt").focus({ preventScroll: true });
  }

  function grow() {
    const p = $("prompt");
    p.style.height = "auto";
    p.style.height = p.scrollHeight + 2 + "px";
  }

  /* ---- controls ---- */

  for (const [name, min, max, step] of numbers) {
    const input = el("input", { id: "p-" + name, type: "number", min, max, step: "any", "data-step": step, placeholder: "model's own", inputmode: "decimal" });
    $("numbers").append(el("div", {}, el("label", { for: "p-" + name, text: name.replaceAll("_", " ") }), input));
  }
  const kept = ["mode", "system", "stops", "form", "form-text", "tools", "tool-choice", ...numbers.map(([n]) => "p-" + n)];
  const stored = JSON.parse(localStorage.getItem("settings") ?? "{}");
  for (const id of kept) {
    if (typeof stored[id] === "string") $(id).value = stored[id];
    $(id).addEventListener("change", save);
  }
  function save() {
    localStorage.setItem("settings", JSON.stringify(Object.fromEntries(kept.map((id) => [id, $(id).value]))));
  }
  const showForm = () => ($("form-text").hidden = !formExamples[$("form").value]);
  showForm();
  $("form").addEventListener("change", () => {
    showForm();
    $("form-text").value = formExamples[$("form").value] ?? "";
    save();
  });
  $("tools-example").addEventListener("click", () => {
    $("tools").value = toolsExample;
    save();
  });
  $("defaults").addEventListener("click", () => {
    for (const [name] of numbers) $("p-" + name).value = "";
    $("stops").value = "";
    save();
  });
  $("clear").addEventListener("click", () => {
    running?.abort();
    messages = [];
    $("messages").replaceChildren();
    $("prompt").focus();
  });
  $("composer").addEventListener("submit", (e) => {
    e.preventDefault();
    const text = $("prompt").value;
    if (running || !text.trim()) return;
    $("messages").querySelectorAll(":scope > li:not([class])").forEach((li) => li.remove());
    $("prompt").value = "";
    grow();
    userActs(put(new Message("user", text)));
    answer();
  });
  $("stop").addEventListener("click", () => running?.abort());
  $("prompt").addEventListener("input", grow);
  $("prompt").addEventListener("keydown", (e) => {
    if (e.key === "Enter" && !e.shiftKey && !e.isComposing) {
      e.preventDefault();
      $("composer").requestSubmit();
    }
  });
  addEventListener("keydown", (e) => {
    if (e.key === "Escape" && running && !$("key-dialog").open) running.abort();
    if (e.key === "/" && !/INPUT|TEXTAREA|SELECT/.test(document.activeElement.tagName) && !$("chat-view").hidden) {
      e.preventDefault();
      $("prompt").focus();
    }
  });
}
