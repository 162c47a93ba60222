// The dashboard: asks for /web/state once a second while it is on screen, and draws what changed.
import { $, call, el, model, tip } from "./app.js";
import { drawLines, drawPages, drawSteps, short } from "./draw.js";

const SECONDS = 120, MINUTE = 60;

const ms = (s) => (s >= 10 ? s.toFixed(1) + " s" : s >= 1 ? s.toFixed(2) + " s" : (s * 1000).toPrecision(3) + " ms");
const percent = (x) => (x == null || !isFinite(x) ? "–" : Math.round(x * 100) + "%");

/** The value below which part of the samples between two states of a histogram lie, as text. */
export function percentile(now, then, part) {
  const counts = now.counts.map((n, i) => n - then.counts[i]);
  const total = counts.reduce((a, b) => a + b, 0);
  let left = part * total;
  if (!total) return "–";
  for (let i = 0; i < counts.length; i++) {
    if (counts[i] && left <= counts[i]) {
      const low = now.bounds[i - 1], high = now.bounds[i];
      // The first and the last bucket say no more than that.
      return low == null ? "< " + ms(high) : high == null ? "> " + ms(low) : ms(low + (high - low) * (left / counts[i]));
    }
    left -= counts[i];
  }
  return "–";
}

export function openLive() {
  let timer = null, samples = [], spans = [], chosen = null, latest = null, asking = false;

  /** The oldest sample of the last so many seconds. */
  const since = (seconds) => samples.find((s) => latest.now_us - s.now_us <= seconds * 1.05e6) ?? latest;

  function rates() {
    const rate = (name) => samples.slice(1).map((s, i) => {
      const dt = (s.now_us - samples[i].now_us) / 1e6;
      return [(latest.now_us - s.now_us) / 1e6, dt > 0 ? Math.max(0, (s[name] - samples[i][name]) / dt) : 0];
    });
    return { out: rate("generation_tokens"), prompt: rate("prompt_tokens") };
  }

  function tiles(r) {
    const then = since(MINUTE), d = (k) => latest[k] - then[k];
    const share = d("step_seconds") > 0 ? d("forward_seconds") / d("step_seconds") : null;
    const rows = [
      ["generated tokens/s", short(r.out.at(-1)?.[1] ?? 0)], ["prompt tokens/s", short(r.prompt.at(-1)?.[1] ?? 0)],
      ["running", latest.running], ["waiting", latest.waiting],
      ["KV pages in use", percent(latest.pages_held / latest.pages_total)],
      ["prefix cache hits, last minute", percent(d("prefix_hits") / d("prefix_queries"))],
      ["time to first token, median", percentile(latest.ttft, then.ttft, 0.5)],
      ["between tokens, 99%", percentile(latest.itl, then.itl, 0.99)],
      ["of a step computing", percent(share)], ["preempted", latest.preemptions], ["errors", latest.errors],
      ["finished", latest.finished_stop + latest.finished_length],
    ];
    $("tiles").replaceChildren(...rows.map(([name, value]) => el("li", {}, el("b", { text: value }), el("span", { text: name }))));
  }

  function latency() {
    const then = since(MINUTE);
    const rows = [["Time to first token", "ttft"], ["Between tokens", "itl"], ["Whole request", "e2e"], ["In the queue", "queue"]];
    $("latency").tBodies[0].replaceChildren(...rows.map(([name, key]) => {
      return el("tr", {}, el("th", { scope: "row", text: name }),
        ...[0.5, 0.9, 0.99].map((p) => el("td", { text: percentile(latest[key], then[key], p) })), el("td", { text: latest[key].total - then[key].total }));
    }));
  }

  function pages() {
    const per = drawPages($("pages"), latest.pages);
    let cached = 0, held = 0, shared = 0;
    for (let i = 0; i < latest.pages.length; i += 2) {
      const [state, n] = [latest.pages[i], latest.pages[i + 1]];
      if (state === 1) cached += n;
      if (state > 1) held += n;
      if (state > 2) shared += n;
    }
    $("page-text").textContent = `${latest.pages_total} pages of ${latest.info.page_tokens} tokens: ${held} held, of which ${shared} shared; `
      + `${cached} cached.${per > 1 ? ` A cell is ${per} pages.` : ""}`;
  }

  const stepText = (s) => `${((latest.now_us - s[0]) / 1e6).toFixed(2)} s ago: ${s[5]} tokens (${s[6]} of prompts) of ${s[7]} sequences\n`
    + `schedule ${(s[1] / 1000).toFixed(2)} ms, forward ${(s[2] / 1000).toFixed(2)} ms, sample ${(s[3] / 1000).toFixed(2)} ms, hand out ${(s[4] / 1000).toFixed(2)} ms`;

  function draw() {
    if (!latest?.info || $("live-view").hidden) return;
    const i = latest.info, r = rates();
    $("about").textContent = `${latest.model}: ${i.architecture}, ${short(i.params)} parameters, weights ${i.weights}, KV ${i.kv_dtype}; ${i.device} ${i.isa}, `
      + `${i.threads} threads; context ${i.max_model_len}, at most ${i.max_num_seqs} sequences; quire ${i.version}`;
    tiles(r);
    drawLines($("rate"), [{ color: "c2", values: r.prompt }, { color: "c1", values: r.out }], SECONDS);
    const series = (name) => samples.map((s) => [(latest.now_us - s.now_us) / 1e6, s[name]]);
    drawLines($("load"), [{ color: "c3", values: series("waiting") }, { color: "c1", values: series("running") }], SECONDS);
    chosen = chosen && latest.steps.find((s) => s[0] === chosen[0]);
    spans = drawSteps($("steps"), latest.steps, chosen);
    pages();
    latency();
  }

  /** Nothing of a model that is not loaded, or no longer looked at, stays. */
  function forget() {
    samples = [];
    spans = [];
    latest = chosen = null;
    $("tiles").replaceChildren();
    $("latency").tBodies[0].replaceChildren();
    $("page-text").textContent = "";
    for (const id of ["rate", "load", "steps", "pages"]) $(id).width = $(id).width;   // empties it
  }

  async function tick() {
    if (asking) return;
    asking = true;
    const asked = model();
    try {
      const s = await (await call("/web/state" + (asked ? "/" + encodeURIComponent(asked) : ""))).json();
      if (asked !== model()) {
        setTimeout(tick);
      } else if (!s.info) {
        forget();
        $("about").textContent = s.models.map((m) => `${m.name}: ${m.state}`).join(", ");
      } else {
        if (latest && (s.model !== latest.model || s.n_steps < latest.n_steps)) samples = [];
        latest = s;
        samples.push(s);
        samples = samples.filter((x) => s.now_us - x.now_us <= SECONDS * 1e6);
        // Only the newest one's drawings are needed.
        samples.slice(0, -1).forEach((x) => { x.steps = x.pages = null; });
        draw();
      }
    } catch (e) {
      $("about").textContent = e.message;
    }
    asking = false;
  }

  const choose = (s, x, y) => {
    chosen = s;
    spans = drawSteps($("steps"), latest.steps, chosen);
    if (s) $("step-text").textContent = stepText(s).replace("\n", "; ");
    tip(s && x != null ? stepText(s) : "", x, y);
  };
  $("steps").addEventListener("pointermove", (ev) => {
    const x = ev.clientX - $("steps").getBoundingClientRect().left;
    const hit = spans.find((s) => x >= s.from && x < s.to);
    if (latest?.info) choose(hit?.step ?? null, ev.clientX, ev.clientY);
  });
  $("steps").addEventListener("pointerleave", () => tip(""));
  $("steps").addEventListener("keydown", (ev) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[ev.key];
    if (!by || !spans.length) return;
    ev.preventDefault();
    const at = spans.findIndex((s) => s.step === chosen);
    choose(spans[at < 0 ? spans.length - 1 : Math.max(0, Math.min(spans.length - 1, at + by))].step);
  });
  addEventListener("resize", draw);
  addEventListener("themechange", draw);

  return {
    run(on) {
      clearInterval(timer);
      timer = on ? setInterval(tick, 1000) : null;
      if (on) tick();
      else tip("");
    },
    restart() {
      forget();
      if (timer) tick();
    },
  };
}
