// TGI's API as its clients use it: the official @huggingface/inference package, and what its documentation shows.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { HfInference } from "@huggingface/inference";
import { InferenceClient } from "huggingface-inference-4";
import { serve, until } from "./serve.mjs";

let server;
before(async () => { server = await serve(null, "--metrics-compat", "vllm,tgi", "--max-best-of", "3", "--max-stop-sequences", "4"); });
after(() => server.close());

const story = "Once upon a time";
const post = async (path, body, headers) => {
  const r = await server.post(path, body, headers);
  return { status: r.status, headers: r.headers, body: await r.json() };
};
const generate = async (parameters, inputs = story) => {
  const r = await post("/generate", { inputs, parameters });
  assert.equal(r.status, 200, JSON.stringify(r.body));
  return r.body;
};
const said = (d) => d.tokens.map((t) => (t.special ? "" : t.text)).join("");
const events = async (path, body) => {
  const r = await server.post(path, body);
  assert.match(r.headers.get("content-type"), /^text\/event-stream/);
  const text = await r.text();
  assert.ok(text.endsWith("\n\n"));
  return text.trimEnd().split("\n\n").map((e) => {
    assert.ok(e.startsWith("data:{"), e);
    return JSON.parse(e.slice(5));
  });
};

test("generate", async () => {
  const r = await post("/generate", { inputs: story, parameters: { max_new_tokens: 12 } });
  assert.equal(r.status, 200);
  assert.deepEqual(Object.keys(r.body), ["generated_text"]);
  for (const h of ["x-compute-type", "x-compute-time", "x-compute-characters", "x-total-time", "x-validation-time", "x-queue-time", "x-inference-time",
    "x-time-per-token", "x-prompt-tokens", "x-generated-tokens"]) assert.ok(r.headers.get(h) !== null, h);
  assert.equal(r.headers.get("x-generated-tokens"), "12");
  assert.equal(r.headers.get("x-compute-characters"), String(story.length));
  assert.match(r.headers.get("x-compute-time"), /^\d+\.\d+$/);   // seconds
  assert.ok(Math.abs(Number(r.headers.get("x-compute-time")) * 1000 - Number(r.headers.get("x-total-time"))) <= 1);
  const stream = await server.post("/generate_stream", { inputs: story, parameters: { max_new_tokens: 2 } });
  await stream.text();
  assert.equal(stream.headers.get("x-compute-characters"), String(story.length));
  assert.equal(stream.headers.get("x-compute-type"), r.headers.get("x-compute-type"));
  assert.equal(stream.headers.get("x-accel-buffering"), "no");
  const same = await (await server.post("/v1/completions", { prompt: story, max_tokens: 12, temperature: 0 })).json();
  assert.equal(r.body.generated_text, same.choices[0].text);
});

test("the official client of TGI's time: textGeneration, textGenerationStream", async () => {
  const hf = new HfInference().endpoint(server.url);
  const parameters = { max_new_tokens: 8, do_sample: false };
  const r = await hf.textGeneration({ inputs: story, parameters });
  assert.ok(r.generated_text.startsWith(story) && r.generated_text.length > story.length + 10);
  let text = "", last;
  for await (const e of hf.textGenerationStream({ inputs: story, parameters: { ...parameters, details: true } })) {
    text += e.token.text;
    last = e;
  }
  assert.equal(last.details.finish_reason, "length");
  assert.ok(r.generated_text.endsWith(text) && last.generated_text.endsWith(text));
  await assert.rejects(hf.textGeneration({ inputs: "", parameters }), /cannot be empty|422|validation/i);
});

test("details, prefill, top tokens", async () => {
  const { generated_text, details: d } = await generate({ max_new_tokens: 8, details: true, decoder_input_details: true, top_n_tokens: 3 });
  assert.equal(d.finish_reason, "length");
  assert.equal(d.generated_tokens, 8);
  assert.equal(d.seed, null);
  assert.equal(d.tokens.map((t) => t.text).join(""), generated_text);
  assert.equal(d.prefill[0].logprob, null);
  assert.ok(d.prefill.slice(1).every((t) => t.logprob <= 0 && typeof t.text === "string"));
  assert.equal(d.top_tokens.length, 8);
  for (const [i, top] of d.top_tokens.entries()) {
    assert.ok(top.length >= 3 && top.every((t, k) => k === 0 || t.logprob <= top[k - 1].logprob));
    assert.equal(top[0].id, d.tokens[i].id);   // greedy
    assert.equal(top[0].logprob, d.tokens[i].logprob);
  }
  assert.deepEqual(Object.keys(d.tokens[0]), ["id", "text", "logprob", "special"]);
});

