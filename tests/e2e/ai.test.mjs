// The Vercel AI SDK with its openai-compatible provider.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, cosineSimilarity, embed, embedMany, extractReasoningMiddleware, generateObject, generateText, stepCountIs, streamObject, streamText, tool, wrapLanguageModel } from "ai";
import { z } from "zod";
import { serve, until } from "./serve.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
let server, model, thinker;
/** The built-in model's own knows no tools. */
const chat_template = "{% if tools %}{{ tools | tojson }}\n{% endif %}{% for m in messages %}{{ m.role }}: {{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}\n{% endfor %}assistant:";
/** What the built-in model is made to say: the SDK puts the provider's options into the body. */
const saying = (text, more) => ({ providerOptions: { quire: { structured_outputs: { choice: [text] }, ...more } } });
const provider = (url, more) => createOpenAICompatible({ name: "quire", baseURL: url + "/v1", includeUsage: true, supportsStructuredOutputs: true, ...more });
const prompt = "What is quire?";

before(async () => {
  [server, thinker] = await Promise.all([serve(null, "--tool-call-parser", "hermes", "--enable-auto-tool-choice"), serve(null, "--reasoning-parser", "qwen3")]);
  model = provider(server.url).chatModel("quire-builtin");
});
after(() => Promise.all([server?.close(), thinker?.close()]));

const weather = tool({
  description: "Weather now",
  inputSchema: z.object({ city: z.enum(["Oslo", "Rome"]), days: z.int().min(1).max(9) }),
  execute: async ({ city, days }) => ({ text: `rain in ${city} for ${days} days` }),
});
const call = 'I look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}\n</tool_call>';

test("generateText", async () => {
  const r = await generateText({ model, prompt, temperature: 0, maxOutputTokens: 30 });
  assert.match(r.text, /language model/i);
  assert.equal(r.usage.totalTokens, r.usage.inputTokens + r.usage.outputTokens);
  assert.ok(["stop", "length"].includes(r.finishReason));
  assert.match(r.response.id, /^chatcmpl-/);
  const cut = await generateText({ model, prompt, maxOutputTokens: 2, seed: 3, topP: 0.9, stopSequences: ["never this"], frequencyPenalty: 0.5, presencePenalty: 0.5 });
  assert.equal(cut.finishReason, "length");
  assert.equal(cut.usage.outputTokens, 2);
});

test("streamText equals generateText", async () => {
  const whole = await generateText({ model, prompt, temperature: 0, maxOutputTokens: 30 });
  const s = streamText({ model, prompt, temperature: 0, maxOutputTokens: 30 });
  let text = "", n = 0;
  for await (const piece of s.textStream) (text += piece), n++;
  assert.equal(text, whole.text);
  assert.ok(n > 3);
  assert.deepEqual([await s.finishReason, (await s.usage).outputTokens], [whole.finishReason, whole.usage.outputTokens]);
});

test("completionModel", async () => {
  const old = provider(server.url).completionModel("quire-builtin");
  const r = await generateText({ model: old, prompt: "Once upon a time", temperature: 0, maxOutputTokens: 12 });
  assert.equal(r.usage.outputTokens, 12);
  const s = streamText({ model: old, prompt: "Once upon a time", temperature: 0, maxOutputTokens: 12 });
  assert.equal(await s.text, r.text);
});

test("a tool is called, its result goes back", async () => {
  // The first step's text is a call, and so is the second's: the loop ends after two.
  const r = await generateText({ model, prompt, tools: { weather }, stopWhen: stepCountIs(2), ...saying(call, { chat_template }) });
  assert.equal(r.steps.length, 2);
  const [first] = r.steps;
  assert.equal(first.finishReason, "tool-calls");
  assert.equal(first.text, "I look.");
  assert.deepEqual(first.toolCalls.map((c) => [c.toolName, c.input]), [["weather", { city: "Oslo", days: 2 }]]);
  assert.deepEqual(first.toolResults.map((c) => c.output), [{ text: "rain in Oslo for 2 days" }]);
  assert.ok(r.steps[1].usage.inputTokens > first.usage.inputTokens, "the history has grown");
});

test("a tool is called in a stream", async () => {
  const s = streamText({ model, prompt, tools: { weather }, ...saying(call) });
  const seen = new Set();
  let input = "";
  for await (const part of s.fullStream) {
    seen.add(part.type);
    if (part.type === "tool-input-delta") input += part.delta;
    assert.notEqual(part.type, "error", JSON.stringify(part));
  }
  assert.deepEqual(JSON.parse(input), { city: "Oslo", days: 2 });
  for (const type of ["text-delta", "tool-input-start", "tool-input-delta", "tool-input-end", "tool-call", "tool-result", "finish"]) assert.ok(seen.has(type), type);
  assert.equal(await s.finishReason, "tool-calls");
});

