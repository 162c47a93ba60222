// POST /v1/responses through the official client: text, items, tools, reasoning, formats, streams.
import assert from "node:assert/strict";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import OpenAI from "openai";
import { serve } from "./serve.mjs";

const model = "quire-builtin";
const client = (server) => new OpenAI({ baseURL: server.url + "/v1", apiKey: "none" });
const weather = { type: "function", name: "get_weather", description: "Weather", strict: true, parameters: { type: "object", properties: { city: { enum: ["Oslo", "Rome"] } }, required: ["city"], additionalProperties: false } };

test("text in, text out; instructions and earlier items", async (t) => {
  const server = await serve(t);
  const openai = client(server);
  const r = await openai.responses.create({ model, input: "What is the capital of France?", temperature: 0, metadata: { a: "b" } });
  assert.match(r.id, /^resp_/);
  assert.equal(r.object, "response");
  assert.equal(r.status, "completed");
  assert.match(r.output_text, /Paris/);
  assert.equal(r.output.length, 1);
  assert.equal(r.output[0].type, "message");
  assert.equal(r.usage.total_tokens, r.usage.input_tokens + r.usage.output_tokens);
  assert.deepEqual(r.metadata, { a: "b" });
  const chat = await openai.chat.completions.create({ model, messages: [{ role: "user", content: "What is the capital of France?" }], temperature: 0 });
  assert.equal(r.output_text, chat.choices[0].message.content);
  assert.equal(r.usage.input_tokens, chat.usage.prompt_tokens);
  // The output goes back in as it came.
  const next = await openai.responses.create({ model, temperature: 0, instructions: "Be brief.", input: [
    { role: "user", content: [{ type: "input_text", text: "What is the capital of France?" }] }, ...r.output, { role: "user", content: "Hello!" }] });
  const same = await openai.chat.completions.create({ model, temperature: 0, messages: [{ role: "system", content: "Be brief." },
    { role: "user", content: "What is the capital of France?" }, { role: "assistant", content: r.output_text }, { role: "user", content: "Hello!" }] });
  assert.equal(next.output_text, same.choices[0].message.content);
  assert.equal(next.usage.input_tokens, same.usage.prompt_tokens);
  const cut = await openai.responses.create({ model, input: "Tell me a story.", max_output_tokens: 5 });
  assert.equal(cut.status, "incomplete");
  assert.deepEqual(cut.incomplete_details, { reason: "max_output_tokens" });
  assert.equal(cut.usage.output_tokens, 5);
  await server.close();
});

/** All events, checked for order; the response rebuilt from them. */
async function follow(stream) {
  const seen = [];
  const items = [];
  for await (const e of stream) {
    assert.equal(e.sequence_number, seen.length);
    seen.push(e.type);
    const item = items[e.output_index];
    switch (e.type) {
      case "response.output_item.added": assert.equal(e.output_index, items.length); items.push({ ...e.item, text: "", args: "" }); break;
      case "response.output_text.delta": case "response.reasoning_text.delta": assert.equal(e.item_id, item.id); item.text += e.delta; break;
      case "response.output_text.done": case "response.reasoning_text.done": assert.equal(e.text, item.text); break;
      case "response.function_call_arguments.delta": item.args += e.delta; break;
      case "response.function_call_arguments.done": assert.equal(e.arguments, item.args); break;
      case "response.output_item.done": assert.equal(e.item.id, item.id); assert.equal(e.item.status, "completed"); item.done = true; break;
      case "response.completed": case "response.incomplete": assert.ok(items.every((i) => i.done)); return { seen, items, response: e.response };
    }
  }
  throw new Error("no end: " + seen);
}

test("streams", async (t) => {
  const server = await serve(t);
  const openai = client(server);
  const body = { model, input: "What is the capital of France?", temperature: 0 };
  const whole = await openai.responses.create(body);
  const { seen, items, response } = await follow(await openai.responses.create({ ...body, stream: true }));
  assert.deepEqual(seen.slice(0, 4), ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]);
  assert.equal(items[0].text, whole.output_text);
  assert.equal(response.output[0].content[0].text, whole.output_text);
  assert.deepEqual(response.usage, whole.usage);
  // Fewer and larger pieces when asked for, of the same text.
  const deltas = (types) => types.filter((x) => x === "response.output_text.delta").length;
  const story = { model, input: "Tell me a story.", temperature: 0, max_output_tokens: 40, stream: true };
  const [one, eight] = [await follow(await openai.responses.create(story)), await follow(await openai.responses.create({ ...story, stream_interval: 8 }))];
  assert.equal(eight.items[0].text, one.items[0].text);
  assert.ok(deltas(one.seen) > 30 && deltas(eight.seen) <= 6, `${deltas(one.seen)} and ${deltas(eight.seen)} deltas`);
  // The client's own accumulation agrees.
  const helper = openai.responses.stream(body);
  assert.equal((await helper.finalResponse()).output_text, whole.output_text);
  const lp = await openai.responses.create({ ...body, top_logprobs: 2, include: ["message.output_text.logprobs"] });
  assert.equal(lp.output[0].content[0].logprobs.map((l) => l.token).join("").startsWith(whole.output_text), true);
  assert.equal(lp.output[0].content[0].logprobs[0].top_logprobs.length, 2);
  await server.close();
});