test("logprobs are those of what was drawn from", async () => {
  const { details } = await generate({ max_new_tokens: 6, details: true, do_sample: true, top_k: 1, seed: 3 });
  assert.ok(details.tokens.every((t) => Math.abs(t.logprob) < 1e-6), JSON.stringify(details.tokens));   // one token left: certain
});

test("the end: a stop sequence stays in the text, an end token is special", async () => {
  const s = await generate({ max_new_tokens: 60, stop: ["."], details: true });
  assert.equal(s.details.finish_reason, "stop_sequence");
  assert.ok(s.generated_text.endsWith("."));
  const chat = await post("/chat_tokenize", { messages: [{ role: "user", content: "What is quire?" }] });
  const e = await post("/generate", { inputs: chat.body.templated_text, parameters: { max_new_tokens: 200, details: true } });
  assert.equal(e.body.details.finish_reason, "eos_token");
  const last = e.body.details.tokens.at(-1);
  assert.ok(last.special && last.text.length > 0 && !e.body.generated_text.includes(last.text));
});

test("generate_stream equals generate", async () => {
  const parameters = { max_new_tokens: 10, details: true, do_sample: true, seed: 7, temperature: 0.8, top_p: 0.95, typical_p: 0.97, repetition_penalty: 1.1, frequency_penalty: 0.1 };
  const whole = await generate(parameters);
  const list = await events("/generate_stream", { inputs: story, parameters });
  assert.deepEqual(list.map((e) => e.index), list.map((_, i) => i + 1));
  assert.equal(list.map((e) => e.token.text).join(""), whole.generated_text);
  assert.deepEqual(list.map((e) => e.token.id), whole.details.tokens.map((t) => t.id));
  const last = list.pop();
  assert.equal(last.generated_text, whole.generated_text);
  assert.deepEqual(last.details, { finish_reason: "length", generated_tokens: 10, seed: 7, input_length: 5 });
  assert.ok(list.every((e) => e.generated_text === null && e.details === null && !("top_tokens" in e)));
  assert.ok((await events("/generate_stream", { inputs: story, parameters: { max_new_tokens: 2, top_n_tokens: 2 } }))[0].top_tokens.length >= 2);
});

test("characters of several tokens come whole", async () => {
  const list = await events("/generate_stream", { inputs: "é", parameters: { max_new_tokens: 20, do_sample: true, temperature: 3, seed: 2 } });
  assert.equal(list.map((e) => (e.token.special ? "" : e.token.text)).join(""), list.at(-1).generated_text);
});

test("/ answers in an array with the prompt, or streams", async () => {
  const r = await post("/", { inputs: story, parameters: { max_new_tokens: 3 } });
  assert.ok(Array.isArray(r.body) && r.body[0].generated_text.startsWith(story));
  const bare = await post("/", { inputs: story, parameters: { max_new_tokens: 3, return_full_text: false } });
  assert.equal(story + bare.body[0].generated_text, r.body[0].generated_text);
  assert.equal((await events("/", { inputs: story, stream: true, parameters: { max_new_tokens: 3 } })).length, 3);
  const page = await fetch(server.url + "/");
  assert.equal(page.status, 200);
  assert.match(page.headers.get("content-type"), /^text\/html/);
  const wrong = await fetch(server.url + "/", { method: "DELETE" });
  assert.equal(wrong.status, 405);
  assert.equal(wrong.headers.get("allow"), "GET, HEAD, POST, OPTIONS");
});

test("best_of returns the likeliest and the others", async () => {
  const { generated_text, details: d } = await generate({ max_new_tokens: 8, best_of: 3, do_sample: true, temperature: 1.5, details: true });
  assert.equal(d.best_of_sequences.length, 2);
  const mean = (s) => s.tokens.reduce((a, t) => a + t.logprob, 0) / s.tokens.length;
  for (const other of d.best_of_sequences) {
    assert.ok(mean(other) <= mean(d));
    assert.equal(said(other), other.generated_text);
    assert.equal(other.generated_tokens, other.tokens.length);
  }
  assert.equal(said(d), generated_text);
});

