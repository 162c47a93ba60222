// A real Chromium, and what every test of the page asks of it.
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

export const executablePath = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((p) => p && existsSync(p));

/** A page on url.  Messages of the console, errors, and requests to anywhere but url end up in page.bad. */
export async function openPage(t, url, options = {}) {
  const browser = await chromium.launch({
    executablePath,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  t.after(() => browser.close());
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, ...options });
  page.bad = [];
  page.on("console", (m) => ["error", "warning"].includes(m.type()) && page.bad.push(m.text()));
  page.on("pageerror", (e) => page.bad.push(String(e)));
  page.on("request", (r) => !r.url().startsWith(url) && page.bad.push("request to " + r.url()));
  page.on("dialog", (d) => (page.bad.push("dialog"), d.dismiss()));
  page.setDefaultTimeout(20000);
  await page.goto(url);
  return page;
}

/** Makes the page's next chat requests be answered with these events; page.asked holds the bodies. */
export async function answerWith(page, ...replies) {
  page.asked = [];
  await page.route(/\/v1\/(chat\/)?completions$/, async (route) => {
    page.asked.push(route.request().postDataJSON());
    const events = replies.shift() ?? [];
    const body = events.map((e) => `data: ${JSON.stringify(e)}\n\n`).join("") + "data: [DONE]\n\n";
    await route.fulfill({ status: 200, contentType: "text/event-stream", body });
  });
}

export const delta = (d, finish = null) => ({ choices: [{ index: 0, delta: d, finish_reason: finish }] });
export const usage = (prompt, completion) => ({ choices: [], usage: { prompt_tokens: prompt, completion_tokens: completion } });
