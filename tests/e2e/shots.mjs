// Makes docs/images/chat.png and live.png of a running server with real work.  usage: node shots.mjs   (QUIRE=path of the program)
import { mkdirSync } from "node:fs";
import { serve } from "./serve.mjs";
import { openPage } from "./browser.mjs";

const images = new URL("../../docs/images/", import.meta.url).pathname;
const closers = [];
const t = { after: (f) => closers.push(f) };
mkdirSync(images, { recursive: true });
const server = await serve(null, "--num-kv-blocks", "1024", "--max-num-seqs", "24");
const page = await openPage(t, server.url, { viewport: { width: 1200, height: 760 } });
const replies = page.locator("li.assistant .stats:not([hidden])");
await page.fill("#p-temperature", "0.7");
await page.fill("#p-seed", "3");
await page.check("#logprobs");
for (const [i, text] of ["Who are you?", "What is prefix caching?", "Tell me a story about a fox."].entries()) {
  await page.fill("#prompt", text);
  await page.keyboard.press("Enter");
  await replies.nth(i).waitFor();
}
await page.locator("li.assistant").nth(1).locator(".tokens span").nth(2).hover();
await page.screenshot({ path: images + "chat.png" });

await page.click("#to-live");
let working = true;
const shared = "You tell stories to children, slowly and kindly. ".repeat(6);
const client = async (i) => {
  await new Promise((r) => setTimeout(r, i * 150));
  for (let k = 0; working; k++) {
    const prompt = (i % 3 ? shared : "Once ") + "Story " + k * 100 + i + ":";
    await (await server.post("/v1/completions", { prompt, max_tokens: 200 + 40 * (i % 8), ignore_eos: true })).text();
    await new Promise((r) => setTimeout(r, 60 * (i % 10)));
  }
};
const clients = Array.from({ length: 28 }, (_, i) => client(i));
await page.setViewportSize({ width: 1200, height: 1150 });
await new Promise((r) => setTimeout(r, 30000));
await page.screenshot({ path: images + "live.png" });
working = false;
await Promise.all(clients);
for (const f of closers) await f();
await server.close();