test("a seed is told and repeats", async () => {
  const first = await generate({ max_new_tokens: 12, do_sample: true, temperature: 1.5, details: true });
  assert.ok(Number.isInteger(first.details.seed) || first.details.seed > 2 ** 53);
  const raw = await (await server.post("/generate", { inputs: story, parameters: { max_new_tokens: 12, do_sample: true, temperature: 1.5, details: true, seed: 1234567 } })).text();
  assert.match(raw, /"seed":1234567,/);
  assert.equal(raw, await (await server.post("/generate", { inputs: story, parameters: { max_new_tokens: 12, do_sample: true, temperature: 1.5, details: true, seed: 1234567 } })).text());
});

test("truncate keeps the last tokens; return_full_text gives all of inputs", async () => {
  const whole = "The cat sat. " + story;
  const cut = await generate({ max_new_tokens: 5, truncate: 4, return_full_text: true, decoder_input_details: true }, whole);
  assert.equal(cut.details.prefill.length, 4);
  assert.ok(whole.endsWith(cut.details.prefill.map((t) => t.text).join("")));
  assert.ok(cut.generated_text.startsWith(whole));
});

test("grammars", async () => {
  assert.match((await generate({ max_new_tokens: 20, grammar: { type: "regex", value: "[0-9]{3}-[a-f]{2}" }, do_sample: true, seed: 1 })).generated_text, /^\d{3}-[a-f]{2}$/);
  const schema = { type: "object", properties: { age: { type: "integer", minimum: 0, maximum: 99 } }, required: ["age"], additionalProperties: false };
  for (const grammar of [{ type: "json", value: schema }, { type: "json_object", value: schema }, { type: "json_schema", value: { name: "x", schema } },
    { type: "json", value: JSON.stringify(schema) }]) {
    const { age } = JSON.parse((await generate({ max_new_tokens: 100, grammar })).generated_text);
    assert.ok(Number.isInteger(age));
  }
});

test("only TGI's routes want properties of a schema", async () => {
  const r = await server.post("/v1/completions", { model: "tgi", prompt: story, max_tokens: 40, structured_outputs: { json: { type: "boolean" } } });
  assert.equal(r.status, 200);
  assert.equal(typeof JSON.parse((await r.json()).choices[0].text), "boolean");
});

test("what TGI's documentation shows with curl", async () => {
  const messages = [{ role: "system", content: "You are a helpful assistant." }, { role: "user", content: "What is deep learning?" }];
  const stream = await server.post("/v1/chat/completions", { model: "tgi", messages, stream: true, max_tokens: 20 });
  assert.equal(stream.status, 200);
  const lines = (await stream.text()).trimEnd().split("\n\n");
  assert.equal(lines.pop(), "data: [DONE]");
  const said = lines.map((l) => JSON.parse(l.replace(/^data: /, "")));
  assert.ok(said.every((e) => e.object === "chat.completion.chunk" && e.model === "quire-builtin"));
  assert.ok(said.map((e) => e.choices[0]?.delta.content ?? "").join("").length > 10);
  const parameters = { type: "object", properties: { location: { type: "string", maxLength: 20, description: "The city and state, e.g. San Francisco, CA" },
    format: { type: "string", enum: ["celsius", "fahrenheit"] } }, required: ["location", "format"] };
  const tools = [{ type: "function", function: { name: "get_current_weather", description: "Get the current weather", parameters } },
    { type: "function", function: { name: "other", parameters: { type: "object", properties: {} } } }];
  const ask = async (tool_choice) => {
    const r = await server.post("/v1/chat/completions", { model: "tgi", messages: [{ role: "user", content: "What is the weather like in New York?" }], tools, tool_choice, max_tokens: 200 });
    return { status: r.status, body: await r.json() };
  };
  for (const tool_choice of ["get_current_weather", { type: "function", function: { name: "get_current_weather" } }]) {
    const { status, body } = await ask(tool_choice);
    assert.equal(status, 200, JSON.stringify(body));
    assert.equal(body.choices[0].message.tool_calls.length, 1);
    const call = body.choices[0].message.tool_calls[0].function;
    assert.equal(call.name, "get_current_weather");
    assert.ok(["celsius", "fahrenheit"].includes(JSON.parse(call.arguments).format));
  }
  const typo = await ask("get_curent_weather");
  assert.equal(typo.status, 400);
  assert.match(typo.body.error.message, /none, auto, required or a function of 'tools'/);
  const puppy = await generate({ repetition_penalty: 1.3, max_new_tokens: 400, grammar: { type: "json", value: { properties: { location: { type: "string", maxLength: 20 },
    animals_seen: { type: "integer", minimum: 1, maximum: 5 }, animals: { type: "array", items: { type: "string", maxLength: 10 }, maxItems: 3 } },
    required: ["location", "animals_seen", "animals"] } } }, "I saw a puppy a cat and a raccoon during my bike ride in the park");
  const seen = JSON.parse(puppy.generated_text);   // an object, although no type is said
  assert.ok(seen.animals_seen >= 1 && seen.animals_seen <= 5 && Array.isArray(seen.animals));
});