test("tools, reasoning and formats", async (t) => {
  const server = await serve(t, "--tool-call-parser", "hermes", "--reasoning-parser", "qwen3");
  const openai = client(server);
  const text = '<think>\nHm.\n</think>\n\nLet me see.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>';
  const body = { model, input: "Weather?", tools: [weather], max_output_tokens: 100, structured_outputs: { choice: [text] } };
  for (const stream of [false, true]) {
    const r = stream ? (await follow(await openai.responses.create({ ...body, stream }))).response : await openai.responses.create(body);
    assert.deepEqual(r.output.map((o) => o.type), ["reasoning", "message", "function_call"]);
    assert.equal(r.output[0].content[0].text, "Hm.");
    assert.equal(r.output[1].content[0].text, "Let me see.");
    assert.deepEqual([r.output[2].name, r.output[2].arguments], ["get_weather", '{"city": "Oslo"}']);
    assert.match(r.output[2].call_id, /./);
  }
  const forced = await openai.responses.create({ model, input: "Weather?", tools: [weather], tool_choice: { type: "function", name: "get_weather" }, max_output_tokens: 400, temperature: 0 });
  const call = forced.output.find((o) => o.type === "function_call");
  if (forced.status === "completed") assert.ok(["Oslo", "Rome"].includes(JSON.parse(call.arguments).city));
  await server.close();
  // A template that knows calls sees them.
  const file = join(mkdtempSync(join(tmpdir(), "quire-")), "template.jinja");
  writeFileSync(file, "{% for m in messages %}{{ m.role }}: {{ m.content or m.tool_calls[0].function.arguments.city }}\n{% endfor %}");
  const shown = await serve(t, "--chat-template", file);
  const back = await client(shown).responses.create({ model, max_output_tokens: 8, input: [{ role: "user", content: "Weather?" },
    { type: "function_call", call_id: "c1", name: "get_weather", arguments: '{"city":"Oslo"}' }, { type: "function_call_output", call_id: "c1", output: "rain" }] });
  const ids = (await (await shown.post("/tokenize", { prompt: "user: Weather?\nassistant: Oslo\ntool: rain\n", add_special_tokens: false })).json()).count;
  assert.equal(back.usage.input_tokens, ids);
  await shown.close();
  const plain = await serve(t);
  const schema = await client(plain).responses.create({ model, input: "x", seed: 1, temperature: 2, max_output_tokens: 200,
    text: { format: { type: "json_schema", name: "r", strict: true, schema: { type: "object", properties: { n: { type: "integer", minimum: 0, maximum: 99 } }, required: ["n"], additionalProperties: false } } } });
  assert.ok(Number.isInteger(JSON.parse(schema.output_text).n));
  await plain.close();
});

test("what is refused, by the names that clients use", async (t) => {
  const server = await serve(t);
  const ask = async (body) => {
    const r = await server.post("/v1/responses", { input: "x", max_output_tokens: 2, ...body });
    return [r.status, (await r.json()).error?.param];
  };
  for (const [body, param] of [
    [{ input: undefined }, "input"], [{ input: [] }, "input"], [{ input: [3] }, "input"], [{ input: [{ type: "item_reference", id: "x" }] }, "input"],
    [{ input: [{ role: "user", content: [{ type: "input_image", image_url: "x" }] }] }, "input"], [{ previous_response_id: "resp_1" }, "previous_response_id"],
    [{ background: true }, "background"], [{ tools: [{ type: "web_search" }] }, "tools"], [{ tools: [weather], tool_choice: { type: "mcp" } }, "tool_choice"],
    [{ max_output_tokens: -1 }, "max_output_tokens"], [{ truncation: "x" }, "truncation"], [{ text: { format: { type: "x" } } }, "text"], [{ include: ["x"] }, "include"],
    [{ temperature: "hot" }, "temperature"], [{ input: [{ type: "function_call", name: "f" }] }, "input"], [{ input: "word ".repeat(5000) }, "input"],
  ]) assert.deepEqual(await ask(body), [400, param], JSON.stringify(body).slice(0, 100));
  assert.equal((await ask({ store: true, background: false }))[0], 200);
  assert.equal((await (await server.post("/v1/responses", "[]")).json()).error.code, 400);
  await server.close();
});
