// LangChain's OpenAI classes.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { AIMessage, HumanMessage, SystemMessage, ToolMessage } from "@langchain/core/messages";
import { StringOutputParser } from "@langchain/core/output_parsers";
import { ChatPromptTemplate } from "@langchain/core/prompts";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI, OpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { z } from "zod";
import { serve } from "./serve.mjs";

process.env.LANGSMITH_TRACING = process.env.LANGCHAIN_TRACING_V2 = "false";
let server;
const make = (more) => new ChatOpenAI({ model: "quire-builtin", apiKey: "none", temperature: 0, maxRetries: 0, configuration: { baseURL: server.url + "/v1" }, ...more });
/** A model that says this. */
const saying = (text, more) => make({ modelKwargs: { structured_outputs: { choice: [text] }, ...more } });
/** The built-in model's own knows no tools. */
const chat_template = "{% if tools %}{{ tools | tojson }}\n{% endif %}{% for m in messages %}{{ m.role }}: {{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}\n{% endfor %}assistant:";
const question = [new SystemMessage("Be brief."), new HumanMessage("What is quire?")];

before(async () => {
  server = await serve(null, "--tool-call-parser", "hermes", "--enable-auto-tool-choice");
});
after(() => server?.close());

const weather = tool(async ({ city, days }) => `rain in ${city} for ${days} days`, {
  name: "weather", description: "Weather now", schema: z.object({ city: z.enum(["Oslo", "Rome"]), days: z.int().min(1).max(9) }),
});
const call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}\n</tool_call>';
const calls = `${call}\n${call.replace("Oslo", "Rome")}`;

test("invoke", async () => {
  const m = await make({ maxTokens: 30 }).invoke("What is quire?");
  assert.match(m.content, /language model/i);
  assert.ok(["stop", "length"].includes(m.response_metadata.finish_reason));
  assert.equal(m.usage_metadata.total_tokens, m.usage_metadata.input_tokens + m.usage_metadata.output_tokens);
  assert.equal((await make({ maxTokens: 3 }).invoke(question)).usage_metadata.output_tokens, 3);
});

test("stream equals invoke", async () => {
  const whole = await make({ maxTokens: 30 }).invoke(question);
  let sum;
  for await (const chunk of await make({ maxTokens: 30 }).stream(question)) sum = sum ? sum.concat(chunk) : chunk;
  assert.equal(sum.content, whole.content);
  assert.equal(sum.usage_metadata.output_tokens, whole.usage_metadata.output_tokens);
});

test("batch, chains, log-probabilities, seeds", async () => {
  const chain = ChatPromptTemplate.fromMessages([["user", "Tell me of {what}."]]).pipe(make({ maxTokens: 8 })).pipe(new StringOutputParser());
  const both = await chain.batch([{ what: "dogs" }, { what: "cats" }]);
  assert.deepEqual(both, [await chain.invoke({ what: "dogs" }), await chain.invoke({ what: "cats" })]);
  const lp = (await make({ maxTokens: 4, logprobs: true, topLogprobs: 2 }).invoke(question)).response_metadata.logprobs.content;
  assert.deepEqual([lp.length, lp[0].top_logprobs.length], [4, 2]);
  const seeded = () => make({ maxTokens: 12, temperature: 2, n: 2, modelKwargs: { seed: 5 } }).generate([question]);
  const [a, b] = [await seeded(), await seeded()];
  assert.equal(a.generations[0].length, 2);
  assert.deepEqual(a.generations[0].map((g) => g.text), b.generations[0].map((g) => g.text));
  assert.notEqual(a.generations[0][0].text, a.generations[0][1].text);
});

test("bindTools: calls, and their results in the history", async () => {
  const model = saying(calls, { chat_template }).bindTools([weather]);
  const m = await model.invoke(question);
  assert.deepEqual(m.tool_calls.map((c) => [c.name, c.args]), [["weather", { city: "Oslo", days: 2 }], ["weather", { city: "Rome", days: 2 }]]);
  assert.equal(m.response_metadata.finish_reason, "tool_calls");
  const results = await Promise.all(m.tool_calls.map((c) => weather.invoke(c)));
  assert.ok(results.every((r) => r instanceof ToolMessage));
  assert.deepEqual(results.map((r) => r.tool_call_id), m.tool_calls.map((c) => c.id));
  const answer = await saying("It rains.", { chat_template }).bindTools([weather]).invoke([...question, m, ...results]);
  assert.equal(answer.content, "It rains.");
  assert.ok(answer.usage_metadata.input_tokens > m.usage_metadata.input_tokens);
  const one = await saying(calls).bindTools([weather], { parallel_tool_calls: false }).invoke(question);
  assert.equal(one.tool_calls.length, 1);
});