test("the model is called tgi, or by the URL; other names that nobody has are no model's", async () => {
  const chat = (model, to = server) => to.post("/v1/chat/completions", { model, messages: [{ role: "user", content: "hi" }], max_tokens: 3 });
  const plain = (model, to = server) => to.post("/v1/completions", { model, prompt: story, max_tokens: 3 });
  for (const model of ["tgi", server.url, server.url + "/", server.url + "/v1", "https://x.endpoints.huggingface.cloud", "HTTP://x"])
    for (const ask of [chat, plain]) {
      const r = await ask(model);
      assert.equal(r.status, 200, model);
      assert.equal((await r.json()).model, "quire-builtin");
    }
  for (const model of ["TGI", "tgi ", "tgi2", "quire-builtn", "http://", "http:/x", "httpx://x", "file:///x", " http://x"])
    for (const ask of [chat, plain]) assert.equal((await ask(model)).status, 404, model);
});

test("with several models tgi is the first, unless one is called so", async (t) => {
  const ask = async (s, model) => {
    const r = await s.post("/v1/completions", { model, prompt: story, max_tokens: 1 });
    return [r.status, (await r.json()).model];
  };
  const cheap = ["--num-kv-blocks", "200", "--packed-cache", "off"];
  const s = await serve(t, "--model", "a=", "--model", "b=", ...cheap);
  assert.deepEqual(await ask(s, "tgi"), [200, "a"]);
  assert.deepEqual(await ask(s, s.url), [200, "a"]);
  assert.deepEqual(await ask(s, "b"), [200, "b"]);
  assert.deepEqual((await ask(s, "c"))[0], 404);
  const own = await serve(t, "--model", "a=", "--model", "tgi=", ...cheap);
  assert.deepEqual(await ask(own, "tgi"), [200, "tgi"]);
});

test("the official client of today, given the endpoint's URL", async () => {
  const client = new InferenceClient();
  const endpointUrl = server.url, messages = [{ role: "user", content: "What is quire?" }];
  const said = await client.chatCompletion({ endpointUrl, messages, max_tokens: 12, temperature: 0 });
  assert.ok(said.choices[0].message.content.length > 5);
  let text = "";
  for await (const e of client.chatCompletionStream({ endpointUrl, messages, max_tokens: 12, temperature: 0 })) text += e.choices[0]?.delta.content ?? "";
  assert.equal(text, said.choices[0].message.content);
  const { generated_text } = await client.textGeneration({ endpointUrl, inputs: story, parameters: { max_new_tokens: 12, temperature: 0, do_sample: false } });
  assert.equal(generated_text, (await generate({ max_new_tokens: 12 })).generated_text);
  text = "";
  for await (const e of client.textGenerationStream({ endpointUrl, inputs: story, parameters: { max_new_tokens: 12, temperature: 0 } })) text += e.choices?.[0]?.text ?? "";
  assert.equal(text, generated_text);
  assert.ok((await client.endpoint(endpointUrl + "/v1").chatCompletion({ messages, max_tokens: 3 })).choices[0].message.content.length > 0);
  assert.equal((await client.chatCompletion({ endpointUrl, model: "tgi", messages, max_tokens: 3 })).model, "quire-builtin");
  await assert.rejects(client.chatCompletion({ endpointUrl, model: "quire-builtn", messages, max_tokens: 3 }), (e) => e.httpResponse.status === 404);
  await assert.rejects(client.textGeneration({ endpointUrl, inputs: story, parameters: { top_p: 3 } }), (e) => e.httpResponse.status === 400);
});

