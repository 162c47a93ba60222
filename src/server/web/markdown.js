// Markdown as models write it, to DOM nodes.  Text never becomes markup: everything is made with
// createElement and textContent, links go to http, https and mailto only, images become links.

const node = (name, ...children) => {
  const e = document.createElement(name);
  e.append(...children);
  return e;
};

/* ---- inline ---- */

function safeHref(url) {
  try {
    const u = new URL(url);
    return ["http:", "https:", "mailto:"].includes(u.protocol) ? u.href : null;
  } catch {
    return null;
  }
}

function link(text, url) {
  const href = safeHref(url);
  if (!href) return node("span", text);
  const a = node("a", text);
  a.href = href;
  a.rel = "noopener noreferrer nofollow";
  a.target = "_blank";
  return a;
}

// In order of precedence; each takes the match and gives nodes.
const inlineRules = [
  [/(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)/, (m) => node("code", m[2].replace(/^ (.*[^ ].*) $/, "$1"))],
  [/\\([!-/:-@[-`{-~])/, (m) => m[1]],
  [/!?\[([^\]\n]*)\]\(\s*<?([^\s()<>]*(?:\([^\s()<>]*\)[^\s()<>]*)*)>?(?:\s+"[^"\n]*")?\s*\)/, (m) => link(m[1] || m[2], m[2])],
  [/<((?:https?:\/\/|mailto:)[^\s<>]+)>/, (m) => link(m[1], m[1])],
  [/\bhttps?:\/\/[^\s<>()"']*[^\s<>()"'.,;:!?*_~`]/, (m) => link(m[0], m[0])],
  [/\*\*(?=\S)([\s\S]*?\S)\*\*/, (m) => node("strong", ...inline(m[1]))],
  [/(?<![\w_])__(?=\S)([\s\S]*?\S)__(?![\w_])/, (m) => node("strong", ...inline(m[1]))],
  [/\*(?=[^\s*])([\s\S]*?[^\s*])\*(?!\*)/, (m) => node("em", ...inline(m[1]))],
  [/(?<![\w_])_(?=[^\s_])([\s\S]*?[^\s_])_(?![\w_])/, (m) => node("em", ...inline(m[1]))],
  [/~~(?=\S)([\s\S]*?\S)~~/, (m) => node("del", ...inline(m[1]))],
  [/ {2,}\n|\\\n/, () => node("br")],
];

/** The nodes of a run of text: the leftmost match of any rule, the first rule on a tie. */
function inline(text) {
  const out = [];
  let next = inlineRules.map(([re]) => re.exec(text));
  while (text) {
    let best = -1;
    next.forEach((m, i) => {
      if (m && (best < 0 || m.index < next[best].index)) best = i;
    });
    if (best < 0) break;
    const m = next[best];
    if (m.index > 0) out.push(text.slice(0, m.index));
    out.push(inlineRules[best][1](m));
    const used = m.index + m[0].length;
    text = text.slice(used);
    // What a rule found further on is still there; only what lay before has to be looked for again.
    next = next.map((old, i) => {
      if (!old) return null;
      if (old.index >= used) return Object.assign(old, { index: old.index - used });
      return inlineRules[i][0].exec(text);
    });
  }
  if (text) out.push(text);
  return out;
}

/* ---- blocks ---- */

const fence = /^ {0,3}(```+|~~~+)\s*([^\s`]*)[^`]*$/;
const heading = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const rule = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const item = /^( *)([-*+]|\d{1,9}[.)])(\s+|$)(.*)$/;
const quote = /^ {0,3}> ?(.*)$/;
const tableLine = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const maxDepth = 12;

/** The source of each block, so that only what changed is built again while text streams in. */
export function splitBlocks(text) {
  const blocks = [];
  let lines = [], mark = null, list = false;
  const flush = () => {
    while (lines.length && !lines[lines.length - 1].trim()) lines.pop();
    if (lines.length) blocks.push(lines.join("\n"));
    lines = [];
    list = false;
  };
  for (const line of text.replace(/\r\n?/g, "\n").split("\n")) {
    if (mark) {
      lines.push(line);
      if (line.trim().startsWith(mark) && !line.trim().slice(mark.length).replaceAll(mark[0], "").trim()) {
        mark = null;
        if (!list) flush();
      }
      continue;
    }
    const f = fence.exec(line);
    if (f && !list) flush();
    const inList = list && (!line.trim() || /^\s/.test(line) || item.test(line));
    if (list && !inList && !lines[lines.length - 1]?.trim()) flush();
    if (list && rule.test(line)) flush();
    if (!list && item.test(line) && !rule.test(line)) {
      flush();
      list = true;
    }
    if (!list && (!line.trim() || heading.test(line) || rule.test(line))) flush();
    const open = f ?? (list ? fence.exec(line.trimStart()) : null);
    if (open) mark = open[1];
    if (line.trim() || lines.length) lines.push(line);
    if (!list && !mark && (heading.test(line) || rule.test(line))) flush();
  }
  flush();
  return blocks;
}

function codeBlock(lines, language) {
  const text = lines.join("\n");
  const copy = node("button", "Copy");
  copy.type = "button";
  copy.addEventListener("click", () => navigator.clipboard?.writeText(text).then(() => {
    copy.textContent = "Copied";
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  }));
  const block = node("div", node("header", node("span", language || "text"), copy), node("pre", node("code", text)));
  block.className = "block";
  block.querySelector("pre").tabIndex = 0;
  return block;
}

function cells(line) {
  return line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "").split(/(?<!\\)\|/).map((c) => c.trim().replaceAll("\\|", "|"));
}

function table(lines) {
  const align = cells(lines[1]).map((c) => (/^:-+:$/.test(c) ? "center" : c.endsWith(":") ? "right" : ""));
  const row = (line, name) => node("tr", ...cells(line).slice(0, align.length).map((c, i) => {
    const cell = node(name, ...inline(c));
    cell.style.textAlign = align[i] ?? "";
    return cell;
  }));
  return node("table", node("thead", row(lines[0], "th")), node("tbody", ...lines.slice(2).map((l) => row(l, "td"))));
}

function list(lines, depth) {
  const first = item.exec(lines[0]);
  const ordered = /\d/.test(first[2]);
  const out = node(ordered ? "ol" : "ul");
  if (ordered && parseInt(first[2], 10) !== 1) out.start = parseInt(first[2], 10);
  const base = first[1].length;
  let own = [];
  const close = () => {
    if (!own.length) return;
    const blocks = render(own.join("\n"), depth + 1);
    // A tight item is its text, not a paragraph.
    if (blocks[0]?.nodeName === "P") blocks.splice(0, 1, ...blocks[0].childNodes);
    out.append(node("li", ...blocks));
    own = [];
  };
  for (const line of lines) {
    const m = item.exec(line);
    if (m && m[1].length <= base + 1) {
      close();
      own.push(m[4]);
    } else {
      own.push(line.replace(new RegExp(`^ {0,${base + first[2].length + 1}}`), ""));
    }
  }
  close();
  return out;
}

function block(source, depth) {
  const lines = source.split("\n");
  const f = fence.exec(lines[0]);
  if (f) {
    const closed = lines.length > 1 && lines[lines.length - 1].trim().startsWith(f[1]);
    return codeBlock(lines.slice(1, closed ? -1 : undefined), f[2]);
  }
  const h = heading.exec(lines[0]);
  if (h && lines.length === 1) return node("h" + h[1].length, ...inline(h[2]));
  if (rule.test(lines[0]) && lines.length === 1) return node("hr");
  if (depth < maxDepth) {
    if (item.test(lines[0])) return list(lines, depth);
    if (quote.test(lines[0])) return node("blockquote", ...render(lines.map((l) => quote.exec(l)?.[1] ?? l).join("\n"), depth + 1));
  }
  if (lines.length > 1 && lines[0].includes("|") && tableLine.test(lines[1])) return table(lines);
  return node("p", ...inline(source));
}

function render(text, depth) {
  return splitBlocks(text).map((b) => block(b, depth));
}

/** Makes parent show text, keeping the nodes of blocks that have not changed. */
export function renderMarkdown(parent, text) {
  const blocks = splitBlocks(text);
  const old = parent.sources ?? [];
  let same = 0;
  while (same < old.length && same < blocks.length && old[same] === blocks[same]) same++;
  while (parent.childNodes.length > same) parent.lastChild.remove();
  parent.append(...blocks.slice(same).map((b) => block(b, 0)));
  parent.sources = blocks;
}