test("a tool has to be called", async () => {
  for (const toolChoice of ["required", { type: "tool", toolName: "weather" }])
    for (let seed = 0; seed < 3; seed++) {
      const r = await generateText({ model, prompt, tools: { weather }, toolChoice, seed, temperature: 2, maxOutputTokens: 200 });
      assert.ok(r.toolCalls.length >= 1);
      for (const c of r.toolCalls) {
        assert.ok(!c.invalid, c.error);
        assert.ok(["Oslo", "Rome"].includes(c.input.city) && c.input.days >= 1 && c.input.days <= 9);
      }
      assert.equal(r.toolResults.length, r.toolCalls.length);
    }
  const none = await generateText({ model, prompt, tools: { weather }, toolChoice: "none", ...saying("No.") });
  assert.deepEqual([none.text, none.toolCalls.length], ["No.", 0]);
});

test("reasoning", async () => {
  const model = provider(thinker.url).chatModel("quire-builtin");
  const text = "<think>\nWell, 1 < 2.\n</think>\n\nYes.";
  const r = await generateText({ model, prompt, ...saying(text) });
  assert.deepEqual([r.reasoningText, r.text], ["Well, 1 < 2.", "Yes."]);
  const s = streamText({ model, prompt, ...saying(text) });
  assert.deepEqual([await s.reasoningText, await s.text], ["Well, 1 < 2.", "Yes."]);
});

test("a server that parses no reasoning leaves it to the SDK", async () => {
  const wrapped = wrapLanguageModel({ model, middleware: extractReasoningMiddleware({ tagName: "think" }) });
  const r = await generateText({ model: wrapped, prompt, ...saying("<think>Hm.</think>Yes.") });
  assert.deepEqual([r.reasoningText, r.text], ["Hm.", "Yes."]);
});

test("generateObject and streamObject", async () => {
  const schema = z.object({ name: z.enum(["fox", "owl"]), age: z.int().min(1).max(30), tags: z.array(z.enum(["a", "b"])).max(3), mother: z.object({ alive: z.boolean() }).nullable() });
  for (let seed = 0; seed < 3; seed++) {
    const r = await generateObject({ model, schema, prompt, seed, temperature: 2, maxOutputTokens: 300 });
    schema.parse(r.object);
    const s = streamObject({ model, schema, prompt, seed, temperature: 2, maxOutputTokens: 300 });
    let last;
    for await (const partial of s.partialObjectStream) last = partial;
    assert.deepEqual(last, r.object);
    assert.deepEqual(await s.object, r.object);
  }
  const array = await generateObject({ model, output: "array", schema: z.object({ n: z.int().min(0).max(9) }), prompt, temperature: 0.5, maxOutputTokens: 400 }).catch((e) => e);
  if (!(array instanceof Error)) assert.ok(array.object.every((x) => x.n >= 0 && x.n <= 9));
  else assert.equal(array.finishReason, "length");
  assert.ok(["yes", "no"].includes((await generateObject({ model, output: "enum", enum: ["yes", "no"], prompt })).object));
  // Without a schema: any JSON object.
  const free = await generateObject({ model: provider(server.url, { supportsStructuredOutputs: false }).chatModel("quire-builtin"), schema: z.record(z.string(), z.any()), prompt, temperature: 0.3, maxOutputTokens: 400 }).catch((e) => e);
  if (free instanceof Error) assert.equal(free.finishReason, "length");
  else assert.equal(typeof free.object, "object");
});

test("embed and embedMany", async () => {
  const model = provider(server.url).embeddingModel("quire-builtin");
  const one = await embed({ model, value: "The dog ran." });
  assert.ok(one.embedding.length > 16 && one.usage.tokens > 2);
  const many = await embedMany({ model, values: ["The dog ran.", "The dog ran!", "Quire is an engine."] });
  assert.deepEqual(many.embeddings[0], one.embedding); // alone or among others
  const [a, b, c] = many.embeddings;
  assert.ok(Math.abs(Math.hypot(...b) - 1) < 1e-4, "of length one");
  assert.ok(Math.abs(cosineSimilarity(a, one.embedding) - 1) < 1e-6 && cosineSimilarity(a, c) < 0.999);
});

test("errors", async () => {
  const e = await generateText({ model, prompt, maxOutputTokens: 1e6, maxRetries: 0 }).catch((x) => x);
  assert.ok(APICallError.isInstance(e));
  assert.equal(e.statusCode, 400);
  assert.equal(e.isRetryable, false);
  assert.match(e.message, /maximum context length/);
  const other = await generateText({ model: provider(server.url).chatModel("other"), prompt, maxRetries: 0 }).catch((x) => x);
  assert.deepEqual([other.statusCode, other.message], [404, "The model `other` does not exist."]);
});

test("an abort ends the request", async () => {
  const controller = new AbortController();
  const s = streamText({ model, prompt, maxOutputTokens: 900, abortSignal: controller.signal, providerOptions: { quire: { ignore_eos: true } }, onError() {} });
  let n = 0;
  for await (const part of s.fullStream) {
    if (part.type === "text-delta" && ++n === 5) controller.abort();
    if (part.type === "abort") break;
  }
  await until(async () => (await server.metric("kv_blocks_held")) === 0, "all pages free");
});