test("a watermark is a parameter", async () => {
  const at = { max_new_tokens: 100, do_sample: true, temperature: 1.5, seed: 3 };
  const [plain, marked] = await Promise.all([generate(at), generate({ ...at, watermark: true })]);
  assert.notEqual(plain.generated_text, marked.generated_text);
});

test("without parameters it samples", async () => {
  const r = await post("/generate", { inputs: "The quick brown fox", parameters: null });
  assert.equal(r.status, 200);
});

test("validation: every parameter, TGI's words and status", async () => {
  const cases = [
    [{ best_of: 4, do_sample: true }, "`best_of` must be > 0 and <= 3. Given: 4"],
    [{ best_of: 2 }, "you must use sampling when `best_of` is > 1"],
    [{ best_of: 2, do_sample: true, seed: 1 }, "`seed` must not be set when `best_of` > 1"],
    [{ temperature: 0 }, "`temperature` must be strictly positive"],
    [{ repetition_penalty: 0 }, "`repetition_penalty` must be strictly positive"],
    [{ frequency_penalty: 2.5 }, "`frequency_penalty` must be >= -2.0 and <= 2.0"],
    [{ top_k: 0 }, "`top_k` must be strictly positive"],
    [{ top_p: 0 }, "`top_p` must be > 0.0"],
    [{ top_p: 1.01 }, "`top_p` must be > 0.0"],
    [{ typical_p: -1 }, "`typical_p` must be > 0.0"],
    [{ max_new_tokens: 0 }, "`max_new_tokens` must be strictly positive"],
    [{ max_new_tokens: 5000 }, "`inputs` tokens + `max_new_tokens` must be <= 1024. Given: 5 `inputs` tokens and 5000 `max_new_tokens`"],
    [{ truncate: 0 }, "`truncate` must be strictly positive and less than 1023. Given: 0"],
    [{ top_n_tokens: 21 }, "`top_n_tokens` must be >= 0 and <= 20. Given: 21"],
    [{ stop: ["1", "2", "3", "4", "5"] }, "`stop` supports up to 4 stop sequences. Given: 5"],
    [{ stop: "x" }, "stop"],
    [{ stop: [""] }, "stop"],
    [{ seed: "x" }, "seed"],
    [{ adapter_id: "lora" }, "`adapter_id`"],
    [{ grammar: { type: "regex", value: "(" } }, "grammar is not valid"],
    [{ grammar: { type: "xml", value: "(" } }, "grammar is not valid"],
    ...["json", "json_object", "json_schema"].flatMap((type) => [{}, { type: "object" }, { type: "string" }, { anyOf: [{ properties: {} }] }].flatMap((schema) =>
      [[{ grammar: { type, value: type === "json_schema" ? { name: "x", schema } : schema } }, "grammar is not valid: Grammar must have a 'properties' field"]])),
    [{ grammar: { type: "json", value: "{\"type\":\"object\"}" } }, "Grammar must have a 'properties' field"],
    [{ grammar: { type: "json", value: "{" } }, "grammar is not valid"],
    [{ grammar: { type: "json", value: true } }, "grammar is not valid"],
    [{ grammar: { type: "json", value: [] } }, "grammar is not valid"],
    [{ grammar: { type: "json", value: { properties: 3 } } }, "grammar is not valid"],
    [{ do_sample: "yes" }, "do_sample"],
  ];
  for (const [parameters, message] of cases) {
    const r = await post("/generate", { inputs: story, parameters });
    assert.equal(r.status, 422, JSON.stringify([parameters, r.body]));
    assert.equal(r.body.error_type, "validation");
    assert.ok(r.body.error.startsWith("Input validation error: ") && r.body.error.includes(message), JSON.stringify([parameters, r.body]));
  }
  for (const [path, body, message] of [
    ["/generate", { inputs: "" }, "`inputs` cannot be empty"],
    ["/generate", { inputs: 3 }, "`inputs` must be a string"],
    ["/generate", {}, "missing field `inputs`"],
    ["/generate", "{", "Input validation error"],
    ["/generate", { inputs: "word ".repeat(1100) }, "`inputs` must have less than 1023 tokens. Given: "],
    ["/generate_stream", { inputs: story, parameters: { best_of: 2, do_sample: true } }, "`best_of` != 1 is not supported when streaming tokens"],
    ["/generate_stream", { inputs: story, parameters: { decoder_input_details: true } }, "`decoder_input_details` == true is not supported when streaming tokens"],
    ["/", { inputs: story, stream: 1 }, "`stream`"],
  ]) {
    const r = await post(path, body);
    assert.equal(r.status, 422, JSON.stringify([body, r.body]));
    assert.ok(r.body.error.includes(message), JSON.stringify(r.body));
  }
});

