// Tool calls and reasoning through the official client: free, forced, streamed, and back in the history.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { serve } from "./serve.mjs";

const tools = [
  { type: "function", function: { name: "get_weather", description: "Weather now", parameters: { type: "object", properties: { city: { type: "string", maxLength: 12 }, days: { type: "integer", minimum: 1, maximum: 9 } }, required: ["city", "days"], additionalProperties: false } } },
  { type: "function", function: { name: "add", parameters: { type: "object", properties: { a: { type: "number" }, b: { enum: [1, 2, 3] } }, required: ["b"], additionalProperties: false } } },
  { type: "function", function: { name: "now" } },
];
const messages = [{ role: "user", content: "What is the weather in Oslo?" }];
const client = (server) => new OpenAI({ baseURL: server.url + "/v1", apiKey: "none" });

/** Everything a stream's deltas add up to. */
async function collect(stream) {
  const out = { content: "", reasoning: "", calls: [], finish: null, n: 0 };
  for await (const chunk of stream) {
    for (const choice of chunk.choices) {
      const d = choice.delta;
      out.content += d.content ?? "";
      out.reasoning += d.reasoning_content ?? "";
      for (const c of d.tool_calls ?? []) {
        out.n++;
        if (c.id) {
          assert.equal(out.calls[c.index], undefined);
          assert.equal(c.type, "function");
          out.calls[c.index] = { id: c.id, name: c.function.name, arguments: "" };
        }
        out.calls[c.index].arguments += c.function.arguments ?? "";
      }
      out.finish = choice.finish_reason ?? out.finish;
    }
  }
  return out;
}

const written = {
  hermes: 'Let me look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo", "days": 2}}\n</tool_call>\n<tool_call>\n{"name": "add", "arguments": {"b": 1}}\n</tool_call>',
  llama3: '{"name": "get_weather", "parameters": {"city": "Oslo", "days": 2}}; {"name": "add", "parameters": {"b": 1}}',
  mistral: '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Oslo", "days": 2}}, {"name": "add", "arguments": {"b": 1}}]',
  pythonic: "[get_weather(city='Oslo', days=2), add(b=1)]",
};

for (const [parser, text] of Object.entries(written)) {
  test(`calls that a model makes by itself, written as ${parser}`, async (t) => {
    const server = await serve(t, "--tool-call-parser", parser, "--enable-auto-tool-choice");
    const openai = client(server);
    const body = { model: "quire-builtin", messages, tools, max_tokens: 200, structured_outputs: { choice: [text] } };
    const whole = await openai.chat.completions.create(body);
    const m = whole.choices[0].message;
    assert.equal(whole.choices[0].finish_reason, "tool_calls");
    assert.equal(m.content, parser === "hermes" ? "Let me look." : null);
    assert.deepEqual(m.tool_calls.map((c) => [c.type, c.function.name, JSON.parse(c.function.arguments)]),
      [["function", "get_weather", { city: "Oslo", days: 2 }], ["function", "add", { b: 1 }]]);
    assert.equal(new Set(m.tool_calls.map((c) => c.id)).size, 2);
    const streamed = await collect(await openai.chat.completions.create({ ...body, stream: true }));
    assert.equal(streamed.finish, "tool_calls");
    assert.equal(streamed.content, m.content ?? "");
    assert.deepEqual(streamed.calls.map((c) => [c.name, JSON.parse(c.arguments)]), m.tool_calls.map((c) => [c.function.name, JSON.parse(c.function.arguments)]));
    if (parser !== "pythonic") assert.ok(streamed.n > 4, "arguments come in pieces");
    // One call only; no tools, no calls; none, no calls.
    const one = await openai.chat.completions.create({ ...body, parallel_tool_calls: false });
    assert.equal(one.choices[0].message.tool_calls.length, 1);
    for (const without of [{ tools: undefined }, { tool_choice: "none" }]) {
      const plain = await openai.chat.completions.create({ ...body, ...without });
      assert.equal(plain.choices[0].message.content, text);
      assert.equal(plain.choices[0].finish_reason, "stop");
    }
    await server.close();
  });
}

test("calls that a model has to make", async (t) => {
  for (const parser of ["hermes", "llama3", "mistral", "none"]) {
    const server = await serve(t, "--tool-call-parser", parser);
    const openai = client(server);
    for (let seed = 0; seed < 6; seed++) {
      // Random weights would not do worse: a temperature at which every allowed token comes.
      const body = { model: "quire-builtin", messages, tools, seed, temperature: 3, max_tokens: 300, parallel_tool_calls: seed % 2 === 0 };
      const required = await collect(await openai.chat.completions.create({ ...body, tool_choice: "required", stream: true }));
      if (required.finish !== "length") {
        assert.ok(required.calls.length >= 1);
        assert.equal(required.finish, "tool_calls");
        if (seed % 2) assert.equal(required.calls.length, 1);
        for (const c of required.calls) {
          const args = JSON.parse(c.arguments);
          if (c.name === "get_weather") assert.ok(typeof args.city === "string" && args.days >= 1 && args.days <= 9 && Object.keys(args).length === 2);
          else if (c.name === "add") assert.ok([1, 2, 3].includes(args.b));
          else assert.equal(c.name, "now");
        }
      }
      const named = await openai.chat.completions.create({ ...body, tool_choice: { type: "function", function: { name: "get_weather" } } });
      assert.deepEqual(named.choices[0].message.tool_calls.map((c) => c.function.name), ["get_weather"]);
      assert.ok(JSON.parse(named.choices[0].message.tool_calls[0].function.arguments).days >= 1);
    }
    await server.close();
  }
});