test("bindTools, streamed", async () => {
  let sum, pieces = 0;
  for await (const chunk of await saying(calls).bindTools([weather]).stream(question)) {
    pieces += chunk.tool_call_chunks?.length ?? 0;
    sum = sum ? sum.concat(chunk) : chunk;
  }
  assert.deepEqual(sum.tool_calls.map((c) => [c.name, c.args]), [["weather", { city: "Oslo", days: 2 }], ["weather", { city: "Rome", days: 2 }]]);
  assert.equal(new Set(sum.tool_calls.map((c) => c.id)).size, 2);
  assert.ok(pieces > 4, "arguments come in pieces");
});

test("tools that have to be called", async () => {
  for (const tool_choice of ["required", "any", "weather"])
    for (let seed = 0; seed < 2; seed++) {
      const m = await make({ temperature: 2, maxTokens: 200, modelKwargs: { seed } }).bindTools([weather], { tool_choice }).invoke(question);
      assert.ok(m.tool_calls.length >= 1);
      assert.equal(m.invalid_tool_calls.length, 0);
      for (const c of m.tool_calls) weather.schema.parse(c.args);
    }
});

test("withStructuredOutput", async () => {
  const schema = z.object({ animal: z.enum(["fox", "owl"]), age: z.int().min(1).max(30), wild: z.boolean() });
  for (const method of ["jsonSchema", "functionCalling"])
    for (let seed = 0; seed < 3; seed++) {
      const model = make({ temperature: 2, maxTokens: 300, modelKwargs: { seed } }).withStructuredOutput(schema, { name: "creature", method, includeRaw: true });
      const r = await model.invoke(question);
      schema.parse(r.parsed);
      assert.ok(r.raw instanceof AIMessage);
    }
  let last;
  for await (const partial of await make({ temperature: 1, maxTokens: 300 }).withStructuredOutput(schema, { name: "creature", method: "jsonSchema" }).stream(question)) last = partial;
  schema.parse(last);
});

test("the Responses API", async () => {
  const model = (more) => make({ useResponsesApi: true, maxTokens: 200, ...more });
  const m = await model().invoke(question), chat = await make({ maxTokens: 200 }).invoke(question);
  assert.equal(m.text, chat.content);
  assert.equal(m.usage_metadata.output_tokens, chat.usage_metadata.output_tokens);
  let sum;
  for await (const chunk of await model().stream(question)) sum = sum ? sum.concat(chunk) : chunk;
  assert.equal(sum.text, m.text);
  assert.equal((await model().invoke([...question, m, new HumanMessage("And?")])).response_metadata.status, "completed");
  // LangChain sends names of functions to this route, and keeps "required" to itself.
  const called = await model({ temperature: 2 }).bindTools([weather], { tool_choice: "weather" }).invoke(question);
  assert.equal(called.tool_calls.length, 1);
  weather.schema.parse(called.tool_calls[0].args);
  sum = undefined;
  for await (const chunk of await model({ temperature: 2 }).bindTools([weather], { tool_choice: "weather" }).stream(question)) sum = sum ? sum.concat(chunk) : chunk;
  weather.schema.parse(sum.tool_calls[0].args);
  const schema = z.object({ animal: z.enum(["fox", "owl"]), wild: z.boolean() });
  schema.parse(await model({ temperature: 2 }).withStructuredOutput(schema, { name: "creature", method: "jsonSchema" }).invoke(question));
  assert.equal((await model({ maxTokens: 1e6 }).invoke(question).catch((x) => x)).name, "ContextOverflowError");
});

test("the completions class", async () => {
  const llm = new OpenAI({ model: "quire-builtin", apiKey: "none", temperature: 0, maxTokens: 12, maxRetries: 0, configuration: { baseURL: server.url + "/v1" } });
  const text = await llm.invoke("Once upon a time");
  assert.ok(text.length > 10);
  let streamed = "";
  for await (const piece of await llm.stream("Once upon a time")) streamed += piece;
  assert.equal(streamed, text);
  assert.equal(await llm.invoke("Once upon a time", { stop: [text.slice(6, 12)] }), text.slice(0, 6));
});

test("embeddings", async () => {
  const model = new OpenAIEmbeddings({ model: "quire-builtin", apiKey: "none", maxRetries: 0, configuration: { baseURL: server.url + "/v1" } });
  const [a, b] = await model.embedDocuments(["The dog ran.", "Quire is an engine."]);
  assert.deepEqual(await model.embedQuery("The dog ran."), a);
  assert.equal(a.length, b.length);
  assert.notDeepEqual(a, b);
});

test("errors", async () => {
  const e = await make({ maxTokens: 1e6 }).invoke(question).catch((x) => x);
  assert.equal(e.name, "ContextOverflowError"); // as LangChain knows it by vLLM's and OpenAI's words
  assert.equal(e.cause.status, 400);
  assert.match(e.message, /maximum context length/);
  assert.equal((await make({ model: "other" }).invoke(question).catch((x) => x)).status, 404);
});