test("tokenize, chat_tokenize, info, health", async () => {
  const text = "Héllo wörld, once";
  const { body } = await post("/tokenize", { inputs: text });
  const chars = [...text];
  assert.ok(body.every((t) => t.text === chars.slice(t.start, t.stop).join("")), JSON.stringify(body));
  assert.equal(Math.max(...body.map((t) => t.stop)), chars.length);
  const ids = (await post("/tokenize", { prompt: text })).body.tokens;
  assert.deepEqual(body.map((t) => t.id), ids);
  const chat = (await post("/chat_tokenize", { messages: [{ role: "user", content: "hi" }] })).body;
  assert.ok(chat.templated_text.includes("hi") && chat.tokenize_response.length > 2);
  const bad = await post("/chat_tokenize", { messages: [] });
  assert.equal(bad.status, 422);
  assert.equal(bad.body.error_type, "template_error");
  const info = await (await fetch(server.url + "/info")).json();
  assert.equal(info.max_total_tokens, 1024);
  assert.equal(info.max_input_tokens, 1023);
  assert.equal(info.max_best_of, 3);
  assert.equal(info.max_stop_sequences, 4);
  for (const k of ["model_id", "model_sha", "model_pipeline_tag", "max_concurrent_requests", "validation_workers", "max_client_batch_size", "router", "version", "sha", "docker_label"]) assert.ok(k in info, k);
  assert.equal((await fetch(server.url + "/health")).status, 200);
});

test("invocations goes by the body", async () => {
  assert.ok(Array.isArray((await post("/invocations", { inputs: story, parameters: { max_new_tokens: 2 } })).body));
  assert.equal((await post("/invocations", { prompt: story, max_tokens: 2 })).body.object, "text_completion");
  assert.equal((await post("/invocations", { messages: [{ role: "user", content: "hi" }], max_tokens: 2 })).body.object, "chat.completion");
  assert.equal((await post("/invocations", { inputs: "" })).body.error_type, "validation");
  assert.ok((await post("/invocations", {})).body.error.message);
});

test("overload is 429 in TGI's words; a gone client frees everything", async (t) => {
  const small = await serve(t, "--max-concurrent-requests", "1");
  const stop = new AbortController();
  const first = await fetch(small.url + "/generate_stream", { method: "POST", signal: stop.signal, headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ inputs: story, parameters: { max_new_tokens: 1000, do_sample: true, temperature: 2 } }) });
  await first.body.getReader().read();
  const r = await small.post("/generate", { inputs: "a" });
  if (r.status === 429) {
    assert.deepEqual(await r.json(), { error: "Model is overloaded", error_type: "overloaded" });
    assert.ok(r.headers.get("retry-after"));
  } else assert.equal(r.status, 200);   // the first one was over already
  stop.abort();
  await until(async () => (await small.metric("kv_blocks_held")) === 0, "all pages free");
});

