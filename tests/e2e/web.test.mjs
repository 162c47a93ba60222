// The page at / in a real browser, against a real server.
import assert from "node:assert/strict";
import { test } from "node:test";
import { serve, until } from "./serve.mjs";
import { answerWith, delta, executablePath, openPage, usage } from "./browser.mjs";

const skip = executablePath ? false : "no Chromium here";
const replies = (page) => page.locator("li.assistant .stats:not([hidden])");

async function ask(page, text) {
  const n = await replies(page).count();
  await page.fill("#prompt", text);
  await page.keyboard.press("Enter");
  await replies(page).nth(n).waitFor();
}

test("files, their headers, and nothing else", async (t) => {
  const server = await serve(t);
  const page = await fetch(server.url + "/");
  assert.equal(page.status, 200);
  assert.match(page.headers.get("content-type"), /^text\/html/);
  const csp = page.headers.get("content-security-policy");
  assert.match(csp, /default-src 'none'/);
  assert.doesNotMatch(csp, /unsafe|\*|https?:|data:/);
  assert.equal(page.headers.get("x-content-type-options"), "nosniff");
  assert.equal(page.headers.get("referrer-policy"), "no-referrer");
  const html = await page.text();
  assert.doesNotMatch(html, /<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|https?:\/\//);
  for (const [, path] of html.matchAll(/(?:src|href)="(\/web\/[^"]+)"/g)) assert.equal((await fetch(server.url + path)).status, 200, path);
  for (const path of ["/web/", "/web/nothing.js", "/web/..%2f..%2fetc/passwd", "/web/style.css/x"]) assert.equal((await fetch(server.url + path)).status, 404, path);
  assert.equal((await fetch(server.url + "/", { method: "HEAD" })).status, 200);
  await server.close();
});

test("a conversation: streaming, statistics, editing, asking again", { skip }, async (t) => {
  const server = await serve(t);
  const page = await openPage(t, server.url);
  await page.fill("#p-temperature", "0");
  await ask(page, "What is the capital of France?");
  assert.match(await page.locator("li.assistant .body").innerText(), /Paris/);
  assert.match(await replies(page).first().innerText(), /12 \+ \d+ tokens · first after .* s · .* tokens\/s · ended by itself/);
  assert.equal(await page.locator("#said").innerText(), await page.locator("li.assistant .body").innerText());
  await ask(page, "Hello!");
  assert.equal(await page.locator("#messages > li").count(), 4);
  const before = await page.locator("li.assistant").last().innerText();
  await page.locator("li.assistant").last().getByRole("button", { name: "Again" }).click();
  await replies(page).nth(1).waitFor();
  assert.equal((await page.locator("li.assistant").last().innerText()).split("\n")[1], before.split("\n")[1]);
  await page.locator("li.user").first().hover();
  await page.locator("li.user").first().getByRole("button", { name: "Edit" }).click();
  assert.equal(await page.inputValue("#prompt"), "What is the capital of France?");
  assert.equal(await page.locator("#messages > li").count(), 0);
  await page.selectOption("#mode", "text");
  await page.fill("#p-max_tokens", "8");
  await ask(page, "Once upon a time");
  assert.match(await replies(page).innerText(), /8 tokens.*cut at the limit/);
  // A mistake of the user's is told in the server's words, and the next request works.
  await page.evaluate(() => (document.getElementById("p-temperature").value = "-1"));
  await page.fill("#prompt", "x");
  await page.keyboard.press("Enter");
  assert.match(await page.locator("#messages .error").innerText(), /temperature/);
  await page.fill("#p-temperature", "0");
  await ask(page, "The end");
  assert.deepEqual(page.bad.filter((b) => !/400/.test(b)), []);
});

test("stopping, by button and by Escape", { skip }, async (t) => {
  const server = await serve(t, "--max-model-len", "1024");
  const page = await openPage(t, server.url);
  await page.selectOption("#mode", "text");
  await page.fill("#p-max_tokens", "900");
  // However fast the model is: nothing but an interruption ends this one early.
  for (const stop of [() => page.click("#stop"), () => page.keyboard.press("Escape")]) {
    let cut = false;
    for (let k = 0; k < 5 && !cut; k++) {
      await page.fill("#prompt", "Once upon a time");
      await page.keyboard.press("Enter");
      await page.locator("#stop").waitFor({ timeout: 2000 }).then(stop).catch(() => {});
      await page.locator("#send").waitFor();
      cut = /stopped/.test(await replies(page).last().innerText());
    }
    assert.ok(cut);
  }
  await until(async () => (await server.metric("num_requests_running")) === 0, "the stopped requests to end");
  assert.deepEqual(page.bad, []);
});

test("token probabilities, with pointer and keyboard", { skip }, async (t) => {
  const server = await serve(t);
  const page = await openPage(t, server.url);
  await page.check("#logprobs");
  await page.fill("#p-temperature", "0");
  for (const mode of ["chat", "text"]) {
    await page.selectOption("#mode", mode);
    await page.fill("#p-max_tokens", "6");
    await ask(page, "What is the capital of France?");
    const tokens = page.locator("li.assistant").last().locator(".tokens span");
    assert.ok((await tokens.count()) >= 6);
    const p = Number(await tokens.nth(2).getAttribute("data-p"));
    await tokens.nth(2).hover();
    const tip = page.locator("#tip");
    const lines = (await tip.innerText()).split("\n");
    assert.ok(lines.length >= 5);
    assert.equal(lines.filter((l) => l.includes("←")).length, 1);
    assert.ok(Math.abs(parseFloat(lines.find((l) => l.includes("←"))) / 100 - p) < 0.001);
    await page.mouse.move(5, 5);
    assert.ok(await tip.isHidden());
    await tokens.nth(1).focus();
    assert.ok(await tip.isVisible());
  }
  assert.deepEqual(page.bad, []);
});

const hostile = [
  "<script>window.hit = 1</script>", "<img src=x onerror='window.hit = 2'>", "![x](https://evil.example/a.png)", "[x](javascript:window.hit=3)",
  "[y](data:text/html,<script>window.hit=4</script>)", "<a href='javascript:window.hit=5'>z</a>", "`<b>code</b>`", "```html\n<iframe src=//evil.example></iframe>\n```",
  "[a](https://ok.example \"onmouseover=window.hit=6\")", "| <i>h</i> | b |\n|---|:-:|\n| <svg onload=window.hit=7> | 2 |", "# <u>t</u>", "1. <details open ontoggle=window.hit=8>\n   - <style>*{display:none}</style>",
  "> <form action=//evil.example><button>", "<https://ok.example/?a=<b>>", "**<b>**", "[x](java\nscript:1)", "[x](JaVaScRiPt:window.hit=9)", "&lt;script&gt;",
];

test("output that contains markup stays text", { skip }, async (t) => {
  const server = await serve(t);
  const page = await openPage(t, server.url);
  const text = hostile.join("\n\n");
  const half = text.length >> 1;
  await answerWith(page, [delta({ role: "assistant", content: "" }), delta({ reasoning_content: hostile[1] }), delta({ content: text.slice(0, half) }),
    delta({ content: text.slice(half) }), delta({ tool_calls: [{ index: 0, id: "c1", function: { name: "<b>f</b>", arguments: "<img src=x>" } }] }), delta({}, "tool_calls"), usage(1, 2)]);
  await ask(page, "<img src=x onerror='window.hit = 10'>");
  const found = await page.evaluate(() => ({
    hit: window.hit,
    names: [...new Set([...document.querySelectorAll("#messages .body *")].map((e) => e.nodeName.toLowerCase()))],
    links: [...document.querySelectorAll("#messages a")].map((a) => [a.protocol, a.rel, a.target]),
    attributes: [...document.querySelectorAll("#messages *")].flatMap((e) => e.getAttributeNames()).filter((n) => n.startsWith("on")),
  }));
  assert.equal(found.hit, undefined);
  assert.deepEqual(found.attributes, []);
  for (const name of found.names)
    assert.ok("a b blockquote br button code del details div em form h1 h2 header hr input li ol p pre span strong summary table tbody td th thead tr ul".split(" ").includes(name), name);
  assert.ok(found.links.length >= 2);
  for (const [protocol, rel, target] of found.links) {
    assert.equal(protocol, "https:");
    assert.match(rel, /noopener.*noreferrer/);
    assert.equal(target, "_blank");
  }
  const shown = await page.locator("li.assistant").innerText();
  for (const piece of ["<script>window.hit = 1</script>", "<img src=x onerror='window.hit = 2'>", "<iframe src=//evil.example></iframe>", "<svg onload=window.hit=7>", "&lt;script&gt;", "<b>f</b>"])
    assert.ok(shown.includes(piece), piece);
  assert.deepEqual(page.bad, []);
});

test("markdown: what is drawn, whole and streamed", { skip }, async (t) => {
  const server = await serve(t);
  const page = await openPage(t, server.url);
  const html = (text) => page.evaluate(async (s) => {
    const { renderMarkdown } = await import("/web/markdown.js");
    const whole = document.createElement("div"), streamed = document.createElement("div");
    renderMarkdown(whole, s);
    for (let i = 0; i <= s.length; i += 3) renderMarkdown(streamed, s.slice(0, i));
    renderMarkdown(streamed, s);
    if (streamed.innerHTML !== whole.innerHTML) throw new Error("streamed differs: " + streamed.innerHTML);
    whole.querySelectorAll("header").forEach((h) => h.remove());
    return whole.innerHTML.replace(/ (class|tabindex|rel|target|style)="[^"]*"/g, "");
  }, text);
  for (const [text, want] of [
    ["a *b* **c** ~~d~~ `e*f*`", "<p>a <em>b</em> <strong>c</strong> <del>d</del> <code>e*f*</code></p>"],
    ["snake_case_name and 2*3*4", "<p>snake_case_name and 2<em>3</em>4</p>"],
    ["# T\ntext\n\nmore", "<h1>T</h1><p>text</p><p>more</p>"],
    ["- a\n- b\n  1. c\n  2. d\n- e", "<ul><li>a</li><li>b<ol><li>c</li><li>d</li></ol></li><li>e</li></ul>"],
    ["3. x\n4. y", '<ol start="3"><li>x</li><li>y</li></ol>'],
    ["```c\nint *a;\n\n# not a heading\n```\nafter", "<div><pre><code>int *a;\n\n# not a heading</code></pre></div><p>after</p>"],
    ["```\nopen", "<div><pre><code>open</code></pre></div>"],
    ["> q\n> r", "<blockquote><p>q\nr</p></blockquote>"],
    ["a | b\n--|--\n1 | 2", "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody></table>"],
    ["---", "<hr>"], ["a\\*b\\*", "<p>a*b*</p>"],
    ["see https://a.example/x.", '<p>see <a href="https://a.example/x">https://a.example/x</a>.</p>'],
    ["- ```\n  code\n  ```\n- z", "<ul><li><div><pre><code>code</code></pre></div></li><li>z</li></ul>"],
  ]) assert.equal(await html(text), want, text);
  // Depth and length are bounded in time.
  for (const text of [">".repeat(2000), "- ".repeat(2000), "*".repeat(20000), "[".repeat(20000), "`".repeat(9999) + "a", "**a ".repeat(3000)]) {
    const ms = await page.evaluate(async (s) => {
      const { renderMarkdown } = await import("/web/markdown.js");
      const start = performance.now();
      renderMarkdown(document.createElement("div"), s);
      return performance.now() - start;
    }, text);
    assert.ok(ms < 5000, `${text.slice(0, 8)}: ${ms} ms`);
  }
});

test("tools and structured output, as they are sent and shown", { skip }, async (t) => {
  const server = await serve(t);
  const page = await openPage(t, server.url);
  const call = { index: 0, id: "call-1", type: "function", function: { name: "get_weather", arguments: "" } };
  await answerWith(page,
    [delta({ role: "assistant" }), delta({ reasoning_content: "It wants weather." }), delta({ tool_calls: [call] }), delta({ tool_calls: [{ index: 0, function: { arguments: '{"city":' } }] }),
      delta({ tool_calls: [{ index: 0, function: { arguments: '"Oslo"}' } }] }), delta({}, "tool_calls"), usage(20, 9)],
    [delta({ content: "It rains in **Oslo**." }), delta({}, "stop"), usage(40, 6)],
    [delta({ content: "yes" }, "stop"), usage(1, 1)]);
  await page.getByText("Tools", { exact: true }).click();
  await page.click("#tools-example");
  await ask(page, "Weather in Oslo?");
  assert.equal(page.asked[0].tools[0].function.name, "get_weather");
  assert.equal(page.asked[0].tool_choice, "auto");
  assert.match(await page.locator("li.assistant .call").innerText(), /get_weather\s+\{"city":"Oslo"\}/);
  assert.equal(await page.locator("li.assistant .thought").count(), 1);
  await page.getByLabel("Result of get_weather").fill("rain");
  await page.keyboard.press("Enter");
  await replies(page).nth(1).waitFor();
  const sent = page.asked[1].messages;
  assert.deepEqual(sent.map((m) => m.role), ["user", "assistant", "tool"]);
  assert.deepEqual(sent[1].tool_calls, [{ id: "call-1", type: "function", function: { name: "get_weather", arguments: '{"city":"Oslo"}' } }]);
  assert.deepEqual(sent[2], { role: "tool", tool_call_id: "call-1", content: "rain" });
  assert.equal(await page.locator("li.assistant strong").innerText(), "Oslo");
  await page.getByText("Structured output", { exact: true }).click();
  await page.selectOption("#form", "choice");
  await ask(page, "Really?");
  assert.deepEqual(page.asked[2].structured_outputs, { choice: ["yes", "no", "maybe"] });
  await page.selectOption("#form", "json");
  await page.fill("#form-text", "{");
  await page.fill("#prompt", "x");
  await page.keyboard.press("Enter");
  assert.match(await page.locator("#messages .error").innerText(), /The schema: /);
  assert.equal(page.asked.length, 3);
  assert.deepEqual(page.bad, []);
});

test("the dashboard tells what the server does", { skip }, async (t) => {
  const server = await serve(t, "--num-kv-blocks", "512");
  const page = await openPage(t, server.url);
  await page.click("#to-live");
  await page.locator("#tiles li").first().waitFor();
  const tile = async (name) => (await page.locator("#tiles li", { hasText: name }).locator("b").innerText()).trim();
  const shared = "You are a friend of long stories. ".repeat(12);
  const seen = { running: 0, shared: false };
  let finished = 0;
  const ask = async (tail, n) => {
    const r = await (await server.post("/v1/completions", { prompt: shared + tail, max_tokens: n, ignore_eos: true, seed: 1 })).json();
    assert.equal(r.usage.completion_tokens, n);
    finished++;
  };
  /* The prompt is known before several begin with it; more of them until one look came while they ran. */
  await ask("", 1);
  await until(async () => {
    const work = Promise.all(Array.from({ length: 8 }, (_, i) => ask(String(i), 700)));
    for (let busy = true; busy; busy = !(await Promise.race([work, new Promise((r) => setTimeout(r, 20))]))) {
      const s = await (await fetch(server.url + "/web/state")).json();
      seen.running = Math.max(seen.running, s.running);
      seen.shared ||= s.pages.some((x, i) => i % 2 === 0 && x > 2);
      assert.equal(s.pages.reduce((n, x, i) => n + (i % 2 ? x : 0), 0), s.pages_total);
    }
    return seen.running > 1 && seen.shared;
  }, "shared pages of several sequences");
  await until(async () => (await tile("finished")) === String(finished), "the finished requests on the page");
  assert.equal(await tile("running"), "0");
  assert.match(await page.locator("#page-text").innerText(), /^511 pages of \d+ tokens: 0 held, of which 0 shared; \d+ cached/);
  const row = (await page.locator("#latency tr", { hasText: "Whole request" }).innerText()).split(/\s+/);
  assert.equal(row.at(-1), String(finished));
  // Drawings have more than their ground colour.
  for (const id of ["rate", "load", "steps", "pages"])
    assert.ok(await page.evaluate((c) => {
      const canvas = document.getElementById(c), d = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      return new Set(new Uint32Array(d.buffer)).size > 2;
    }, id), id);
  await page.focus("#steps");
  await page.keyboard.press("ArrowLeft");
  assert.match(await page.locator("#step-text").innerText(), /s ago: \d+ tokens \(\d+ of prompts\) of \d+ sequences; schedule/);
  assert.deepEqual(page.bad, []);
});

test("a key is asked for, kept in the tab, and sent", { skip }, async (t) => {
  const server = await serve(t, "--api-key", "sesame-1234");
  const page = await openPage(t, server.url);
  await page.locator("#key-dialog[open]").waitFor();
  await page.fill("#key", "sesame-1234");
  await page.keyboard.press("Enter");
  await page.locator("#model option").first().waitFor({ state: "attached" });
  await ask(page, "Hello!");
  assert.equal(await page.evaluate(() => JSON.stringify(localStorage)).then((s) => s.includes("sesame")), false);
  assert.equal((await fetch(server.url + "/web/state")).status, 401);
  await page.click("#to-live");
  await page.locator("#tiles li").first().waitFor();
  assert.deepEqual(page.bad.filter((b) => !/401/.test(b)), []);
});

test("light and dark, small screens, names for screen readers", { skip }, async (t) => {
  const server = await serve(t);
  const page = await openPage(t, server.url, { colorScheme: "dark" });
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await ground();
  await page.emulateMedia({ colorScheme: "light" });
  await page.waitForFunction((c) => getComputedStyle(document.body).backgroundColor !== c, dark);
  await page.click("#theme");
  await page.click("#theme");
  assert.equal(await ground(), dark);
  await page.reload();
  assert.equal(await ground(), dark);
  const unnamed = await page.evaluate(() => [...document.querySelectorAll("button, input, select, textarea, canvas, a, summary")]
    .filter((e) => !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim())).map((e) => e.outerHTML.slice(0, 80)));
  assert.deepEqual(unnamed, []);
  for (const theme of ["light", "dark"])
    assert.ok(await page.evaluate((name) => {
      document.documentElement.dataset.theme = name;
      const style = getComputedStyle(document.documentElement);
      const luminance = (v) => {
        const c = [1, 3, 5].map((i) => parseInt(style.getPropertyValue(v).trim().slice(i, i + 2), 16) / 255).map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
        return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
      };
      const contrast = (a, b) => (Math.max(luminance(a), luminance(b)) + 0.05) / (Math.min(luminance(a), luminance(b)) + 0.05);
      return [["--text", "--bg"], ["--soft", "--bg"], ["--soft", "--bg2"], ["--accent", "--bg"], ["--on-accent", "--accent"], ["--bad", "--bg"]].every(([a, b]) => contrast(a, b) >= 4.5);
    }, theme), theme);
  await page.setViewportSize({ width: 380, height: 700 });
  for (const hash of ["#chat", "#live"]) {
    await page.goto(server.url + "/" + hash);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), hash);
  }
  assert.deepEqual(page.bad, []);
});

