// The official client against a server with the built-in model.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { serve, until } from "./serve.mjs";

let server, client, model;

before(async () => {
  server = await serve(null, "--enable-prompt-tokens-details");
  client = new OpenAI({ baseURL: server.url + "/v1", apiKey: "unused", maxRetries: 0 });
  model = (await client.models.list()).data[0].id;
});
after(() => server.close());

const story = { prompt: "Once upon a time", max_tokens: 40, temperature: 0 };
const question = [{ role: "user", content: "What is quire?" }];
const noPagesHeld = () => until(async () => (await server.metric("kv_blocks_held")) === 0, "all pages free");

test("models", async () => {
  const one = await client.models.retrieve(model);
  assert.equal(one.object, "model");
  assert.ok(one.max_model_len > 0);
});

test("completion", async () => {
  const c = await client.completions.create({ model, ...story });
  assert.match(c.id, /^cmpl-[0-9a-f]{32}$/);
  assert.equal(c.object, "text_completion");
  assert.ok(c.choices[0].text.length > 40);
  assert.equal(c.usage.completion_tokens, c.choices[0].finish_reason === "length" ? 40 : c.usage.completion_tokens);
  assert.equal(c.usage.total_tokens, c.usage.prompt_tokens + c.usage.completion_tokens);
});

test("completion streamed equals completion whole", async () => {
  const whole = await client.completions.create({ model, ...story });
  let text = "", n = 0, finish;
  for await (const chunk of await client.completions.create({ model, ...story, stream: true })) {
    text += chunk.choices[0].text;
    finish = chunk.choices[0].finish_reason ?? finish;
    n++;
  }
  assert.equal(text, whole.choices[0].text);
  assert.equal(finish, whole.choices[0].finish_reason);
  assert.ok(n > 10);
});

test("chat", async () => {
  const c = await client.chat.completions.create({ model, messages: question, temperature: 0 });
  assert.match(c.id, /^chatcmpl-[0-9a-f]{32}$/);
  assert.equal(c.choices[0].message.role, "assistant");
  assert.match(c.choices[0].message.content, /language model/i);
  assert.equal(c.choices[0].finish_reason, "stop");
});