test("metrics under TGI's names, with its bounds", async () => {
  const text = await (await fetch(server.url + "/metrics")).text();
  const families = text.split("# HELP ").filter((f) => f.startsWith("tgi_")).map((f) => {
    const [, name, type] = f.match(/^\S+ .*\n# TYPE (\S+) (\S+)\n/);
    return { name, type, samples: f.trimEnd().split("\n").slice(2) };
  });
  const kinds = { counter: ["request_count", "request_success", "request_failure", "batch_inference_count", "batch_inference_success", "batch_inference_failure", "batch_concat"],
    gauge: ["queue_size", "batch_current_size", "batch_current_max_tokens", "batch_max_total_tokens"],
    histogram: ["request_duration", "request_validation_duration", "request_queue_duration", "request_inference_duration", "request_mean_time_per_token_duration",
      "request_input_length", "request_generated_tokens", "request_max_new_tokens", "request_skipped_tokens", "batch_next_size", "batch_inference_duration",
      "batch_forward_duration", "batch_decode_duration", "batch_filter_duration", "batch_concat_duration"] };
  const expected = Object.entries(kinds).flatMap(([type, names]) => names.map((n) => `tgi_${n} ${type}`)).sort();
  assert.deepEqual(families.map((f) => `${f.name} ${f.type}`).sort(), expected);   // each once
  const bounds = (name, part = "") => families.find((f) => f.name === name).samples.filter((s) => s.includes("_bucket{") && s.includes(part)).map((s) => s.match(/le="([^"]+)"/)[1]);
  for (const { name, type, samples } of families) {
    assert.ok(samples.length > 0 && samples.every((s) => s.startsWith(name)), name);
    if (type !== "histogram") continue;
    for (const method of name.startsWith("tgi_batch") && name.endsWith("duration") ? ['method="decode"', ...(name.includes("concat") ? [] : ['method="prefill"'])] : [""]) {
      const of = samples.filter((s) => s.includes(method));
      const counts = of.filter((s) => s.includes("_bucket{")).map((s) => Number(s.split(" ").pop()));
      assert.ok(counts.every((c, i) => i === 0 || c >= counts[i - 1]), name);
      assert.equal(counts.at(-1), Number(of.find((s) => s.startsWith(name + "_count")).split(" ").pop()), name);
    }
    if (!name.endsWith("duration")) continue;
    const les = bounds(name, 'method="decode"').length ? bounds(name, 'method="decode"') : bounds(name);
    assert.equal(les.length, 36);
    for (let k = 1; k <= 35; k++) assert.ok(Math.abs(Number(les[k - 1]) / (0.0001 * 1.5 ** k) - 1) < 1e-8, `${name} ${les[k - 1]}`);
  }
  const sizes = bounds("tgi_batch_next_size");
  assert.deepEqual([sizes.length, sizes[0], sizes[1023], sizes[1024]], [1025, "1", "1024", "+Inf"]);
  const inputs = bounds("tgi_request_input_length"), totals = bounds("tgi_request_max_new_tokens");
  assert.deepEqual([inputs.length, inputs[0], inputs[99]], [101, "10.23", "1023"]);
  assert.deepEqual([totals.length, totals[0], totals[99]], [101, "10.24", "1024"]);
  const failed = (err) => Number(text.match(new RegExp(`\ntgi_request_failure\\{[^}]*err="${err}"\\} (\\d+)`))[1]);
  for (const err of ["overloaded", "template", "incomplete", "dropped", "generation"]) assert.equal(failed(err), 0, err);
  assert.ok(failed("validation") > 20);
  const value = (name) => Number(text.match(new RegExp(`\n${name}\\{[^}]*\\} (\\d+)`))[1]);
  assert.equal(value("tgi_request_count"), value("tgi_request_success") + failed("validation"));
  const open = await (await fetch(server.url + "/metrics", { headers: { Accept: "application/openmetrics-text" } })).text();
  assert.ok(open.includes("# TYPE tgi_batch_next_size histogram\n") && open.trimEnd().endsWith("# EOF"));
});

test("several models: each has its requests, and what reached none is told without a name", async (t) => {
  const several = await serve(t, "--metrics-compat", "tgi", "--model", "a=", "--model", "b=");
  const r = await several.post("/v1/completions", { model: "b", prompt: story, max_tokens: 2 });
  assert.equal(r.status, 200, await r.clone().text());
  assert.equal((await several.post("/v1/completions", { model: "nobody", prompt: story })).status, 404);
  const text = await (await fetch(several.url + "/metrics")).text();
  assert.match(text, /\ntgi_request_count\{model_name="a",engine="0"\} 0\ntgi_request_count\{model_name="b",engine="0"\} 1\ntgi_request_count\{model_name=""\} 1\n/);
  assert.match(text, /\ntgi_request_failure\{model_name="",err="validation"\} 1\n/);
  assert.equal(text.match(/# TYPE tgi_request_failure counter/g).length, 1);
  assert.equal(text.match(/# TYPE tgi_batch_next_size histogram/g).length, 1);
});