test("several models: the chosen one answers, and the dashboard tells of the chosen one", { skip }, async (t) => {
  const server = await serve(t, "--model", "first=", "--model", "second=", "--max-loaded-models", "1", "--num-kv-blocks", "200", "--packed-cache", "off");
  const states = async () => Object.fromEntries((await (await fetch(server.url + "/v1/models")).json()).data.map((m) => [m.id, m.state]));
  const page = await openPage(t, server.url);
  await page.locator("#model option").nth(1).waitFor({ state: "attached" });
  assert.deepEqual(await page.locator("#model option").allInnerTexts(), ["first", "second"]);
  const about = (pattern) => page.locator("#about", { hasText: pattern }).waitFor();
  await page.click("#to-live");
  await about(/first: unloaded, second: unloaded/);
  await page.click("#to-chat");
  await page.selectOption("#model", "second");
  await page.fill("#p-temperature", "0");
  await ask(page, "What is the capital of France?");
  assert.match(await page.locator("li.assistant .body").innerText(), /Paris/);
  assert.deepEqual(await states(), { first: "unloaded", second: "loaded" });
  await page.click("#to-live");
  await about(/^second: .* parameters/);
  const tile = async (name) => (await page.locator("#tiles li", { hasText: name }).locator("b").innerText()).trim();
  await until(async () => (await tile("finished")) === "1", "the finished request");
  // The other one is loaded by asking it, and this one makes room: nothing of it is left on the page.
  await page.selectOption("#model", "first");
  await about(/first: unloaded, second: loaded/);
  assert.equal(await page.locator("#tiles li").count(), 0);
  await page.click("#to-chat");
  await ask(page, "Hello!");
  assert.deepEqual(await states(), { first: "loaded", second: "unloaded" });
  await page.click("#to-live");
  await about(/^first: .* parameters/);
  await until(async () => (await tile("finished")) === "1", "the finished request of the other");
  assert.deepEqual(page.bad, []);
  await server.close();
});
