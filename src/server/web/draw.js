// Small canvas drawings: lines over time, the page map, the step timeline.  Colours are the style sheet's.

/** Fits the canvas to its box at the screen's resolution; the context's unit is a CSS pixel. */
export function begin(canvas, height) {
  if (height) canvas.style.height = height + "px";
  const { width, height: h } = canvas.getBoundingClientRect();
  const scale = devicePixelRatio || 1;
  const w = Math.max(1, Math.round(width * scale)), hh = Math.max(1, Math.round(h * scale));
  if (canvas.width !== w || canvas.height !== hh) Object.assign(canvas, { width: w, height: hh });
  const c = canvas.getContext("2d");
  c.setTransform(scale, 0, 0, scale, 0, 0);
  c.clearRect(0, 0, width, h);
  const css = getComputedStyle(document.documentElement);
  return { c, width, height: h, color: (name) => css.getPropertyValue("--" + name).trim() };
}

function niceCeil(x) {
  if (x <= 1) return 1;
  const p = 10 ** Math.floor(Math.log10(x));
  return [1, 2, 2.5, 5, 10].find((k) => k * p >= x) * p;
}

export const short = (x) => (x >= 1e6 ? (x / 1e6).toPrecision(3) + "M" : x >= 1e4 ? (x / 1e3).toPrecision(3) + "k" : x >= 100 || x === Math.round(x) ? String(Math.round(x)) : x.toPrecision(2));

/** lines: [{color, values: [[seconds ago, value]]}], newest last. */
export function drawLines(canvas, lines, seconds) {
  const { c, width, height, color } = begin(canvas);
  const left = 42, bottom = 18, w = width - left - 4, h = height - bottom - 6;
  const top = niceCeil(Math.max(1, ...lines.flatMap((l) => l.values.map((v) => v[1]))));
  c.font = "11px system-ui, sans-serif";
  c.lineWidth = 1;
  c.strokeStyle = color("line");
  c.fillStyle = color("soft");
  c.textBaseline = "middle";
  c.textAlign = "right";
  for (const part of [0, 0.5, 1]) {
    const y = 6 + h * (1 - part);
    c.beginPath();
    c.moveTo(left, y);
    c.lineTo(left + w, y);
    c.stroke();
    c.fillText(short(top * part), left - 5, y);
  }
  c.textBaseline = "top";
  c.textAlign = "left";
  c.fillText(`${seconds} s ago`, left, height - bottom + 5);
  c.textAlign = "right";
  c.fillText("now", left + w, height - bottom + 5);
  for (const l of lines) {
    c.strokeStyle = color(l.color);
    c.lineWidth = 1.75;
    c.lineJoin = "round";
    c.beginPath();
    l.values.forEach(([ago, v], i) => {
      const x = left + w * (1 - Math.min(1, ago / seconds)), y = 6 + h * (1 - v / top);
      if (i) c.lineTo(x, y);
      else c.moveTo(x, y);
    });
    c.stroke();
  }
}

export const pageKind = (state) => (state === 0 ? "page-free" : state === 1 ? "page-cached" : state === 2 ? "page-1" : state < 5 ? "page-2" : "page-4");

/** runs: [state, count, ...].  A cell is a page, or the busiest of a few where there are too many for the space. */
export function drawPages(canvas, runs) {
  const width = canvas.getBoundingClientRect().width;
  const total = runs.reduce((n, x, i) => n + (i % 2 ? x : 0), 0);
  const cell = total <= 1000 ? 10 : total <= 4000 ? 7 : 5;
  const columns = Math.max(1, Math.floor(width / cell));
  const per = Math.max(1, Math.ceil(total / (columns * Math.max(1, Math.floor(360 / cell)))));
  const { c, color } = begin(canvas, Math.max(cell, Math.ceil(Math.ceil(total / per) / columns) * cell));
  const colors = {};
  const put = (i, state) => {
    c.fillStyle = colors[state] ??= color(pageKind(state));
    c.fillRect((i % columns) * cell, Math.floor(i / columns) * cell, cell - 1, cell - 1);
  };
  let page = 0, busiest = 0;
  for (let r = 0; r < runs.length; r += 2)
    for (let k = 0; k < runs[r + 1]; k++) {
      busiest = Math.max(busiest, runs[r]);
      if (++page % per === 0 || page === total) {
        put(Math.floor((page - 1) / per), busiest);
        busiest = 0;
      }
    }
  return per;
}

/** steps: [start, schedule, forward, sample, emit, tokens, prefill, sequences] in microseconds, oldest first.  Returns the step
 * under each x for pointing. */
export function drawSteps(canvas, steps, chosen) {
  const { c, width, height, color } = begin(canvas);
  const h = height - 20, last = steps[steps.length - 1];
  const spans = [];
  if (!last) return spans;
  const length = (s) => s[1] + s[2] + s[3] + s[4];
  // Idle time between steps is cut to a gap, so that the steps fill the space.
  const gap = 3, wanted = Math.min(steps.length, Math.max(20, Math.floor(width / 14)));
  const shown = steps.slice(-wanted);
  const busy = shown.reduce((n, s) => n + length(s), 0) || 1;
  const scale = Math.max(0.1, width - gap * shown.length) / busy;
  const most = Math.max(1, ...shown.map((s) => s[5]));
  let x = 0;
  for (const s of shown) {
    const tall = Math.max(8, h * Math.sqrt(s[5] / most)), y = h - tall, w = Math.max(1, length(s) * scale);
    let at = x;
    [["c4", s[1]], ["c1", s[2]], ["c3", s[3]], ["c2", s[4]]].forEach(([name, us]) => {
      c.fillStyle = color(name);
      const part = us * scale;
      c.fillRect(at, y, Math.max(part, us ? 0.5 : 0), tall);
      at += part;
    });
    if (s[6]) {
      c.fillStyle = "rgb(0 0 0 / .35)";
      c.fillRect(x, h - (tall * s[6]) / s[5], w, (tall * s[6]) / s[5]);
    }
    if (s === chosen) {
      c.strokeStyle = color("text");
      c.lineWidth = 2;
      c.strokeRect(x - 1, y - 1 < 0 ? 0 : y - 1, w + 2, tall + 1);
    }
    spans.push({ from: x, to: x + w + gap, step: s });
    x += w + gap;
  }
  c.fillStyle = color("soft");
  c.font = "11px system-ui, sans-serif";
  c.textBaseline = "bottom";
  c.textAlign = "left";
  c.fillText(`${shown.length} steps, ${(busy / 1000).toFixed(1)} ms of work`, 0, height);
  return spans;
}