test("reasoning is told apart", async (t) => {
  const server = await serve(t, "--reasoning-parser", "qwen3", "--tool-call-parser", "hermes");
  const openai = client(server);
  const text = "<think>\nOslo, 1 < 2.\n</think>\n\nIt rains.";
  const body = { model: "quire-builtin", messages, max_tokens: 100, structured_outputs: { choice: [text] } };
  const m = (await openai.chat.completions.create(body)).choices[0].message;
  assert.equal(m.reasoning_content, "Oslo, 1 < 2.");
  assert.equal(m.reasoning, m.reasoning_content);
  assert.equal(m.content, "It rains.");
  const s = await collect(await openai.chat.completions.create({ ...body, stream: true }));
  assert.deepEqual([s.reasoning, s.content], ["Oslo, 1 < 2.", "It rains."]);
  const hidden = (await openai.chat.completions.create({ ...body, include_reasoning: false })).choices[0].message;
  assert.equal(hidden.reasoning_content, null);
  assert.equal(hidden.content, "It rains.");
  // JSON comes behind the thought, or at once where there is none.
  const schema = { type: "object", properties: { n: { type: "integer", minimum: 0, maximum: 99 } }, required: ["n"], additionalProperties: false };
  let thought = 0;
  for (let seed = 0; seed < 12; seed++) {
    // A bias for "<" makes it think now and then.
    const lt = (await (await server.post("/tokenize", { prompt: "<", add_special_tokens: false })).json()).tokens[0];
    const r = (await openai.chat.completions.create({ model: "quire-builtin", messages, seed, temperature: 2, max_tokens: 400, logit_bias: { [lt]: 8 },
      response_format: { type: "json_schema", json_schema: { name: "n", schema } } })).choices[0];
    thought += r.message.reasoning_content !== null;
    // Most thoughts of this model find no end.
    if (r.finish_reason !== "length") assert.ok(Number.isInteger(JSON.parse(r.message.content).n));
    else assert.ok(r.message.reasoning_content !== null || r.message.content.startsWith("{"));
  }
  assert.ok(thought > 0);
  // It thinks first, and must call then.
  const called = await openai.chat.completions.create({ model: "quire-builtin", messages, tools, tool_choice: "required", max_tokens: 600, temperature: 0 });
  if (called.choices[0].finish_reason !== "length") assert.ok(called.choices[0].message.tool_calls.length >= 1);
  await server.close();
});

test("calls in the history, by a template that shows them", async (t) => {
  const server = await serve(t);
  const history = [...messages,
    { role: "assistant", content: null, tool_calls: [{ id: "c1", type: "function", function: { name: "get_weather", arguments: '{"city":"Oslo","days":2}' } }] },
    { role: "tool", tool_call_id: "c1", content: "rain" }];
  const template = "{% for m in messages %}{{ m.role }}:{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c.function.name }} {{ c.function.arguments.city }} {{ c.function.arguments | tojson }}{% endfor %};{% endfor %}{{ tools | length }}";
  const ids = (await (await server.post("/tokenize", { messages: history, tools, chat_template: template, add_special_tokens: false })).json()).tokens;
  const { prompt } = await (await server.post("/detokenize", { tokens: ids })).json();
  assert.equal(prompt, 'user:What is the weather in Oslo?;assistant:get_weather Oslo {"city": "Oslo", "days": 2};tool:rain;3');
  await server.close();
});

test("what is refused", async (t) => {
  const server = await serve(t);
  const ask = async (extra) => {
    const r = await server.post("/v1/chat/completions", { messages, max_tokens: 4, ...extra });
    return [r.status, (await r.json()).error?.param];
  };
  assert.deepEqual(await ask({ tool_choice: "required" }), [400, "tool_choice"]);
  assert.deepEqual(await ask({ tools, tool_choice: "always" }), [400, "tool_choice"]);
  assert.deepEqual(await ask({ tools, tool_choice: { type: "function", function: { name: "nothing" } } }), [400, "tool_choice"]);
  assert.deepEqual(await ask({ tools: [{ type: "function", function: {} }] }), [400, "tools"]);
  assert.deepEqual(await ask({ tools: [{ type: "function", function: { name: "f", parameters: 3 } }] }), [400, "tools"]);
  assert.deepEqual(await ask({ tools, tool_choice: "required", response_format: { type: "json_object" } }), [400, "tool_choice"]);
  assert.deepEqual(await ask({ tools: [{ type: "function", function: { name: "f", parameters: { type: "no-such-type" } } }], tool_choice: "required" }), [400, "tools"]);
  assert.equal((await ask({ tools }))[0], 200);
  await server.close();
});