test("chat streamed, with usage", async () => {
  const whole = await client.chat.completions.create({ model, messages: question, temperature: 0 });
  let text = "", role, usage;
  const stream = await client.chat.completions.create({ model, messages: question, temperature: 0, stream: true, stream_options: { include_usage: true } });
  for await (const chunk of stream) {
    role ??= chunk.choices[0]?.delta.role;
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(role, "assistant");
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
});

test("the client's own stream helper", async () => {
  const runner = client.chat.completions.stream({ model, messages: question, temperature: 0 });
  const final = await runner.finalChatCompletion();
  assert.match(final.choices[0].message.content, /language model/i);
});

test("n choices differ, seeds repeat", async () => {
  const ask = () => client.completions.create({ model, prompt: "Once upon", max_tokens: 16, n: 3, seed: 11, temperature: 1 });
  const [a, b] = await Promise.all([ask(), ask()]);
  assert.deepEqual(a.choices, b.choices);
  assert.equal(new Set(a.choices.map((c) => c.text)).size, 3);
  assert.deepEqual(a.choices.map((c) => c.index), [0, 1, 2]);
});

test("logprobs", async () => {
  const c = await client.completions.create({ model, ...story, max_tokens: 5, logprobs: 2 });
  const lp = c.choices[0].logprobs;
  assert.equal(lp.tokens.length, 5);
  assert.equal(lp.tokens.join(""), c.choices[0].text);
  for (let i = 0; i < 5; i++) assert.equal(lp.top_logprobs[i][lp.tokens[i]], lp.token_logprobs[i]);
  const chat = await client.chat.completions.create({ model, messages: question, temperature: 0, max_tokens: 4, logprobs: true, top_logprobs: 3 });
  assert.equal(chat.choices[0].logprobs.content.length, 4);
  assert.equal(chat.choices[0].logprobs.content[0].top_logprobs.length, 3);
});

test("echo", async () => {
  const c = await client.completions.create({ model, prompt: "The little dog", max_tokens: 4, echo: true });
  assert.ok(c.choices[0].text.startsWith("The little dog"));
  const only = await client.completions.create({ model, prompt: "The little dog", max_tokens: 0, echo: true });
  assert.equal(only.choices[0].text, "The little dog");
});

test("stop strings across token borders", async () => {
  const whole = (await client.completions.create({ model, ...story })).choices[0].text;
  for (const stream of [false, true]) {
    const at = 17, stop = whole.slice(at, at + 11);
    const r = await client.completions.create({ model, ...story, stop: [stop], stream });
    let text = "", finish;
    if (stream) for await (const c of r) (text += c.choices[0].text), (finish = c.choices[0].finish_reason ?? finish);
    else (text = r.choices[0].text), (finish = r.choices[0].finish_reason);
    assert.equal(text, whole.slice(0, whole.indexOf(stop)));
    assert.equal(finish, "stop");
  }
});

test("prompts as strings and ids", async () => {
  const ids = (await (await server.post("/tokenize", { prompt: "The little dog" })).json()).tokens;
  const c = await client.completions.create({ model, prompt: ["The little dog", "A boy"], max_tokens: 6, temperature: 0 });
  const d = await client.completions.create({ model, prompt: [ids], max_tokens: 6, temperature: 0 });
  assert.equal(c.choices.length, 2);
  assert.equal(c.choices[0].text, d.choices[0].text);
  const back = await (await server.post("/detokenize", { tokens: ids })).json();
  assert.ok(back.prompt.endsWith("The little dog"));
});

const creature = z.object({ animal: z.enum(["fox", "owl"]), age: z.int().min(1).max(30), mother: z.object({ alive: z.boolean() }).nullable() });
const weather = z.object({ city: z.enum(["Oslo", "Rome"]), days: z.int().min(1).max(9) });
/** The built-in model's own knows no tools. */
const chat_template = "{% if tools %}{{ tools | tojson }}\n{% endif %}{% for m in messages %}{{ m.role }}: {{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}\n{% endfor %}assistant:";

test("the client's parse helpers", async () => {
  for (let seed = 0; seed < 3; seed++) {
    const body = { model, messages: question, seed, temperature: 2, max_tokens: 300, response_format: zodResponseFormat(creature, "creature") };
    const c = await client.chat.completions.parse(body);
    creature.parse(c.choices[0].message.parsed);
    const streamed = await client.chat.completions.stream(body).finalChatCompletion();
    assert.deepEqual(streamed.choices[0].message.parsed, c.choices[0].message.parsed);
    const tool = await client.chat.completions.parse({ model, messages: question, seed, temperature: 2, max_tokens: 300, tools: [zodFunction({ name: "weather", parameters: weather })], tool_choice: "required" });
    assert.ok(tool.choices[0].message.tool_calls.length >= 1);
    for (const call of tool.choices[0].message.tool_calls) weather.parse(call.function.parsed_arguments);
    const r = await client.responses.parse({ model, input: "A creature.", temperature: 2, max_output_tokens: 300, text: { format: zodTextFormat(creature, "creature") } });
    creature.parse(r.output_parsed);
  }
});

test("the client's tool runner, whole and streamed", async () => {
  const asked = [];
  const tools = [zodFunction({ name: "weather", description: "Weather now", parameters: weather, function: (args) => (asked.push(weather.parse(args)), "rain") })];
  const body = { model, messages: question, tools, chat_template, temperature: 2, seed: 4, max_tokens: 200, tool_choice: { type: "function", function: { name: "weather" } } };
  // A named choice ends the runner after its call.
  const runner = client.chat.completions.runTools(body);
  await runner.done();
  assert.equal(asked.length, 1);
  const [call, result] = runner.messages.slice(-2);
  assert.equal(result.role, "tool");
  assert.equal(result.tool_call_id, call.tool_calls[0].id);
  assert.equal(result.content, "rain");
  const streamed = client.chat.completions.runTools({ ...body, stream: true });
  const seen = [];
  streamed.on("tool_calls.function.arguments.done", (e) => seen.push(e));
  await streamed.done();
  assert.deepEqual(asked[1], asked[0]);
  // The history goes on.
  const next = await client.chat.completions.create({ model, messages: runner.messages, tools, chat_template, max_tokens: 4 });
  assert.equal(next.usage.completion_tokens, 4);
});

test("errors leave the next request alone", async () => {
  const fails = async (promise, status, type) => {
    const e = await promise.then(() => assert.fail("no error"), (x) => x);
    assert.equal(e.status, status);
    assert.equal(e.type, type);
    return e;
  };
  const e = await fails(client.chat.completions.create({ model, messages: question, max_tokens: 1e6 }), 400, "BadRequestError");
  assert.ok(e instanceof OpenAI.BadRequestError);
  assert.match(e.message, /This model's maximum context length is \d+ tokens\. However, you requested \d+ tokens \(\d+ in the messages, 1000000 in the completion\)\./);
  assert.equal(e.param, "messages");
  await fails(client.completions.create({ model, prompt: "word ".repeat(44000) }), 400, "BadRequestError");
  await fails(client.completions.create({ model: "other", prompt: "a" }), 404, "NotFoundError");
  await fails(client.completions.create({ model, prompt: "a", temperature: -1 }), 400, "BadRequestError");
  await fails(client.chat.completions.create({ model, messages: question, response_format: { type: "json_schema" } }), 400, "BadRequestError");
  assert.equal((await fetch(server.url + "/v1/completions")).status, 405);
  assert.equal((await fetch(server.url + "/v1/nothing")).status, 404);
  assert.equal((await fetch(server.url + "/v1/completions", { method: "POST", body: "{}" })).status, 415);
  assert.equal((await server.post("/v1/completions", "{\"prompt\":\"" + "x".repeat(40 << 20) + "\"}")).status, 413);
  const c = await client.completions.create({ model, ...story });
  assert.ok(c.choices[0].text.length > 40);
  assert.equal(await server.metric("kv_blocks_held"), 0);
});

test("errors by their class", async (t) => {
  const guarded = await serve(t, "--api-key", "secret");
  const of = (key, options) => new OpenAI({ baseURL: guarded.url + "/v1", apiKey: key, maxRetries: 0, ...options });
  const ask = (c, more) => c.chat.completions.create({ model, messages: question, max_tokens: 2, ...more });
  await assert.rejects(ask(of("wrong")), OpenAI.AuthenticationError);
  await assert.rejects(ask(of("secret"), { model: "other" }), OpenAI.NotFoundError);
  await assert.rejects(ask(of("secret"), { model: "other", stream: true }), OpenAI.NotFoundError);
  await assert.rejects(ask(of("secret"), { n: 0 }), (e) => e instanceof OpenAI.BadRequestError && e.param === "n" && e.code === 400);
  await assert.rejects(ask(of("secret", { timeout: 1 }), { max_tokens: 900, ignore_eos: true }), OpenAI.APIConnectionTimeoutError);
  assert.equal((await ask(of("secret"))).choices.length, 1);
  await guarded.close();
});

test("abort frees pages at once", async () => {
  const before = await server.metric("request_success_total", "length");
  for (const stream of [true, false]) {
    const controller = new AbortController();
    const asked = client.completions.create({ model, prompt: "Once", max_tokens: 1000, n: 8, stream, ignore_eos: true }, { signal: controller.signal });
    if (stream) {
      let n = 0;
      await (async () => {
        for await (const _ of await asked) if (++n === 20) controller.abort();
      })().catch(() => {});
    } else {
      await until(async () => (await server.metric("num_requests_running")) > 0, "running");
      controller.abort();
      await assert.rejects(asked);
    }
    await noPagesHeld();
  }
  assert.equal(await server.metric("request_success_total", "length"), before); // none of them ran to its end
});

test("200 concurrent streams, each as if alone", async () => {
  const prompts = ["Once upon a time", "The little dog", "A boy named", "One day", "Her mother"];
  const alone = [];
  for (const prompt of prompts)
    for (const seed of [1, 2]) alone.push((await client.completions.create({ model, prompt, seed, max_tokens: 24, temperature: 0.9 })).choices[0].text);
  const run = async (i) => {
    const stream = await client.completions.create({ model, prompt: prompts[i % 5], seed: 1 + (Math.floor(i / 5) % 2), max_tokens: 24, temperature: 0.9, stream: true });
    let text = "";
    for await (const c of stream) text += c.choices[0].text;
    return text;
  };
  const texts = await Promise.all(Array.from({ length: 200 }, (_, i) => run(i)));
  texts.forEach((t, i) => assert.equal(t, alone[(i % 5) * 2 + (Math.floor(i / 5) % 2)]));
  await noPagesHeld();
});

test("cached prompt tokens are reported", async () => {
  const prompt = "The dog and the cat went to the garden. ".repeat(20);
  await client.completions.create({ model, prompt, max_tokens: 1 });
  const c = await client.completions.create({ model, prompt, max_tokens: 1 });
  assert.ok(c.usage.prompt_tokens_details.cached_tokens > 0);
});
